"""Frames of any multiple of 4096 bytes: each way into and out of a store, from 12 KiB to 64 MiB."""

from __future__ import annotations

import numpy as np
import pytest

from uringblob import AsyncFileBlobStore, BlobGuid, BlobNotFound, FileBlobStore, MemoryBlobStore, tuning
from uringblob.testing import check_async_blob_store

KIB, MIB = 1024, 1024 * 1024
SIZES = [12 * KIB, 36 * KIB, 100 * KIB, 516 * KIB, 3 * MIB]


def guid(number: int) -> BlobGuid:
    return BlobGuid(number.to_bytes(16, "big"))


def content(number: int, size: int) -> bytes:
    return number.to_bytes(4, "little") * (size // 4)


def unaligned(data: bytes) -> memoryview:
    """Return ``data`` in memory that the engine cannot move as it lies."""
    room = np.zeros(len(data) + 8, dtype=np.uint8)
    view = memoryview(room)[1 : len(data) + 1]
    view[:] = data
    return view


@pytest.mark.parametrize("size", SIZES)
async def test_each_way_in_and_out(store_path, engine, size):
    async with AsyncFileBlobStore.open(store_path, page_size=size, engine=engine, buffers=6) as store:
        assert store.page_size == size
        leases = [store.alloc_blob_buf_uninit() for _ in range(8)]  # two of them on the heap
        for number, lease in enumerate(leases):
            assert lease.address % 4096 == 0
            lease.view[:] = content(number, size)
        await store.write_blobs_with_data_sync([(guid(number), lease) for number, lease in enumerate(leases)])
        await store.commit([(guid(8), unaligned(content(8, size))), (guid(9), content(9, size))])
        await store.write_blobs(
            [(guid(number), unaligned(content(number, size))) for number in range(10, 30)]
        )
        await store.flush()
        for number in range(20):
            await store.commit([(guid(number), leases[number % 8])])
        await store._core.maintenance.start_compaction()
        expected = {number: content(number % 8 if number < 20 else number, size) for number in range(30)}
        rooms = [unaligned(bytes(size)) for _ in range(30)]
        assert await store.read_blobs([(guid(number), rooms[number]) for number in range(30)]) == [None] * 30
        assert all(rooms[number] == expected[number] for number in range(30))
        part = bytearray(4096)
        await store.read_blob_range(guid(3), size - 4096, part)
        assert part == expected[3][-4096:]
        for lease in leases:
            lease.release()
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert store.page_size == size
        assert store.stats().file_bytes % size == 0
        with store.alloc_blob_buf_uninit() as room:
            for number in range(30):
                await store.read_blob(guid(number), room)
                assert room.view == expected[number]
        assert (await store.verify()).ok


@pytest.mark.parametrize("size", [12 * KIB])
async def test_the_whole_contract_holds(disk_dir, engine, size):
    paths = []

    def make():
        paths.append(disk_dir / f"store{len(paths)}")
        return AsyncFileBlobStore.open(paths[-1], page_size=size, engine=engine, buffers=4)

    report = await check_async_blob_store(
        make, reopen=lambda: AsyncFileBlobStore.open(paths[-1], engine=engine)
    )
    assert "metadata_is_durable" in map(str, report.passed)


@pytest.mark.parametrize("size", [12 * KIB, 100 * KIB])
def test_a_store_whose_slots_were_overwritten_many_times_is_not_longer_than_promised(
    store_path, size, monkeypatch
):
    """Growth and log space are cut in slots that divide nothing evenly."""
    monkeypatch.setattr(tuning, "SPARE_BYTES", 64 * KIB)  # what is measured is the rest
    with FileBlobStore.open(store_path, page_size=size, engine="pread") as store:
        empty = store.stats().file_bytes
        for turn in range(40):
            store.commit([(guid(number), content(turn, size)) for number in range(turn % 3, 32)])
        stats = store.stats()
        assert stats.file_bytes - empty <= 3 * 32 * size + 256 * KIB
        store.commit(deletes=[guid(number) for number in range(32)])
        assert store.stats().blobs == 0


def test_the_largest_frame(store_path, engine):
    """64 MiB: more than a step of a checksum, a bounce frame's limit, and what a pool holds by default."""
    size = 64 * MIB
    with FileBlobStore.open(store_path, page_size=size, engine=engine, label="large") as store:
        store.commit([(guid(1), content(1, size), b"one")])
        with store.alloc_blob_buf_uninit() as room:
            room.view[:] = content(2, size)
            store.write_blob(guid(2), room)
            store.flush()
    with FileBlobStore.open(store_path, engine=engine, read_only=True) as store:
        room = unaligned(bytes(size))
        store.read_blob(guid(1), room)
        assert room == content(1, size)
        del room
        part = bytearray(8192)
        store.read_blob_range(guid(2), size - 8192, part)
        assert part == content(2, 8192)
        assert store.stat_blob(guid(1)).meta == b"one"
        assert store.stats().label == "large"
        with pytest.raises(BlobNotFound):
            store.stat_blob(guid(3))


@pytest.mark.parametrize("size", [4095, 4096 + 512, 64 * MIB + 4096, 0, -4096])
def test_other_sizes_are_refused_before_anything_is_made(store_path, size):
    with pytest.raises(ValueError, match="multiple of 4096 from 4096 to 67108864"):
        FileBlobStore.open(store_path, page_size=size)
    with pytest.raises(ValueError, match="multiple of 4096"):
        MemoryBlobStore(size)
    with pytest.raises(FileNotFoundError):
        FileBlobStore.open(store_path, create=False)
