"""A handled error holds no lease: a buffer is released after it, before the collector runs."""

from __future__ import annotations

import asyncio
import errno
import gc

import pytest

from behaviour.faults import FailingWrites
from behaviour.work import fill, frame, guid, missing
from uringblob import (
    AsyncFileBlobStore,
    BlobCorrupt,
    BlobNotFound,
    BlobStoreIOError,
    FileBlobStore,
    MemoryBlobStore,
)


@pytest.fixture(autouse=True)
def collector_is_off():
    """What is freed here is freed by its last reference."""
    gc.disable()
    yield
    gc.enable()


async def open_damaged(path, engine):
    """Open a store whose blob 0 is corrupt."""
    store = await AsyncFileBlobStore.open(path, engine=engine, page_size=4096)
    await fill(store, range(3))
    with open(path, "r+b") as file:
        file.seek((store._core.index.find(guid(0)) >> 64) * 4096)
        file.write(b"rot")
    return store


READS = {
    "read_blob": lambda store, key, buffer: store.read_blob(key, buffer),
    "read_blob_range": lambda store, key, buffer: store.read_blob_range(key, 0, buffer),
}


@pytest.mark.parametrize(
    ("read", "number", "error"),
    [("read_blob", 9, BlobNotFound), ("read_blob_range", 9, BlobNotFound), ("read_blob", 0, BlobCorrupt)],
)
async def test_a_buffer_is_released_after_a_failed_read(store_path, engine, read, number, error):
    async with await open_damaged(store_path, engine) as store:
        with store.alloc_blob_buf_uninit() as buffer, pytest.raises(error):
            await READS[read](store, guid(number), buffer)
        assert store.stats().buffers_leased == 0


@pytest.mark.parametrize(("number", "error"), [(9, BlobNotFound), (0, BlobCorrupt)])
async def test_a_buffer_is_released_after_a_failed_read_of_a_snapshot(store_path, engine, number, error):
    async with await open_damaged(store_path, engine) as store, await store.snapshot() as snapshot:
        for read in READS if error is BlobNotFound else ["read_blob"]:
            with snapshot.alloc_blob_buf_uninit() as buffer, pytest.raises(error):
                await READS[read](snapshot, guid(number), buffer)
            assert store.stats().buffers_leased == 0


WAYS = {
    "task": asyncio.ensure_future,
    "gather": asyncio.gather,
    "wait_for": lambda call: asyncio.wait_for(call, 60),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("read", READS)
async def test_a_buffer_is_released_after_a_read_that_failed_in_a_task(store_path, engine, read, way):
    """asyncio keeps a task's error longer than the except block."""
    async with await open_damaged(store_path, engine) as store:
        buffer = store.alloc_blob_buf_uninit()
        with pytest.raises(BlobNotFound):
            await WAYS[way](READS[read](store, guid(9), buffer))
        buffer.release()
        assert store.stats().buffers_leased == 0


async def test_the_errors_of_a_batch_hold_no_buffer(store_path, engine):
    async with await open_damaged(store_path, engine) as store:
        buffers = [store.alloc_blob_buf_uninit() for _ in range(3)]
        errors = await store.read_blobs([(guid(n), b) for n, b in zip((0, 1, 9), buffers, strict=True)])
        assert [type(error) for error in errors] == [BlobCorrupt, type(None), BlobNotFound]
        for buffer in buffers:
            buffer.release()
        assert store.stats().buffers_leased == 0


@pytest.mark.parametrize("call", ["write_blobs", "write_blobs_with_data_sync", "commit"])
async def test_buffers_are_released_after_a_failed_write(store_path, engine, call):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096) as store:
        buffers = [store.alloc_blob_buf_zeroed() for _ in range(3)]
        with FailingWrites(store, errno.ENOSPC, count=1), pytest.raises(BlobStoreIOError, match="ENOSPC"):
            await getattr(store, call)([(guid(n), b) for n, b in enumerate(buffers)])
        for buffer in buffers:
            buffer.release()
        assert store.stats().buffers_leased == 0


async def test_buffers_are_released_after_a_failed_log_write(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096) as store:
        buffers = [store.alloc_blob_buf_zeroed() for _ in range(3)]
        failing = FailingWrites(store, errno.ENOSPC, kind="log", count=1)
        with failing, pytest.raises(BlobStoreIOError, match="ENOSPC"):
            await store.commit([(guid(n), b) for n, b in enumerate(buffers)])
        for buffer in buffers:
            buffer.release()
        assert store.stats().buffers_leased == 0


@pytest.mark.parametrize("call", ["read_blob", "write_blob"])
async def test_buffers_are_released_after_a_cancelled_call(store_path, engine, call):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096) as store:
        await fill(store, range(3))
        with store.alloc_blob_buf_zeroed() as buffer:
            task = asyncio.create_task(getattr(store, call)(guid(1), buffer))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
            await asyncio.sleep(
                0
            )  # asyncio holds a task's exception until the iteration in which it is raised ends
        assert store.stats().buffers_leased == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda path: FileBlobStore.open(path, page_size=4096, engine="pread"),
        lambda path: MemoryBlobStore(4096),
    ],
    ids=["file", "memory"],
)
@pytest.mark.parametrize("read", READS)
def test_the_synchronous_stores(store_path, make, read):
    with make(store_path) as store:
        buffer = store.alloc_blob_buf_uninit()
        with pytest.raises(BlobNotFound):
            READS[read](store, guid(9), buffer)
        buffer.release()
        buffer = store.alloc_blob_buf_uninit()
        [saved] = store.read_blobs([(guid(9), buffer)])
        buffer.release()
        assert isinstance(saved, BlobNotFound)


def test_a_synchronous_write(store_path):
    with FileBlobStore.open(store_path, page_size=4096, engine="pread") as store:
        buffer = store.alloc_blob_buf_zeroed()
        failing = FailingWrites(store._core, errno.ENOSPC, count=1)
        with failing, pytest.raises(BlobStoreIOError, match="ENOSPC"):
            store.commit([(guid(1), buffer)])
        buffer.release()
        assert store.stats().buffers_leased == 0


async def test_a_failed_group_does_not_end_the_committer(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096) as store:
        with FailingWrites(store, errno.ENOSPC, kind="log", count=1):
            commits = [store.commit([(guid(n), frame(n, 4096))]) for n in range(6)]
            outcomes = await asyncio.gather(*commits, return_exceptions=True)
        failed = [n for n, outcome in enumerate(outcomes) if outcome is not None]
        assert failed
        assert {outcomes[n].errno for n in failed} == {errno.ENOSPC}
        await fill(store, failed)
        assert not await missing(store, range(6))
