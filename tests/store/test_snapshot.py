"""Snapshots of a file store, on both engines: what they show, what they hold, how they end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import itertools
import os
import struct
import warnings

import pytest

from uringblob import (
    AsyncFileBlobStore,
    BlobGuid,
    BlobNotFound,
    BlobStoreIOError,
    StoreClosed,
    StorePoisoned,
    StoreReadOnly,
    tuning,
)
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.slots import SlotTable

PAGE = 4096
MANY = 3000


@pytest.fixture
async def store(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        yield store


def guid(number):
    return BlobGuid(number.to_bytes(16, "big"))


def frame(stamp):
    return struct.pack("<Q", stamp) * (PAGE // 8)


def frames(stamp, count, first=0):
    content = frame(stamp)
    return [(guid(number), content) for number in range(first, first + count)]


def stamp_of(room):
    stamp = bytes(room[:8])
    assert bytes(room) == stamp * (PAGE // 8)
    return struct.unpack("<Q", stamp)[0]


async def stamps(shown):
    """Return the stamp of every blob that ``shown`` has."""
    names = await shown.list_blobs()
    rooms = [bytearray(PAGE) for _ in names]
    assert await shown.read_blobs(list(zip(names, rooms, strict=True))) == [None] * len(names)
    return {name: stamp_of(room) for name, room in zip(names, rooms, strict=True)}


async def applying(store):
    """Return when a group has become visible and is not in the layers yet."""
    while not store._core.index.applying:
        await asyncio.sleep(0)


# ---- what it shows --------------------------------------------------------------------------------


async def test_taking_one_asks_nothing_of_the_engine(store):
    await store.commit(frames(1, 4))
    before = store.stats()
    async with await store.snapshot():
        after = store.stats()
    asked = ("reads", "writes", "syncs", "ring_enters")
    assert [getattr(after, name) for name in asked] == [getattr(before, name) for name in asked]


async def test_what_was_visible_and_not_durable_is_shown_too(store):
    await store.commit(frames(1, 2))
    await store.write_blob(guid(1), frame(2))
    await store.delete_blob(guid(0))
    async with await store.snapshot() as snap:
        assert snap.seq == store._core.log.seq
        await store.write_blob(guid(1), frame(3))
        await store.write_blob(guid(0), frame(3))
        await store.flush()
        await store.commit(frames(4, 2))
        assert await stamps(snap) == {guid(1): 2}
        assert snap.seq < store._core.log.seq


@pytest.mark.parametrize("moments", [1, 8])
async def test_reads_of_one_snapshot_are_never_a_mix_of_two_commits(store, moments):
    """Beside writers, compaction and growth."""
    names, snapshots, looks = 40, [], 0
    await store.commit(frames(1, names))
    store._core.maintenance.compaction_blocks_min = 8

    def enough():
        return looks >= 60 and store.stats().compactions

    async def write():
        for stamp in itertools.count(2):
            if enough():
                return
            new = [(guid(10_000 + stamp), frame(stamp))]  # the file grows
            doomed = [guid(10_000 + stamp - 1)] if stamp % 2 else []
            await store.commit(frames(stamp, names) + new, doomed)

    writing = asyncio.ensure_future(write())
    while not enough():
        snapshots.append(await store.snapshot())
        if len(snapshots) > moments:
            await snapshots.pop(looks % len(snapshots)).aclose()
        for snap in snapshots:
            found = await stamps(snap)
            first = {found[guid(number)] for number in range(names)}
            assert len(first) == 1, f"a mix of commits: {first}"
            stamp = first.pop()
            assert found.get(guid(10_000 + stamp), stamp) == stamp
            assert guid(10_001 + stamp) not in found
            looks += 1
    await writing
    for snap in snapshots:
        await snap.aclose()
    assert (store.stats().snapshots, store.stats().slots_held) == (0, 0)


@pytest.mark.parametrize("kind", ["commit", "flush"])
async def test_a_large_group_that_is_applied_in_turns_moves_no_snapshot(store, kind):
    await store.commit(frames(1, MANY))
    async with await store.snapshot() as before:
        if kind == "commit":
            deleted = [guid(number) for number in range(100)]
            change = asyncio.ensure_future(store.commit(frames(2, MANY, first=100), deleted))
        else:
            await store.write_blobs(frames(2, MANY, first=100))
            change = asyncio.ensure_future(store.flush())
        await applying(store)
        room = bytearray(PAGE)
        reading = asyncio.ensure_future(before.read_blob(guid(100), room))
        checksums = {await before.checksum(guid(number)) for number in range(MANY)}
        assert len(checksums) == 1
        assert not await before.has_blob(guid(MANY + 50))
        assert await store.checksum(guid(100)) not in checksums
        assert store._core.index.applying, "all of it was asked while the group was applied"
        await reading
        assert stamp_of(room) == 1
        await change
        assert await stamps(before) == dict.fromkeys((guid(number) for number in range(MANY)), 1)


async def test_changes_beside_a_large_group_do_not_move_a_snapshot_either(store):
    await store.commit(frames(1, MANY))
    async with await store.snapshot() as snap:
        commit = asyncio.ensure_future(store.commit(frames(2, MANY - 10), [guid(MANY - 1)]))
        await applying(store)
        await store.write_blobs(frames(3, 20))
        await store.delete_blob(guid(30))
        await store.write_blob(guid(MANY - 1), frame(3))
        await commit
        await store.flush()
        assert set((await stamps(snap)).values()) == {1}
        assert len(await snap.list_blobs()) == MANY


async def test_one_that_is_taken_while_a_large_group_is_applied_shows_all_of_it(store):
    await store.commit(frames(1, 10))
    commit = asyncio.ensure_future(store.commit(frames(2, MANY)))
    await applying(store)
    async with await store.snapshot() as snap:
        seq = store._core.log.seq
        await commit
        await store.commit(frames(3, MANY))
        assert snap.seq == seq
        assert set((await stamps(snap)).values()) == {2}
        assert snap.stats().blobs == MANY


async def test_one_taken_between_a_groups_flush_and_its_appearance_is_before_it(store, monkeypatch):
    """Durable already, and not visible yet: its number is that of the group before."""
    await store.commit(frames(1, 300))
    taken = []
    real = BlobIndex.mark_slot_live

    def mark_slot_live(self, change):
        if not taken:
            taken.append(asyncio.ensure_future(store.snapshot()))
        real(self, change)

    monkeypatch.setattr(BlobIndex, "mark_slot_live", mark_slot_live)
    before = store._core.log.seq
    await store.commit(frames(2, MANY))
    async with await taken[0] as snap:
        shown = set((await stamps(snap)).values())
        assert (snap.seq, shown) in ((before, {1}), (before + 1, {2}))


async def test_a_group_that_is_given_up_moves_no_snapshot(store, monkeypatch):
    """Its pending frames, replaced while it was in flight, are retired when it ends."""
    core = store._core
    await store.write_blobs(frames(1, 3))
    async with await store.snapshot() as snap:
        failing = asyncio.Event()
        encode = type(core.log).encode_small_group

        def no_room(*_):
            failing.set()
            raise BlobStoreIOError(errno.ENOSPC, "no room")

        monkeypatch.setattr(type(core.log), "encode_small_group", no_room)
        results = await asyncio.gather(
            store.flush(), store.write_blobs(frames(2, 3)), store.commit(frames(9, 3)), return_exceptions=True
        )
        assert failing.is_set()
        assert {type(result) for result in results} <= {type(None), BlobStoreIOError}
        monkeypatch.setattr(type(core.log), "encode_small_group", encode)
        for stamp in range(3, 8):
            await store.commit(frames(stamp, 3))
        assert await stamps(snap) == dict.fromkeys(map(guid, range(3)), 1)


async def test_reads_of_a_poisoned_store_go_on(store, monkeypatch):
    await store.commit(frames(1, 3))
    async with await store.snapshot() as snap:
        await store.write_blobs(frames(2, 3))
        store._core.file_io.poison(OSError("for the test"))
        assert await stamps(snap) == dict.fromkeys(map(guid, range(3)), 1)
    with pytest.raises(StorePoisoned):
        await store.aclose()


async def test_a_read_only_store_has_them_too(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        await store.commit(frames(1, 3))
        seq = store._core.log.seq
    async with (
        AsyncFileBlobStore.open(store_path, read_only=True, engine=engine) as store,
        await store.snapshot() as snap,
    ):
        assert snap.seq == seq
        assert await stamps(snap) == dict.fromkeys(map(guid, range(3)), 1)


async def test_every_read_of_it(store):
    await store.commit(frames(1, 3))
    async with await store.snapshot() as snap:
        checksum = await store.checksum(guid(1))
        await store.commit(frames(2, 2, first=1))
        assert await snap.checksum(guid(1)) == checksum
        part, odd = bytearray(PAGE), memoryview(bytearray(PAGE + 1))[1:]
        await snap.read_blob_range(guid(1), 0, part)
        await snap.read_blob(guid(2), odd)
        assert (stamp_of(part), stamp_of(odd)) == (1, 1)
        with snap.alloc_blob_buf_zeroed() as leased, snap.alloc_blob_buf_uninit() as other:
            await snap.read_blob(guid(1), leased)
            assert stamp_of(leased.view) == 1
            assert other.registered == leased.registered
        assert [name async for name in snap.iter_blobs(after=guid(0))] == [guid(1), guid(2)]
        assert await snap.has_blobs([guid(1), guid(7)]) == [True, False]
        assert (await snap.verify()).blobs_checked == 3
        with pytest.raises(BlobNotFound, match="in this snapshot of"):
            await snap.read_blob(guid(7), bytearray(PAGE))
        with pytest.raises(StoreReadOnly, match="change its store"):
            await snap.commit()
        with pytest.raises(ValueError, match="exactly 4096"):
            await snap.read_blob(guid(1), bytearray(1))


async def test_a_frame_that_rots_while_it_is_held_is_named(store, store_path):
    await store.commit(frames(1, 1))
    async with await store.snapshot() as snap:
        slot = store._core.index.find(guid(0)) >> 64
        await store.commit(frames(2, 1))
        with open(store_path, "r+b") as file:
            os.pwrite(file.fileno(), b"rotten", slot * PAGE)
            os.fsync(file.fileno())
        bad = (await snap.verify()).bad
        assert [(name, error.offset) for name, error in bad] == [(guid(0), slot * PAGE)]
        assert (await store.verify()).ok


# ---- what it holds --------------------------------------------------------------------------------


async def test_it_holds_what_was_replaced_and_no_more(store):
    await store.commit(frames(1, 10))
    async with await store.snapshot(), await store.snapshot():
        for stamp in range(2, 8):
            await store.commit(frames(stamp, 5))
        stats = store.stats()
        assert (stats.snapshots, stats.slots_held, stats.held_bytes) == (2, 5, 5 * PAGE)
    await store.commit(frames(9, 1))
    stats = store.stats()
    assert (stats.snapshots, stats.slots_held, stats.held_bytes) == (0, 0, 0)
    assert stats.slots_pending <= 1


async def test_writers_pay_no_flush_more_while_it_is_open(store_path, engine):
    """What is held is no excess that would be won back by empty groups."""
    count, groups = 600, {}
    for snapshots in (0, 1):
        path = f"{store_path}-{snapshots}"
        async with (
            AsyncFileBlobStore.open(path, page_size=PAGE, engine=engine) as store,
            contextlib.AsyncExitStack() as stack,
        ):
            await store.commit(frames(1, count))
            if snapshots:
                await stack.enter_async_context(await store.snapshot())
            for number in range(0, count, 20):
                await store.commit(frames(2, 20, first=number))
            for first in itertools.chain(range(0, count, 50), range(0, count, 50)):
                await store.commit(frames(3, 50, first=first))
            groups[snapshots] = store.stats().log_groups
            assert store.stats().slots_held == snapshots * count
    assert groups[1] <= groups[0]


async def test_the_room_is_used_again_when_it_is_closed(store):
    count = 600
    await store.commit(frames(1, count))
    async with await store.snapshot():
        await store.commit(frames(2, count))
    size = store.stats().file_bytes
    for stamp in range(3, 9):
        for first in range(0, count, 50):
            await store.commit(frames(stamp, 50, first=first))
    assert store.stats().file_bytes == size


async def test_a_full_disk_names_what_snapshots_hold(store, monkeypatch):
    await store.commit(frames(1, 10))

    async def no_room(*_):
        raise BlobStoreIOError(errno.ENOSPC, "growing the store: ENOSPC")

    async with await store.snapshot():
        await store.commit(frames(2, 10))
        monkeypatch.setattr("uringblob.engines.transfers.grow", no_room)
        with pytest.raises(
            BlobStoreIOError, match=rf"snapshots hold {10 * PAGE} bytes .*close them"
        ) as caught:
            await store.commit(frames(3, 1000))
        assert (caught.value.errno, caught.value.applied) == (errno.ENOSPC, False)
        await store.commit(deletes=[guid(0)])
    with pytest.raises(BlobStoreIOError) as caught:
        await store.commit(frames(3, 1000))
    assert "snapshots" not in str(caught.value)


# ---- how it ends ----------------------------------------------------------------------------------


async def test_closing_waits_for_its_reads(store, engine):
    await store.commit(frames(1, 200))
    snap = await store.snapshot()
    rooms = [(guid(number), bytearray(PAGE)) for number in range(200)]
    reading = asyncio.ensure_future(snap.read_blobs(rooms))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(snap.aclose())
    await asyncio.sleep(0)
    with pytest.raises(StoreClosed, match="snapshot"):
        await snap.list_blobs()
    await store.commit(frames(2, 200))
    await closing
    assert reading.done()
    assert await reading == [None] * 200
    assert {stamp_of(room) for _, room in rooms} == {1}


async def test_a_cancelled_close_closes(store):
    await store.commit(frames(1, MANY))
    snap = await store.snapshot()
    await store.commit(frames(2, MANY))
    assert store.stats().slots_held == MANY
    closing = asyncio.ensure_future(snap.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert (store.stats().snapshots, store.stats().slots_held) == (0, 0)


async def test_a_cancelled_snapshot_leaves_nothing(store):
    await store.commit(frames(1, MANY))
    commit = asyncio.ensure_future(store.commit(frames(2, MANY)))
    await applying(store)
    taking = asyncio.ensure_future(store.snapshot())
    await asyncio.sleep(0)
    assert not taking.done()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await commit
    assert not store._core.index.moments.open
    assert not store._core.groups.names_still.locked()


async def test_slots_are_let_go_of_in_turns(store, monkeypatch):
    await store.commit(frames(1, MANY))
    snap = await store.snapshot()
    await store.commit(frames(2, MANY))
    released, most, beats = 0, 0, 0
    real = SlotTable.release

    def release(self, slot):
        nonlocal released
        released += 1
        real(self, slot)

    monkeypatch.setattr(SlotTable, "release", release)
    closing = asyncio.ensure_future(snap.aclose())
    while not closing.done():
        before = released
        await asyncio.sleep(0)
        most, beats = max(most, released - before), beats + 1
    assert released == MANY
    # Two refills of the budget, as a beat may see them.
    assert most <= 2 * (tuning.BYTES_PER_ITERATION // tuning.CHANGE_COST_BYTES + 64)
    assert beats > 3


async def test_a_store_that_is_closed_closes_its_snapshots(store_path, engine):
    store = await AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine)
    await store.commit(frames(1, 200))
    snap, room = await store.snapshot(), bytearray(PAGE)
    reading = asyncio.ensure_future(
        snap.read_blobs([(guid(number), bytearray(PAGE)) for number in range(200)])
    )
    await asyncio.sleep(0)
    await store.aclose()
    assert await reading == [None] * 200, "what had begun was finished"
    assert snap.closed
    for call in (
        snap.list_blobs,
        lambda: snap.read_blob(guid(0), room),
        lambda: snap.checksum(guid(0)),
        snap.flush,
    ):
        with pytest.raises(StoreClosed, match="open it again"):
            await call()
    await snap.aclose()
    assert (snap.stats().blobs, "closed" in repr(snap)) == (200, True)


async def test_one_that_is_dropped_is_closed_by_its_collection(store):
    await store.commit(frames(1, 300))
    snap = await store.snapshot()
    await store.commit(frames(2, 300))
    with pytest.warns(ResourceWarning, match="unclosed snapshot"):
        del snap
        gc.collect()
    while store.stats().slots_held:
        await asyncio.sleep(0)
    assert not store._core.index.moments.open


async def test_one_that_is_dropped_after_its_end_says_nothing(store, store_path, engine):
    async with await store.snapshot():
        pass
    other = await AsyncFileBlobStore.open(f"{store_path}-2", page_size=PAGE, engine=engine)
    snap = await other.snapshot()
    await other.aclose()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del snap
        gc.collect()


async def test_in_a_forked_child_it_is_of_no_use(store):
    await store.commit(frames(1, 1))
    async with await store.snapshot() as snap:
        pid = os.fork()
        if pid == 0:
            try:
                snap.needs_flush()
            except RuntimeError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert await stamps(snap) == {guid(0): 1}
