"""``vacuum()`` of a file store, on both engines: what moves, what goes back, and what stays."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from unittest import mock

import pytest

from uringblob import (
    AsyncFileBlobStore,
    BlobCorrupt,
    BlobGuid,
    BlobStoreIOError,
    FileBlobStore,
    StoreClosed,
    StorePoisoned,
    StoreReadOnly,
    VacuumStats,
    tuning,
)
from uringblob.completion import Completion
from uringblob.store.file import judge_superblocks
from uringblob.store.format import HEADER_SIZE, entry_slot
from uringblob.store.index.slot_states import SlotState
from uringblob.store.log.group_commit import GroupQueue

PAGE = 4096
MANY = 600
NOTHING = VacuumStats(0, 0, True)


@pytest.fixture
async def store(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        yield store


def guid(number):
    return BlobGuid(number.to_bytes(16, "big"))


def frame(stamp):
    return (stamp + 1).to_bytes(8, "little") * (PAGE // 8)


def meta(number):
    return b"m%d" % number if number % 3 else b""


async def fill(store, count=MANY):
    for first in range(0, count, 50):
        numbers = range(first, min(first + 50, count))
        await store.commit([(guid(n), frame(n), meta(n)) for n in numbers])


async def thin_out(store, kept=60, seed=1):
    """Delete all but some blobs; return the numbers of those that are left."""
    left = set(random.Random(seed).sample(range(MANY), kept))
    await store.commit(deletes=[guid(n) for n in range(MANY) if n not in left])
    return left


async def check(store, left):
    room = bytearray(PAGE)
    assert {bytes(name) for name in await store.list_blobs()} == {guid(n) for n in left}
    for number in left:
        await store.read_blob(guid(number), room)
        assert room == frame(number)
        assert (await store.stat_blob(guid(number))).meta == meta(number)
    assert (await store.verify()).ok


def slot_of(store, number):
    return entry_slot(store._core.index.find(guid(number)))


def slots_needed(store):
    """The length of a file without a free slot."""
    stats = store.stats()
    return (store._core.index.slots.first + stats.slots_live + stats.slots_log) * PAGE


async def test_the_file_becomes_as_short_as_its_contents(store, store_path, engine):
    await fill(store)
    before = os.path.getsize(store_path)
    left = await thin_out(store)
    stats = await store.vacuum()
    after = os.path.getsize(store_path)
    assert after == store.stats().file_bytes == slots_needed(store)
    assert stats == VacuumStats(stats.moved, before - after, True)
    assert 30 < stats.moved <= 60
    await check(store, left)
    await store.aclose()
    async with AsyncFileBlobStore.open(store_path, engine=engine) as again:
        await check(again, left)
        assert await again.vacuum() == NOTHING


async def test_where_nothing_is_to_be_done_nothing_is_written(store):
    await fill(store, 60)
    await store.vacuum()
    before = store.stats()
    assert await store.vacuum() == NOTHING
    after = store.stats()
    assert (after.writes, after.syncs, after.log_groups) == (before.writes, before.syncs, before.log_groups)


async def test_what_is_pending_is_made_durable_first(store, store_path):
    await fill(store)
    for number in range(10, MANY):
        await store.delete_blob(guid(number))
    await store.vacuum()
    assert not store.needs_flush()
    assert os.path.getsize(store_path) == slots_needed(store)


async def test_frames_are_moved_in_small_groups(store):
    await fill(store)
    await thin_out(store)
    groups = []
    real = GroupQueue.join_moves

    def join_moves(self, moves, frame_bytes):
        groups.append(len(moves))
        return real(self, moves, frame_bytes)

    with (
        mock.patch.object(tuning, "VACUUM_FRAMES_AT_ONCE", 7),
        mock.patch.object(GroupQueue, "join_moves", join_moves),
    ):
        stats = await store.vacuum()
    assert sum(groups) == stats.moved
    assert max(groups) == 7


def changed_meanwhile(store, change):
    """Await ``change`` between the copying of frames and their group, once."""
    real = GroupQueue.join_moves
    changes = [change]

    def join_moves(self, moves, frame_bytes):
        async def first():
            while changes:
                await changes.pop()([name for name, _, _ in moves])
            await real(self, moves, frame_bytes)

        return store._core.file_io.start(first())

    return mock.patch.object(GroupQueue, "join_moves", join_moves)


@pytest.mark.parametrize("how", ["commit", "same group", "write", "delete", "same frame, other metadata"])
async def test_a_change_between_copying_and_recording_wins(store, how):
    await fill(store)
    await thin_out(store)
    news, touched = frame(10_000), []

    async def change(names):
        touched.append(names[0])
        if how == "commit":
            await store.commit([(names[0], news)])
        elif how == "same group":
            # Behind a group in flight both wait for the next one, the commit before the move.
            for name in (guid(MANY), names[0]):
                touched.append(asyncio.ensure_future(store.commit([(name, news)])))
            await store._core.file_io.next_tick()
        elif how == "write":
            await store.write_blob(names[0], news)
        elif how == "delete":
            await store.delete_blob(names[0])
        else:
            room = bytearray(PAGE)
            await store.read_blob(names[0], room)
            await store.commit([(names[0], room, b"other")])

    with changed_meanwhile(store, change):
        stats = await store.vacuum()
    name, *commits = touched
    await asyncio.gather(*commits)
    for _ in range(2):
        if how == "delete":
            assert not await store.has_blob(name)
        elif how == "same frame, other metadata":
            assert (await store.stat_blob(name)).meta == b"other"
        else:
            room = bytearray(PAGE)
            await store.read_blob(name, room)
            assert room == news
        await store.flush()
    assert stats.moved
    assert store._core.index.slots.count(SlotState.WRITING) == 0, "the copy's slot is lost"
    assert (await store.verify()).ok


async def test_a_corrupt_frame_stays_where_it_is_and_is_named(store, store_path, caplog):
    await fill(store)
    left = await thin_out(store)
    last = max(left, key=lambda number: slot_of(store, number))
    slot = slot_of(store, last)
    with open(store_path, "r+b") as file:
        os.pwrite(file.fileno(), b"rot", slot * PAGE)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    stats = await store.vacuum()
    assert stats.moved > 30, "it does not go on around a bad frame"
    [(name, error)] = stats.bad
    assert name == guid(last)
    assert isinstance(error, BlobCorrupt)
    assert slot_of(store, last) == slot
    assert str(name) in caplog.text
    assert caplog.records[-1].event == "vacuum_skipped"
    await store.delete_blob(guid(last))
    assert (await store.vacuum()).bad == ()
    await check(store, left - {last})


async def test_what_a_snapshot_shows_stays_until_it_is_closed(store, store_path):
    await fill(store)
    async with await store.snapshot() as snapshot:
        left = await thin_out(store)
        await store.vacuum()
        assert os.path.getsize(store_path) > MANY * PAGE
        room = bytearray(PAGE)
        for number in range(MANY):
            await snapshot.read_blob(guid(number), room)
            assert room == frame(number)
    assert (await store.vacuum()).bytes_freed > 400 * PAGE
    assert os.path.getsize(store_path) == slots_needed(store)
    await check(store, left)


async def test_a_snapshot_taken_while_a_frame_moves_keeps_its_old_slot(store):
    await fill(store)
    await thin_out(store)
    taken, shown = [], {}

    async def change(names):
        taken.append(await store.snapshot())
        shown.update({name: await store.checksum(name) for name in names})

    with changed_meanwhile(store, change):
        await store.vacuum()
    assert store.stats().slots_held
    room = bytearray(PAGE)
    for name in shown:
        await taken[0].read_blob(name, room)  # whose checksum is compared
    await taken[0].aclose()
    assert not store.stats().slots_held


async def test_a_time_limit_ends_it_between_two_steps_and_another_call_goes_on(store, store_path):
    await fill(store)
    left = await thin_out(store)
    calls = []
    with mock.patch.object(tuning, "VACUUM_FRAMES_AT_ONCE", 5):
        while not calls or not calls[-1].done:
            calls.append(await store.vacuum(max_time=0))
            assert calls[-1].moved <= 5
    assert 8 < len(calls) < 40
    assert os.path.getsize(store_path) == slots_needed(store)
    await check(store, left)


@pytest.mark.parametrize("max_time", [-1, float("nan")])
async def test_a_time_limit_is_a_number_of_seconds(store, max_time):
    with pytest.raises(ValueError, match="max_time must be 0 seconds or more"):
        await store.vacuum(max_time)


async def test_closing_waits_for_one_step_only(store):
    await fill(store)
    await thin_out(store)
    with mock.patch.object(tuning, "VACUUM_FRAMES_AT_ONCE", 1):
        vacuum = asyncio.ensure_future(store.vacuum())
        while not store._core.vacuuming.locked:
            await asyncio.sleep(0)
        await store.aclose()
    with pytest.raises(StoreClosed):
        await vacuum


async def test_log_space_that_the_blobs_do_not_need_goes_back(store, store_path, engine):
    await fill(store, 6000)
    most = store.stats().slots_log
    await store.commit(deletes=[guid(n) for n in range(20, 6000)])
    assert store.stats().slots_log == most
    await store.vacuum()
    least = store.stats().slots_log
    assert least < most // 2
    assert os.path.getsize(store_path) == slots_needed(store)
    with open(store_path, "rb") as file:
        supers = judge_superblocks(file.read(HEADER_SIZE), str(store_path))
    assert [sum(extent.slots for extent in each.log_space) for each in supers] == [least, least]
    await store.aclose()
    async with AsyncFileBlobStore.open(store_path, engine=engine) as again:
        assert again.stats().slots_log == least
        await check(again, range(20))
        await fill(again, 3000)
        assert again.stats().slots_log > least, "and it grows again"
        await check(again, range(3000))


async def test_a_read_only_store_and_a_snapshot_refuse(store, store_path, engine):
    async with await store.snapshot() as snapshot:
        with pytest.raises(StoreReadOnly):
            await snapshot.vacuum()
    await store.aclose()
    async with AsyncFileBlobStore.open(store_path, engine=engine, read_only=True) as reader:
        with pytest.raises(StoreReadOnly):
            await reader.vacuum()


async def test_a_poisoned_store_refuses_and_its_file_stays_as_long(store, store_path):
    await fill(store)
    await thin_out(store)
    store._core.file_io.poison(BlobStoreIOError(errno.EIO, "a test"))
    before = os.path.getsize(store_path)
    with pytest.raises(StorePoisoned):
        await store.vacuum()
    assert os.path.getsize(store_path) == before
    await store.aclose(flush=False)


async def test_a_cut_that_is_refused_leaves_the_slots(store, store_path):
    await fill(store)
    left = await thin_out(store)
    refused = Completion(loop=asyncio.get_running_loop())
    refused.resolve(-errno.EPERM)
    with (
        mock.patch.object(store._core.file_io.engine, "cut", return_value=refused, create=True),
        pytest.raises(BlobStoreIOError, match="cutting") as raised,
    ):
        await store.vacuum()
    assert raised.value.errno == errno.EPERM
    assert store.stats().slots_free
    await fill(store)
    await thin_out(store)
    await store.vacuum()
    assert os.path.getsize(store_path) == slots_needed(store)
    await check(store, left)


# --- holes ---------------------------------------------------------------------------------------


@pytest.fixture
async def holed(store, store_path):
    """A store whose last frame is bad, so that its file cannot be cut, and has holes instead."""
    if not store.stats().direct_io:
        pytest.skip("not applicable: no direct I/O in this directory, so nothing is punched")
    await fill(store)
    last = max(range(MANY), key=lambda number: slot_of(store, number))
    await store.commit(deletes=[guid(n) for n in range(20, MANY) if n != last])
    async with await store.snapshot():  # which holds the last one, but none of the others
        await store.vacuum()
    return store, last


async def test_free_slots_between_others_become_holes(holed, store_path):
    store, _ = holed
    stats = store.stats()
    assert stats.slots_holes > 400
    assert stats.slots_free < 60, "only runs of less than 64 KiB stay"
    if stats.allocated_bytes > stats.file_bytes - 400 * PAGE:
        pytest.skip("not applicable: this file system punches no holes")
    again = await store.vacuum()
    assert again.bytes_freed > 0, "with the snapshot closed the end is cut"


async def test_holes_are_allocated_before_they_are_used_and_before_the_file_grows(holed, store_path):
    store, last = holed
    length, stats = os.path.getsize(store_path), store.stats()
    stop = 20 + stats.slots_free + stats.slots_holes - 5
    for number in range(20, stop):
        await store.commit([(guid(number), frame(number), meta(number))])
    assert os.path.getsize(store_path) == length
    assert store.stats().slots_holes <= 5
    await check(store, {*range(stop), last})


async def test_an_opener_sets_the_holes_aside(holed, store_path, engine):
    store, last = holed
    holes = store.stats().slots_holes
    if store.stats().allocated_bytes > store.stats().file_bytes - 400 * PAGE:
        pytest.skip("not applicable: this file system punches no holes")
    await store.aclose()
    async with AsyncFileBlobStore.open(store_path, engine=engine) as again:
        assert again.stats().slots_holes >= holes - 5
        await check(again, {*range(20), last})
        await fill(again, 300)
        await check(again, {*range(300), last})


# --- other faces ---------------------------------------------------------------------------------


def test_the_sync_store_does_the_same(store_path, engine):
    with FileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        store.commit([(guid(n), frame(n)) for n in range(MANY)])
        store.commit(deletes=[guid(n) for n in range(0, MANY, 2)])
        assert store.vacuum(max_time=60.0).moved == pytest.approx(MANY / 4, abs=MANY / 8)
        assert store.vacuum() == NOTHING
        assert store.verify().ok
