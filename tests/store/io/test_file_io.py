"""What waits for the next sync is resumed when that has ended; if it failed, nothing is written any more."""

from __future__ import annotations

import asyncio
import errno

import pytest

from uringblob import AsyncFileBlobStore, BlobGuid, BlobStoreError, BlobStoreIOError, StorePoisoned
from uringblob.completion import Completion
from uringblob.store.io import file_io as file_io_module

PAGE = 4096


@pytest.fixture
async def store(store_path, engine):
    store = await AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine)
    yield store
    await store.aclose(flush=False)


def answered(store, answer):
    """Return what stands for the engine's sync, and answers so."""

    def sync():
        if isinstance(answer, BaseException):
            raise answer
        done = Completion(loop=store._loop)
        store._loop.call_soon(done.resolve, answer)
        return done

    return sync


FAILURES = {"EIO": -errno.EIO, "ENOSPC": -errno.ENOSPC, "no memory": MemoryError("none left")}


@pytest.mark.parametrize("failure", FAILURES)
async def test_what_waits_for_a_sync_that_fails_is_resumed_and_writes_nothing(store, monkeypatch, failure):
    """Any failure of a sync poisons first, and resumes the waiters then."""
    file_io, ends = store._core.file_io, []

    async def prepare():
        await file_io.wait_next_sync()
        ends.append(file_io.poison_cause is not None)
        await file_io.write(PAGE * 100, bytes(PAGE), "writing what depends on the sync")

    preparing = [file_io.start(prepare()) for _ in range(3)]
    writes = store.stats().writes
    with monkeypatch.context() as patched:
        patched.setattr(file_io.engine, "sync", answered(store, FAILURES[failure]))
        with pytest.raises((OSError, MemoryError)):
            await file_io.start(file_io.sync("for this test"))
    outcomes = await asyncio.gather(*preparing, return_exceptions=True)
    assert ends == [True] * 3
    assert ["no flush proves anything" in str(outcome) for outcome in outcomes] == [True] * 3
    assert len({id(outcome) for outcome in outcomes}) == 3
    assert store.stats().writes == writes
    with pytest.raises(StorePoisoned):
        await store.commit([(BlobGuid.random(), bytes(PAGE))])


@pytest.mark.parametrize("at", ["zeroed", "linked"])
async def test_a_segment_whose_preparation_waited_for_a_failed_sync_is_never_written(store, monkeypatch, at):
    """Neither the link behind zeros that may be lost, nor a group in a segment whose link may be."""
    log, file_io, guid = store._core.log, store._core.file_io, BlobGuid.random()
    extending = log.extend()
    if at == "linked":
        while log._extending is extending and not file_io._sync_waiters:
            await asyncio.sleep(0)
        await file_io.start(file_io.sync("of the zeros"))
    while not file_io._sync_waiters:
        await asyncio.sleep(0)
    with monkeypatch.context() as patched:
        patched.setattr(file_io.engine, "sync", answered(store, -errno.EIO))
        with pytest.raises(OSError, match="fdatasync"):
            await file_io.start(file_io.sync("for this test"))
    await asyncio.gather(extending, return_exceptions=True)
    writes = store.stats().writes
    with pytest.raises(StorePoisoned):
        await store.commit([(guid, bytes(PAGE))])
    assert store.stats().writes == writes


def no_memory(*_args, **_options):
    raise MemoryError("none left")


async def test_what_waits_for_a_sync_that_there_was_no_memory_to_begin_writes_nothing(store, monkeypatch):
    """It was linked into the log as a segment that is zeroed and flushed."""
    file_io = store._core.file_io
    waiter, syncs = file_io.wait_next_sync(), store.stats().syncs
    with monkeypatch.context() as patched:
        patched.setattr(file_io_module, "Completion", no_memory)
        with pytest.raises(MemoryError):
            await file_io.start(file_io.sync("for this test"))
    assert waiter.done()
    assert store.stats().syncs == syncs
    with pytest.raises(BlobStoreIOError, match="no flush proves anything"):
        await file_io.start(file_io.write(PAGE * 100, bytes(PAGE), "writing what depends on the sync"))


async def test_a_header_that_is_written_and_has_no_memory_to_wait_for_its_sync_is_not_written_again(
    store, monkeypatch
):
    """The next one would name another segment."""
    log, file_io = store._core.log, store._core.file_io
    extending = log.extend()
    while not file_io._sync_waiters:
        await asyncio.sleep(0)
    with monkeypatch.context() as patched:
        patched.setattr(file_io, "wait_next_sync", no_memory)
        await file_io.start(file_io.sync("for this test"))
        with pytest.raises(MemoryError):
            await extending
    assert isinstance(file_io.poison_cause, MemoryError)
    writes = store.stats().writes
    with pytest.raises(StorePoisoned):
        await log.extend()
    assert store.stats().writes == writes


async def test_each_member_of_a_group_gets_an_error_of_its_own_with_the_same_cause(store, monkeypatch):
    """Whoever catches one adds to it: notes, and a traceback that keeps his frames."""
    file_io = store._core.file_io
    await store.commit([(BlobGuid.random(), bytes(PAGE))])
    store._core.queue._recent_group_size = 8  # as after a group of so many

    async def commit(name):
        try:
            await store.commit([(BlobGuid.random(), bytes(PAGE))])
        except BlobStoreError as error:
            error.__notes__ = [name]
            return error

    with monkeypatch.context() as patched:
        patched.setattr(file_io.engine, "sync", answered(store, -errno.EIO))
        caught = await asyncio.gather(*(commit(str(n)) for n in range(8)))
    together = [error for error in caught if isinstance(error, BlobStoreIOError)]
    assert len(together) > 4
    assert len({id(error) for error in caught}) == len({id(error.__traceback__) for error in caught}) == 8
    assert [error.__notes__ for error in caught] == [[str(n)] for n in range(8)]
    assert len({(error.errno, str(error), id(error.__cause__)) for error in together}) == 1
    for _ in range(2):
        with pytest.raises(StorePoisoned) as raised:
            await store.commit([(BlobGuid.random(), bytes(PAGE))])
        assert raised.value.__cause__ is file_io.poison_cause
        assert not hasattr(file_io.poison_cause, "__notes__")
        assert file_io.poison_cause not in caught


@pytest.mark.parametrize("answer", [0, -errno.EIO])
async def test_what_waits_for_a_sync_of_a_small_group_waits_for_those_that_overlap_it(
    store, monkeypatch, answer
):
    """The system may have told the other one of what was lost."""
    file_io, sinks, other = store._core.file_io, [], Completion(loop=asyncio.get_running_loop())
    waiter = file_io.wait_next_sync()
    with monkeypatch.context() as patched:
        patched.setattr(file_io.engine, "start_sync", lambda sink: sinks.append(sink) or True)
        patched.setattr(file_io.engine, "sync", lambda: other)
        assert file_io.start_sync("for this test", lambda _result: None)
        syncing = file_io.start(file_io.sync("the other"))
        sinks[0].complete(0)
        assert not waiter.done()
        other.resolve(answer)
        await asyncio.gather(syncing, return_exceptions=True)
    assert waiter.done()
    assert (file_io.poison_cause is not None) == (answer < 0)
