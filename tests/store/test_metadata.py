"""Metadata of file stores: kept in the log with its blob, through every layer of the map, and on a full disk."""

from __future__ import annotations

import asyncio
import errno
import random
import threading

import pytest

from sim.lives import PAGE, guid, small_log
from uringblob import AsyncFileBlobStore, BlobNotFound, BlobStat, BlobStoreIOError, FileBlobStore
from uringblob.buffers.checksum import frame_checksum
from uringblob.store.format import blocks_for, meta_cells
from uringblob.store.index.slot_states import SlotState
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import new_image, open_sim_store

FRAME = bytes(PAGE)


def meta(number: int) -> bytes:
    """Return metadata of every length, by number."""
    return bytes((number + at) & 0xFF for at in range(number * 37 % 256))


def batch(numbers):
    return [(guid(number), FRAME, meta(number)) for number in numbers]


async def metas(store) -> dict[bytes, bytes]:
    return {bytes(name): stat.meta async for name, stat in store.iter_blobs(meta=True)}


def expected(numbers) -> dict[bytes, bytes]:
    return {guid(number): meta(number) for number in numbers}


@pytest.fixture
async def store(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        yield store


async def test_what_is_known_of_a_blob_comes_from_memory(store):
    frame = bytes([7]) * PAGE
    await store.commit([(guid(1), frame, b"seven")])
    before = store.stats()
    assert await store.stat_blob(guid(1)) == BlobStat(PAGE, frame_checksum(frame), b"seven")
    assert store.stats().reads == before.reads
    with pytest.raises(BlobNotFound, match="list_blobs"):
        await store.stat_blob(guid(2))


async def test_it_is_in_every_layer_of_the_map_and_in_each_file_that_it_leaves(store_path, engine):
    """Durable, in the delta beside a compaction, pending, replaced, deleted; then the same after each opening."""
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        await store.commit(batch(range(300)))  # several blocks
        compacting = store._core.maintenance.start_compaction()
        await store.commit(batch(range(300, 340)), deletes=[guid(0)])
        await store.write_blobs(batch(range(340, 360)))
        await store.write_blob(guid(1), FRAME, b"new")
        await store.write_blob(guid(2), FRAME)
        await store.delete_blob(guid(3))
        now = {**expected(range(4, 360)), guid(1): b"new", guid(2): b""}
        assert await metas(store) == now
        await compacting
        assert await metas(store) == now
        await store.flush()
        assert await metas(store) == now
    for _ in range(2):
        async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
            assert await metas(store) == now
            assert (await store.verify()).ok
            await store._core.maintenance.start_compaction()
            assert await metas(store) == now


async def test_a_group_of_small_commits_takes_one_block_only_while_its_metadata_fits(store):
    """Each is written without a coroutine; with much metadata two of them do not share a block."""
    for count, length in ((3, 255), (13, 255), (14, 255), (60, 1), (59, 32), (118, 0)):
        writes = [(guid(number), FRAME, b"m" * length) for number in range(count)]
        blocks = store._core.log.group_blocks
        await asyncio.gather(*(store.commit([write]) for write in writes))
        cells = count * (1 + meta_cells(b"m" * length))
        assert store._core.log.group_blocks - blocks >= cells / 119
        assert await metas(store) == {name: content for name, _, content in writes}
        await store.commit(deletes=[name for name, _, _ in writes])


async def test_its_cells_are_counted_for_as_long_as_a_record_may_name_its_slot(store):
    slots = store._core.index.slots
    await store.commit(batch(range(100)))
    of_all = sum(meta_cells(meta(number)) for number in range(100))
    assert (slots.meta_cells, slots.live_meta_cells) == (of_all, of_all)
    await store.write_blobs(batch(range(100)))  # both may be in one group
    assert (slots.meta_cells, slots.live_meta_cells) == (2 * of_all, of_all)
    await store.flush()
    assert (slots.meta_cells, slots.live_meta_cells) == (of_all, of_all)
    await store.commit([(guid(number), FRAME) for number in range(50)], [guid(n) for n in range(50, 100)])
    assert (slots.meta_cells, slots.live_meta_cells, slots._meta_cells) == (0, 0, {})


async def test_a_write_that_fails_leaves_none_of_it(store, monkeypatch):
    core = store._core

    async def full(*_):
        raise BlobStoreIOError(errno.ENOSPC, "no room")

    await store.commit(batch([1]))
    held = core.index.slots.meta_cells
    monkeypatch.setattr(core.growth, "grow_for_frames", full)
    with pytest.raises(BlobStoreIOError):
        await store.write_blobs(batch(range(1000, 1000 + core.index.slots.count(SlotState.FREE) + 1)))
    assert core.index.slots.meta_cells == held
    assert await metas(store) == expected([1])


@pytest.mark.parametrize("seed", range(6))
def test_on_a_full_disk_all_blobs_can_be_deleted_at_once_and_the_log_compacted(seed):
    """The reserve counts metadata: however much of it there is, the deletion that frees room has room."""
    rng = random.Random(seed)
    with small_log(segment_bytes=4 * PAGE, seed=seed):
        loop, disk = SimLoop(), SimDisk(seed, image=new_image(PAGE), capacity=700 * PAGE)

        async def run():
            store = await open_sim_store(disk, loop)
            store._core.maintenance.compaction_blocks_min = 1000
            count = 0
            with pytest.raises(BlobStoreIOError, match="ENOSPC"):
                while True:
                    some = range(count, count + rng.choice((1, 20, 50)))
                    await store.commit([(guid(n), FRAME, bytes(rng.choice((0, 20, 255)))) for n in some])
                    count = some.stop
            core = store._core
            assert core.index.slots.meta_cells > count, "there was hardly any metadata"
            await core.maintenance.start_compaction()
            names = await store.list_blobs()
            kept = await metas(store)
            await store.commit(deletes=names[: len(names) // 2])
            assert await metas(store) == {name: kept[name] for name in names[len(names) // 2 :]}
            await store.commit(deletes=names[len(names) // 2 :])
            await core.maintenance.start_compaction()
            assert await store.list_blobs() == []
            await store.aclose()

        loop.run(run())


def test_the_log_space_that_is_kept_grows_with_metadata(store_path):
    with FileBlobStore.open(store_path, page_size=PAGE, engine="pread") as store:
        store.commit([(guid(number), FRAME) for number in range(2500)])
        plain = store.stats().log_bytes
        store.commit([(guid(number), FRAME, bytes(255)) for number in range(2500)])
        assert store.stats().log_bytes > 4 * plain
        core = store._core._core
        space, slots = core.log_space, core.index.slots
        assert space.capacity >= space.wanted(slots.named, slots.meta_cells)
        assert blocks_for(slots.named, slots.meta_cells) >= 9 * 2500 / 119


def test_a_thread_sees_checksum_and_metadata_of_one_moment(store_path, engine):
    """One entry has both: a stat beside writers is never a mix."""
    frames = [bytes([number]) * PAGE for number in range(2)]
    pairs = {(frame_checksum(frame), bytes([number + 1]) * 40) for number, frame in enumerate(frames)}
    seen, over = set(), threading.Event()
    with FileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        store.write_blob(guid(1), frames[0], b"\1" * 40)

        def look():
            while not over.is_set():
                stat = store.stat_blob(guid(1))
                seen.add((stat.checksum, stat.meta))

        readers = [threading.Thread(target=look) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            for turn in range(60):
                number = turn % 2
                write = (guid(1), frames[number], bytes([number + 1]) * 40)
                (store.write_blobs if turn % 3 else store.commit)([write])
        finally:
            over.set()
            for reader in readers:
                reader.join()
    assert seen <= pairs


async def test_a_large_batch_with_metadata_is_checked_packed_and_applied_in_steps(store):
    """More than one step of each: 4,500 blobs are beyond a plain dict."""
    count = 4500
    await store.commit(batch(range(count)))
    assert await metas(store) == expected(range(count))
