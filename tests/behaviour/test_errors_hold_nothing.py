"""Found: an error's traceback held views of the caller's buffer, so that it could not be released
while the error was being handled, and a saved error kept its lease.

The first cure emptied the frames of the traceback, and ended the committer, whose frame was one
of them: every later commit hung.
"""

from __future__ import annotations

import asyncio
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
async def test_a_buffer_is_released_while_its_error_is_handled(store_path, engine, read):
    async with await open_damaged(store_path, engine) as store:
        buffer = store.alloc_blob_buf_uninit()
        try:
            await READS[read](store, guid(9), buffer)
        except BlobNotFound:
            buffer.release()
        assert store.stats().buffers_leased == 0


async def test_a_saved_error_keeps_no_lease(store_path, engine):
    async with await open_damaged(store_path, engine) as store:
        errors = []
        for number in (0, 9):
            with store.alloc_blob_buf_uninit() as buffer:
                try:
                    await store.read_blob(guid(number), buffer)
                except (BlobCorrupt, BlobNotFound) as error:
                    errors.append(error)
        buffers = [store.alloc_blob_buf_uninit() for _ in range(3)]
        errors += await store.read_blobs([(guid(n), b) for n, b in zip((0, 1, 9), buffers, strict=True)])
        for buffer in buffers:
            buffer.release()
        assert [type(error) for error in errors] == [
            BlobCorrupt,
            BlobNotFound,
            BlobCorrupt,
            type(None),
            BlobNotFound,
        ]
        assert store.stats().buffers_leased == 0


@pytest.mark.parametrize("call", ["write_blobs", "write_blobs_with_data_sync", "commit"])
async def test_a_failed_write_keeps_no_lease(store_path, engine, call):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096) as store:
        buffers = [store.alloc_blob_buf_zeroed() for _ in range(3)]
        with FailingWrites(store, errno.ENOSPC, count=1):
            try:
                await getattr(store, call)([(guid(n), b) for n, b in enumerate(buffers)])
            except BlobStoreIOError as error:
                for buffer in buffers:
                    buffer.release()
                saved = error
        assert saved.errno == errno.ENOSPC
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
