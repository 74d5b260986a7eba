"""A lease ends by ``release``, ``with`` or collection; an error's traceback holds buffers as Python does.

Errors that are returned and not raised (``read_blobs``) have no traceback, and hold nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno

import pytest

from behaviour.faults import FailingWrites
from behaviour.work import fill, frame, guid, missing
from uringblob import (
    AsyncFileBlobStore,
    AsyncMemoryBlobStore,
    BlobCorrupt,
    BlobNotFound,
    BlobStoreIOError,
    FileBlobStore,
    MemoryBlobStore,
)


async def open_damaged(path, engine):
    """Open a store whose blob 0 is corrupt."""
    store = await AsyncFileBlobStore.open(path, engine=engine, page_size=4096)
    await fill(store, range(3))
    with open(path, "r+b") as file:
        file.seek((store._core.manifest.find(guid(0)) >> 64) * 4096)
        file.write(b"rot")
    return store


READS = {
    "read_blob": lambda store, key, buffer: store.read_blob(key, buffer),
    "read_blob_range": lambda store, key, buffer: store.read_blob_range(key, 0, buffer),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("number", [0, 9], ids=["corrupt", "absent"])
async def test_a_lease_that_is_left_by_an_error_ends_with_it(store_path, engine, read, number):
    async with await open_damaged(store_path, engine) as store:
        for _ in range(3):
            with contextlib.suppress(BlobNotFound, BlobCorrupt), store.alloc_blob_buf_uninit() as buffer:
                await READS[read](store, guid(number), buffer)
        del buffer
        assert store.stats().buffers_leased == 0


async def test_a_saved_error_keeps_its_lease_until_it_is_dropped(store_path, engine):
    async with await open_damaged(store_path, engine) as store:
        try:
            with store.alloc_blob_buf_uninit() as buffer:
                await store.read_blob(guid(9), buffer)
        except BlobNotFound as error:
            saved = error
        assert store.stats().buffers_leased == 1
        saved.__traceback__ = None
        del buffer
        assert store.stats().buffers_leased == 0


async def test_the_errors_of_a_batch_keep_no_lease(store_path, engine):
    async with await open_damaged(store_path, engine) as store:
        buffers = [store.alloc_blob_buf_uninit() for _ in range(3)]
        errors = await store.read_blobs([(guid(n), b) for n, b in zip((0, 1, 9), buffers, strict=True)])
        for buffer in buffers:
            buffer.release()
        assert [type(error) for error in errors] == [BlobCorrupt, type(None), BlobNotFound]
        assert store.stats().buffers_leased == 0


@pytest.mark.parametrize("call", ["write_blobs", "write_blobs_with_data_sync", "commit"])
async def test_a_failed_write_that_was_handled_keeps_no_lease(store_path, engine, call):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096) as store:
        buffers = [store.alloc_blob_buf_zeroed() for _ in range(3)]
        with FailingWrites(store, errno.ENOSPC, count=1):
            with pytest.raises(BlobStoreIOError) as caught:
                await getattr(store, call)([(guid(n), b) for n, b in enumerate(buffers)])
            assert caught.value.errno == errno.ENOSPC
        del caught
        for buffer in buffers:
            buffer.release()
        assert store.stats().buffers_leased == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda path: FileBlobStore.open(path, page_size=4096, engine="pread"),
        lambda path: MemoryBlobStore(4096),
    ],
    ids=["file", "memory"],
)
def test_the_synchronous_stores(store_path, make):
    with make(store_path) as store:
        buffer = store.alloc_blob_buf_uninit()
        try:
            store.read_blob(guid(9), buffer)
        except BlobNotFound:
            buffer.release()
        buffer = store.alloc_blob_buf_uninit()
        [saved] = store.read_blobs([(guid(9), buffer)])
        buffer.release()
        assert isinstance(saved, BlobNotFound)


async def test_the_asynchronous_memory_store():
    async with AsyncMemoryBlobStore(4096) as store:
        buffer = store.alloc_blob_buf_uninit()
        [saved] = await store.read_blobs([(guid(9), buffer)])
        buffer.release()
        assert isinstance(saved, BlobNotFound)


async def test_who_handles_an_error_does_not_end_the_committer(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096) as store:
        with FailingWrites(store, errno.ENOSPC, kind="log", count=1):
            commits = [store.commit([(guid(n), frame(n, 4096))]) for n in range(6)]
            outcomes = await asyncio.gather(*commits, return_exceptions=True)
        failed = [n for n, outcome in enumerate(outcomes) if outcome is not None]
        assert failed
        assert {outcomes[n].errno for n in failed} == {errno.ENOSPC}
        await fill(store, failed)
        assert not await missing(store, range(6))
