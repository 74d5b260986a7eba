"""Every store of ours is asked every sentence of the contract; and the asking itself is asked."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from broken_stores import BROKEN, BROKEN_ASYNC, Sound, SoundAsync
from uringblob import AsyncFileBlobStore, AsyncMemoryBlobStore, FileBlobStore, MemoryBlobStore
from uringblob.api.sync_store import run_to_completion
from uringblob.testing import CHECKS, ConformanceError, check_async_blob_store, check_blob_store
from uringblob.testing.conformance.expect import refused

# Every sentence is asked of every interpreter with small frames; what large ones differ in is the store's.
PAGE_SIZES = [4096, pytest.param(524288, marks=pytest.mark.one_interpreter)]


class Files:
    """Makes stores in new files, and opens the last one again."""

    def __init__(self, directory, page_size, engine, opened):
        self._paths = (directory / f"store-{number}" for number in itertools.count())
        self._options = {"page_size": page_size, "engine": engine}
        self._open = opened
        self._path = None

    def make(self):
        self._path = next(self._paths)
        return self._open(self._path, **self._options)

    def reopen(self):
        return self._open(self._path, **self._options)


@pytest.fixture(params=PAGE_SIZES)
def page_size(request):
    return request.param


@pytest.mark.parametrize("check", CHECKS, ids=str)
class TestMemory:
    def test_sync(self, check, page_size):
        check_blob_store(lambda: MemoryBlobStore(page_size), checks=[check])

    async def test_async(self, check, page_size):
        await check_async_blob_store(lambda: AsyncMemoryBlobStore(page_size), checks=[check])


@pytest.mark.parametrize("check", CHECKS, ids=str)
class TestFile:
    def test_sync(self, check, page_size, engine, disk_dir):
        files = Files(disk_dir, page_size, engine, FileBlobStore.open)
        check_blob_store(files.make, reopen=files.reopen, checks=[check])

    async def test_async(self, check, page_size, engine, disk_dir):
        files = Files(disk_dir, page_size, engine, AsyncFileBlobStore.open)
        await check_async_blob_store(files.make, reopen=files.reopen, checks=[check])


@pytest.mark.one_interpreter  # how the suite judges; what it asks, the others are asked above
class TestTheSuite:
    def test_five_methods_are_enough(self):
        report = check_blob_store(Sound)
        assert len(report.passed) > 30
        assert {check.needs[0] for check, _ in report.not_asked} >= {"own_commit", "own_close", "file"}

    async def test_five_asynchronous_methods_are_enough(self):
        report = await check_async_blob_store(SoundAsync)
        assert len(report.passed) > 30

    async def test_make_store_may_be_a_coroutine_function(self):
        async def make():
            return SoundAsync()

        assert (await check_async_blob_store(make)).passed

    def test_in_a_thread_in_which_a_loop_runs(self):
        async def main():
            return check_blob_store(Sound, checks=CHECKS[:3])

        assert len(asyncio.run(main()).passed) == 3

    def test_names_are_unique_and_sentences_are_sentences(self):
        assert len({check.name for check in CHECKS}) == len(CHECKS)
        assert all(check.sentence.endswith(".") for check in CHECKS)

    def test_not_a_store(self):
        with pytest.raises(TypeError, match="neither"):
            check_blob_store(dict)

    def test_a_store_that_hangs(self):
        class Hangs(SoundAsync):
            async def read_blob(self, guid, dst):
                await asyncio.Event().wait()

        with pytest.raises(ConformanceError, match="did not come to an end"):
            asyncio.run(check_async_blob_store(Hangs, timeout=0.2))

    @pytest.mark.parametrize("broken", BROKEN, ids=lambda store: store.__name__)
    def test_the_canary(self, broken):
        with pytest.raises(ConformanceError) as caught:
            check_blob_store(broken, reopen=getattr(broken, "reopen", None))
        assert caught.value.args[0].startswith(broken.caught_by), caught.value

    @pytest.mark.parametrize("broken", BROKEN_ASYNC, ids=lambda store: store.__name__)
    async def test_the_asynchronous_canary(self, broken):
        with pytest.raises(ConformanceError) as caught:
            await check_async_blob_store(broken)
        assert caught.value.args[0].startswith(broken.caught_by), caught.value


@pytest.mark.parametrize("call", [lambda: 3, Sound().flush], ids=["returns", "plain"])
def test_what_does_not_raise_where_it_must_fails_the_check(call):
    """Also where it is no coroutine that fails to."""
    with pytest.raises(ConformanceError, match="instead of raising ValueError"):
        run_to_completion(refused(ValueError, call))
