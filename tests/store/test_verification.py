"""``verify`` finds damage that came after the opening, and goes on behind it."""

from __future__ import annotations

import os

import pytest

from uringblob import AsyncFileBlobStore, BlobCorrupt, BlobGuid, StoreCorrupt
from uringblob.store.format import BLOCK_SIZE

PAGE = 4096


@pytest.fixture
async def store(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine, direct=False) as store:
        for n in range(4):
            await store.commit([(bytes([n]) * 16, bytes([n]) * PAGE)])
        yield store


def damage(store, offset):
    """Change a byte of the file behind the store's back."""
    fd = os.open(store.path, os.O_RDWR)
    try:
        byte = os.pread(fd, 1, offset)
        os.pwrite(fd, bytes([byte[0] ^ 1]), offset)
    finally:
        os.close(fd)


#: Block of the log's first segment, and what is said of it.
PLACES = {
    "the header": (0, "group 0"),
    "the snapshot": (1, "damaged"),
    "the carry": (2, "damaged"),
    "a group in the middle": (4, "group 3"),
    "the last group": (6, "group 5"),
}


@pytest.mark.parametrize(("block", "words"), PLACES.values(), ids=PLACES)
async def test_a_damaged_log_is_metadata(store, block, words):
    head = store._core.queue.log.segments[0].slot * PAGE
    damage(store, head + block * BLOCK_SIZE + 40)
    report = await store.verify()
    assert not report.ok
    assert report.bad == ()
    (error,) = report.metadata_errors
    assert isinstance(error, StoreCorrupt)
    assert words in str(error)
    assert store.path in str(error)
    assert "metadata" in str(report)


@pytest.mark.parametrize("offset", [0, BLOCK_SIZE])
async def test_a_damaged_superblock_is_metadata(store, offset):
    damage(store, offset + 20)
    report = await store.verify()
    (error,) = report.metadata_errors
    assert f"offset {offset}" in str(error)


async def test_a_damaged_frame_is_its_blobs(store):
    entry = store._core.manifest.find(bytes([2]) * 16)
    damage(store, (entry >> 64) * PAGE + 1000)
    report = await store.verify()
    ((guid, error),) = report.bad
    assert guid == BlobGuid(bytes([2]) * 16)
    assert isinstance(error, BlobCorrupt)
    assert report.blobs_checked == 4
    assert report.bytes_checked == 3 * PAGE


async def test_a_blob_deleted_meanwhile_is_neither_good_nor_bad(store):
    """It was there when ``verify`` began; its bytes are not counted."""
    names = [n.to_bytes(16, "big") for n in range(1, 400)]
    await store.commit([(name, b"x" * PAGE) for name in names])

    def progress(done, total):
        if done == 1:
            for name in names:
                with pytest.raises(StopIteration):  # it waits for nothing
                    store.delete_blob(name).send(None)

    report = await store.verify(progress)
    assert report.ok
    assert report.blobs_checked == 403
    assert 4 * PAGE <= report.bytes_checked < 20 * PAGE, "what was being read at that moment counts"
