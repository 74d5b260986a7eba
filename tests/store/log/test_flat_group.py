"""A group by callbacks: what is not as it should be goes on as a coroutine, and no caller waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from uringblob import AsyncFileBlobStore, BlobGuid, BlobStoreIOError, StorePoisoned, tuning
from uringblob.store.index.slot_states import SlotState
from uringblob.store.log.writer import Log

PAGE = 4096


class Struck(BaseException):
    """What a signal handler raises."""


MANY = 3 * tuning.APPLIED_AT_ONCE


@pytest.fixture
async def store(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        yield store


def guid(number):
    return BlobGuid(number.to_bytes(16, "big"))


def frames(count):
    return [(guid(number), bytes(PAGE)) for number in range(count)]


async def small_commit(store, count=1):
    """Commit frames of the store's own memory: those of others are moved by a job."""
    buffers = [store.alloc_blob_buf_zeroed() for _ in range(count)]
    await store.commit([(guid(number), buffer) for number, buffer in enumerate(buffers)])
    for buffer in buffers:
        buffer.release()


async def test_what_a_large_group_replaced_is_free_soon_after_the_next_small_one(store):
    """Not some of it with each group to come: the file would grow while it is not needed."""
    await store.commit(frames(MANY))
    await store.commit([(guid(MANY), bytes(PAGE))])
    await store.commit(deletes=[guid(MANY)])
    await store.commit(frames(MANY))
    slots = store._core.index.slots
    assert slots.awaiting_group == MANY
    await small_commit(store)
    for _ in range(2 * MANY):
        await asyncio.sleep(0)
    assert slots.awaiting_group == 1, "what the small one replaced"
    assert slots.count(SlotState.FREE) >= MANY


async def test_batches_that_overwrite_all_with_small_commits_between_do_not_make_the_file_grow(store):
    """It holds its blobs, and what two groups replace."""
    await store.commit(frames(MANY))
    await store.commit(frames(MANY))
    for _ in range(2):  # until it has what it needs
        await store.commit(frames(MANY))
        await small_commit(store)
        await asyncio.sleep(0.01)
    size = store.stats().file_bytes
    for _ in range(4):
        await store.commit(frames(MANY))
        await small_commit(store)
        await asyncio.sleep(0.01)
    assert store.stats().file_bytes == size


@pytest.mark.parametrize("way", ["rejected", "raised"])
async def test_a_sync_that_an_engine_has_no_answer_for_fails_its_group_and_poisons(store, monkeypatch, way):
    """A fault of the library's own: no engine does that of its own accord."""
    await store.commit(frames(64))
    await store.commit(deletes=[guid(number) for number in range(64)])
    for _ in range(3):
        await small_commit(store)  # a slot that is free at once is what small commits want
    engine = store._core.file_io.engine
    error, asked = ValueError("the engine's own fault"), []

    def start_sync(sink):
        asked.append(sink)
        if way == "raised":
            raise error
        asyncio.get_running_loop().call_soon(sink.reject, error)
        return True

    monkeypatch.setattr(engine, "start_sync", start_sync)
    with pytest.raises((BlobStoreIOError, StorePoisoned, ValueError)):
        await asyncio.wait_for(small_commit(store, 2), 20)
        assert asked
    assert asked
    monkeypatch.undo()
    assert store._core.file_io.poison_cause is not None
    assert not store._core.file_io.syncing
    with pytest.raises(StorePoisoned):
        await small_commit(store)
    with pytest.raises(StorePoisoned):
        await store.aclose()


async def test_a_handler_that_raises_when_a_group_is_accepted_has_it_accepted_once_and_poisons(
    store, monkeypatch
):
    """The reaping begins again, and so does what follows the sync: the log's position would move twice."""
    await store.commit(frames(64))
    await store.commit(deletes=[guid(number) for number in range(64)])
    for _ in range(3):
        await small_commit(store)
    accepted, accept = [], Log.accept_blocks

    def accept_and_strike(log, seq, blocks):
        accept(log, seq, blocks)
        accepted.append(seq)
        if len(accepted) == 1:
            raise Struck

    monkeypatch.setattr(Log, "accept_blocks", accept_and_strike)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    with pytest.raises(RuntimeError, match="a signal handler raised Struck"):
        await asyncio.wait_for(small_commit(store), 20)
    assert len(accepted) == 1
    assert store._core.file_io.poison_cause is not None
    with pytest.raises(StorePoisoned):
        await store.aclose()
