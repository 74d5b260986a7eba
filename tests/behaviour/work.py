"""What a test does with a store when it only matters that the store works."""

from __future__ import annotations

import hashlib

from uringblob import AsyncFileBlobStore, BlobGuid


def guid(number):
    """The ``number``-th guid."""
    return BlobGuid(number.to_bytes(16, "big"))


def frame(number, size, version=0):
    """The frame of guid ``number``: no two numbers or versions share a block."""
    block = hashlib.shake_128(f"{number}/{version}".encode()).digest(4096)
    return b"".join(index.to_bytes(8, "big") + block[8:] for index in range(size // 4096))


async def fill(store, numbers, version=0):
    """Commit the frames of ``numbers``, a few at a time."""
    numbers = list(numbers)
    for start in range(0, len(numbers), 20):
        part = numbers[start : start + 20]
        await store.commit([(guid(n), frame(n, store.page_size, version)) for n in part])


async def missing(store, numbers, version=0):
    """Return those of ``numbers`` whose frame is not the one that ``fill`` wrote, with the error."""
    wrong = {}
    buffer = store.alloc_blob_buf_uninit()
    for number in numbers:
        try:
            await store.read_blob(guid(number), buffer)
        except Exception as error:
            wrong[number] = error.with_traceback(None)  # it would hold the buffer
        else:
            if bytes(buffer.view) != frame(number, store.page_size, version):
                wrong[number] = "other bytes"
    buffer.release()
    return wrong


async def exercise(store):
    """Do a little of everything, and check it."""
    pool_buffers = [store.alloc_blob_buf_uninit() for _ in range(3)]
    for number, buffer in enumerate(pool_buffers):
        buffer.view[:] = frame(number, store.page_size)
    await store.write_blobs_with_data_sync([(guid(n), b) for n, b in enumerate(pool_buffers)])
    for buffer in pool_buffers:
        buffer.release()
    await store.write_blob(guid(3), frame(3, store.page_size))
    await store.flush()
    await store.commit([(guid(n), frame(n, store.page_size)) for n in (4, 5)], deletes=[guid(0)])
    assert not await missing(store, range(1, 6))
    assert (await store.verify()).ok
    assert not await store.has_blob(guid(0))


async def exercise_and_reopen(path, **options):
    """``exercise`` a store at ``path``, look at it again after reopening; return the first stats."""
    async with AsyncFileBlobStore.open(path, **options) as store:
        await exercise(store)
        stats = store.stats()
    async with AsyncFileBlobStore.open(path, **options) as store:
        assert not await missing(store, range(1, 6))
        assert sorted(await store.list_blobs()) == [guid(n) for n in range(1, 6)]
    return stats
