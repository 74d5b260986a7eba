"""Two who open one store: one at a time, one file, and never a dead writer's late writes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os

import pytest

from behaviour import children
from behaviour.work import frame, guid, missing
from uringblob import AsyncFileBlobStore, BlobNotFound, FileBlobStore, StoreLocked

pytestmark = pytest.mark.one_interpreter  # the locks are the kernel's

#: For each of two engines: fifty of each kind are promised.
ROUNDS = 25


@pytest.mark.one_interpreter
async def test_two_creators_at_once_make_one_store(disk_dir, engine, count_row):
    """Both commits are in the one file that is there in the end, and nothing else is left."""
    start = "behaviour.child_opener:create_again_and_again"
    with children.Child(start, 0, engine) as first, children.Child(start, 1, engine) as second:
        for child in (first, second):
            assert child.hear() == "ready"
        for round_number in range(ROUNDS):
            path = disk_dir / f"store-{round_number}"
            for child in (first, second):
                child.say(str(path))
            for child in (first, second):
                assert child.hear() == "done"
            async with AsyncFileBlobStore.open(path, engine=engine, create=False) as store:
                assert not await missing(store, [0, 1])
        for child in (first, second):
            child.say()
            child.result()
    assert sorted(os.listdir(disk_dir)) == sorted(f"store-{n}" for n in range(ROUNDS))
    count_row(13, **{"times two creators at once": ROUNDS})


async def test_many_creators_in_one_process(disk_dir, engine):
    async def create(path, number):
        async with AsyncFileBlobStore.open(path, engine=engine, page_size=4096, buffers=2) as store:
            await store.commit([(guid(number), frame(number, 4096))])

    path = disk_dir / "store"
    await asyncio.gather(*(create(path, number) for number in range(8)))
    async with AsyncFileBlobStore.open(path, engine=engine, create=False) as store:
        assert not await missing(store, range(8))
    assert os.listdir(disk_dir) == ["store"]


@pytest.mark.parametrize("timeout", [0, 0.05])
@pytest.mark.parametrize("theirs", [False, True], ids=["a writer", "a reader"])
def test_who_is_locked_out(store_path, engine, theirs, timeout):
    """A writer locks other writers out, a reader nobody; the error names the file and the time."""
    with FileBlobStore.open(store_path, page_size=4096):
        pass
    with children.Child("behaviour.child_opener:hold", store_path, engine, theirs) as holder:
        assert holder.hear() == "open"
        for read_only in (False, True):
            if theirs or read_only:
                options = {"read_only": read_only, "lock_timeout": timeout}
                FileBlobStore.open(store_path, engine=engine, **options).close()
                continue
            with pytest.raises(StoreLocked) as caught:
                FileBlobStore.open(store_path, engine=engine, read_only=read_only, lock_timeout=timeout)
            assert store_path in str(caught.value)
            assert f"{timeout} s" in str(caught.value)
        holder.say()
        holder.result()
    FileBlobStore.open(store_path, engine=engine, lock_timeout=0).close()


def test_a_second_opener_is_locked_out_every_time(store_path, engine, count_row):
    """A writer in another process holds the store, and works; and whoever is refused leaves no trace."""
    FileBlobStore.open(store_path, page_size=4096).close()
    with children.Child("behaviour.child_opener:hold", store_path, engine, False) as holder:
        assert holder.hear() == "open"
        for _ in range(ROUNDS):
            with pytest.raises(StoreLocked):
                FileBlobStore.open(store_path, engine=engine, lock_timeout=0)
        holder.say()
        holder.result()
    FileBlobStore.open(store_path, engine=engine, lock_timeout=0).close()
    count_row(13, **{"times a second opener": ROUNDS})


async def test_a_second_opener_in_the_same_process(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096):
        with pytest.raises(StoreLocked):
            await AsyncFileBlobStore.open(store_path, engine=engine, lock_timeout=0)


async def test_whoever_waits_gets_the_store_when_it_is_closed(store_path, engine):
    """The waiting opener leaves the loop free, and sees what was committed while it waited."""
    first = await AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096)
    waiting = asyncio.ensure_future(_open(store_path, engine=engine, lock_timeout=60))
    for number in range(5):
        await first.commit([(guid(number), frame(number, 4096))])
    assert not waiting.done()
    await first.aclose()
    second = await waiting
    assert not await missing(second, range(5))
    await second.aclose()


async def test_who_stops_waiting_leaves_nothing_behind(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096) as store:
        before = len(os.listdir("/proc/self/fd"))
        # They give up at once, not at the end of an hour.
        options = {"engine": engine, "lock_timeout": 3600}
        waiting = [asyncio.ensure_future(_open(store_path, **options)) for _ in range(4)]
        await store.commit([(guid(1), frame(1, 4096))])
        for task in waiting:
            task.cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
        assert len(os.listdir("/proc/self/fd")) == before


async def test_a_file_that_was_replaced_meanwhile_is_not_the_one_opened(store_path, disk_dir, engine):
    """The path names another file when the lock is had at last: that one is opened."""
    first = await AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096)
    other = disk_dir / "other"
    async with AsyncFileBlobStore.open(other, engine=engine, page_size=4096) as store:
        await store.commit([(guid(7), frame(7, 4096))])
    waiting = asyncio.ensure_future(_open(store_path, engine=engine, lock_timeout=60))
    await first.commit([(guid(1), frame(1, 4096))])
    os.replace(other, store_path)
    await first.aclose()
    async with contextlib.aclosing(await waiting) as second:
        assert not await missing(second, [7])
        assert not await second.has_blob(guid(1))


async def _open(path, **options):
    return await AsyncFileBlobStore.open(path, **options)


@pytest.mark.parametrize("kill_after", [1, 7, 20])
async def test_an_opener_right_after_a_kill(store_path, engine, kill_after):
    """Every commit that was acknowledged is there, and nothing of the dead writer lands later."""
    acknowledged = {}
    with children.Child("behaviour.child_opener:write_until_killed", store_path, engine) as writer:
        for _ in range(kill_after):
            first, version = writer.hear()
            acknowledged[first] = version
        writer.kill()
        for line in writer.rest():
            acknowledged[line[0]] = line[1]
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=65536) as store:
        seen = await versions(store, max(acknowledged.values()) + 100)
        for first, version in acknowledged.items():
            assert seen[first] >= version
        report = await store.verify()
        assert report.ok
        # Frames written from here on go to the slots that a late write would hit.
        for number in range(100, 160):
            await store.commit([(guid(number), frame(number, 65536))])
        assert not await missing(store, range(100, 160))
        assert await versions(store, max(acknowledged.values()) + 100) == seen


async def versions(store, limit):
    """Return each committer's version; all of its four frames have it."""
    found = {}
    with store.alloc_blob_buf_uninit() as buffer:
        for first in range(0, 24, 4):
            texts = set()
            for number in range(first, first + 4):
                try:
                    await store.read_blob(guid(number), buffer)
                    texts.add((number - first, bytes(buffer.view)))
                except BlobNotFound:
                    texts.add((number - first, b""))
            for version in itertools.count():
                assert version <= limit, "the frames of one commit are of different versions"
                if texts == {(n, frame(first + n, 65536, version) if version else b"") for n in range(4)}:
                    found[first] = version
                    break
    return found
