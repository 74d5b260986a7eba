"""What a change costs in requests: counted, never timed.

The slots and log blocks these changes use have been written before, as the promise says.
"""

from __future__ import annotations

import errno

import pytest

from uringblob import BlobGuid
from uringblob.ring import Opcode, SqeFlags
from uringblob.store.async_store import AsyncFileBlobStore
from uringblob.store.index.slot_states import SlotState

PAGE = 4096
FIXED_WRITES = {Opcode.WRITE_FIXED, Opcode.WRITEV_FIXED}


@pytest.fixture
async def store(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        await write_over(store)
        yield store


async def write_over(store):
    """Write every slot that the tests use, and free it again."""
    guids = [BlobGuid.random() for _ in range(64)]
    await store.write_blobs_with_data_sync([(guid, bytes(PAGE)) for guid in guids])
    await store.flush()
    await store.commit(deletes=guids)
    await store.commit([(guids[0], bytes(PAGE))])


def leases(store, count):
    return [store.alloc_blob_buf_zeroed() for _ in range(count)]


async def costs_of(store, change):
    before = store.stats()
    await change
    after = store.stats()
    return {name: getattr(after, name) - getattr(before, name) for name in ("syncs", "writes", "ring_enters")}


@pytest.mark.parametrize("frames", [1, 8, 32])
async def test_a_commit_costs_one_flush_and_two_submissions(store, frames):
    writes = [(BlobGuid.random(), buf) for buf in leases(store, frames)]
    cost = await costs_of(store, store.commit(writes))
    assert cost["syncs"] == 1
    assert cost["writes"] == 2  # the gathered frames, and the log block
    if store.stats().engine == "io_uring":
        assert cost["ring_enters"] == 2


async def test_a_hundred_commits_cost_a_hundred_flushes(store):
    (buf,) = leases(store, 1)
    before = store.stats().syncs
    for _ in range(100):
        await store.commit([(BlobGuid.random(), buf)])
    assert store.stats().syncs - before == 100


async def test_deletes_alone_cost_one_flush_and_one_write(store):
    guid = BlobGuid.random()
    await store.commit([(guid, bytes(PAGE))])
    assert await costs_of(store, store.commit(deletes=[guid])) == {
        "syncs": 1,
        "writes": 1,
        "ring_enters": 2 if store.stats().engine == "io_uring" else 0,
    }


async def test_nothing_to_flush_is_no_request_at_all(store):
    nothing = {"syncs": 0, "writes": 0, "ring_enters": 0}
    assert await costs_of(store, store.flush()) == nothing
    assert await costs_of(store, store.commit()) == nothing
    assert await costs_of(store, store.commit(deletes=[BlobGuid.random()])) == nothing
    assert await costs_of(store, store.write_blobs([])) == nothing
    await store.delete_blob(BlobGuid.random())
    assert not store.needs_flush()


async def test_a_flush_after_a_data_sync_is_one_block_and_one_sync(store):
    await store.write_blobs_with_data_sync([(BlobGuid.random(), buf) for buf in leases(store, 8)])
    cost = await costs_of(store, store.flush())
    assert (cost["writes"], cost["syncs"]) == (1, 1)


async def test_one_contiguous_run_is_one_write_linked_to_one_fdatasync(store):
    bufs = leases(store, 8)
    submissions = []
    engine = store._core.file_io.engine
    if engine.name == "io_uring":
        engine.ring.trace = lambda ops: submissions.append([traced.op for traced in ops])
    cost = await costs_of(
        store, store.write_blobs_with_data_sync([(BlobGuid.random(), b) for b in reversed(bufs)])
    )
    assert (cost["writes"], cost["syncs"]) == (1, 1)
    assert store.stats().batches_linked >= 1
    if engine.name == "io_uring":
        assert cost["ring_enters"] == 1
        ((write, sync),) = submissions
        assert write.opcode == Opcode.WRITE_FIXED
        assert write.length == 8 * PAGE
        assert write.flags & SqeFlags.IO_LINK
        assert not write.flags & (SqeFlags.IO_HARDLINK | SqeFlags.IO_DRAIN)
        assert write.flags & sync.flags & SqeFlags.FIXED_FILE
        assert sync.opcode == Opcode.FSYNC
        assert sync.op_flags == 1  # IORING_FSYNC_DATASYNC
        assert sync.file == write.file


async def test_scattered_frames_of_one_run_are_one_write_too(store):
    bufs = leases(store, 16)[::2]
    cost = await costs_of(store, store.write_blobs_with_data_sync([(BlobGuid.random(), b) for b in bufs]))
    assert (cost["writes"], cost["syncs"]) == (1, 1)
    if store.stats().engine == "io_uring":
        assert cost["ring_enters"] == 1


async def test_several_runs_are_written_and_then_synced_once(store, monkeypatch):
    slots = store._core.index.slots
    # Every second slot is taken, and the file cannot grow.
    for run in slots.allocate_runs(slots.count(SlotState.FREE), SlotState.WRITING):
        for slot in range(run.slot, run.end, 2):
            slots.move(slot, SlotState.FREE)

    async def cannot_grow(size):
        return -errno.ENOSPC

    monkeypatch.setattr(store._core.file_io.engine, "grow", cannot_grow)
    cost = await costs_of(
        store, store.write_blobs_with_data_sync([(BlobGuid.random(), buf) for buf in leases(store, 3)])
    )
    assert (cost["writes"], cost["syncs"]) == (3, 1)
    assert store.stats().batches_scattered >= 1
    if store.stats().engine == "io_uring":
        assert cost["ring_enters"] == 2


async def test_has_and_list_do_no_io(store):
    before = store.stats()
    await store.has_blob(BlobGuid.random())
    await store.list_blobs()
    after = store.stats()
    assert (after.reads, after.ring_enters) == (before.reads, before.ring_enters)


async def test_a_range_reads_only_its_bytes(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, page_size=65536, engine=engine) as store:
        guid = BlobGuid.random()
        await store.write_blob(guid, bytes(range(256)) * 256)
        before = store.stats().bytes_read
        part = bytearray(8192)
        await store.read_blob_range(guid, 4096, part)
        assert store.stats().bytes_read - before == 8192
        assert part == (bytes(range(256)) * 256)[4096:12288]
