"""A group for which the log has no room waits for a compaction; who waits with it gets what it gets.

On the simulated disk: a wait that never ends is seen as one at once.
"""

from __future__ import annotations

import asyncio
import errno

import pytest

from sim.judging import recover
from sim.lives import PAGE, forget, frame, guid, lend, lent, read_all, small_log, used_image
from uringblob import AsyncFileBlobStore, BlobStoreIOError, StorePoisoned
from uringblob.store.index.slot_states import SlotState
from uringblob.store.log.compaction import Compaction
from uringblob.store.log.group_writer import COMPACTIONS_MAX
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import open_sim_store

pytestmark = pytest.mark.one_interpreter

A, B, C = (guid(n) for n in range(3))


class Struck(BaseException):
    """What a signal handler raises."""


async def begin(store, blobs):
    """Write so many blobs, with room for twice as many, also in the log; from now on it keeps itself no room."""
    await store.commit(lent({guid(n): frame(n) for n in range(2 * blobs)}))
    await store.commit((), [guid(n) for n in range(blobs, 2 * blobs)])
    await store._core.maintenance.start_compaction()
    store._core.maintenance.compactions = 0
    store._core.maintenance.after_group = lambda: None


def simulated(story, *, blobs=12):
    """Run ``story(store)``, and judge what it leaves: whole, and what its last reader saw.

    A block holds two records, a segment three blocks, and no compaction begins but for want of room.
    """
    with small_log(records=2):
        loop, disk = SimLoop(), SimDisk(image=used_image(8 * blobs + 32))

        async def run():
            store = await open_sim_store(disk, loop)
            try:
                await begin(store, blobs)
                await story(store)
                poisoned = store._core.file_io.poison_cause is not None
                if not poisoned:
                    await store.flush()
                    assert (await store.verify()).ok
                    assert store._core.index.slots.count(SlotState.WRITING) == 0
                seen = await read_all(store)
                if not poisoned:
                    await store.aclose()
                return None if poisoned else seen
            finally:
                forget(store)

        seen = loop.run(run())
        found = recover(disk.live, None, deep=True)
        assert seen is None or found == seen
        return loop.complaints


async def until(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never comes to that")


async def fill_log(store, blocks=1):
    """Write groups until the next one of ``blocks`` blocks would have to wait."""
    core = store._core
    number = 0
    while core.maintenance.log_fits(blocks):
        number += 1
        await store.commit(lent({guid(11): frame(1000 + number)}))
    assert number
    return number


def sizes(count):
    """Return so many deletions that they take ``count`` blocks."""
    return [guid(n) for n in range(2 * count)]


# --- waiting ---------------------------------------------------------------------------------


def test_commits_without_end_wait_for_compactions_and_none_is_refused():
    async def story(store):
        for number in range(200):
            await store.commit(lent({guid(number % 12): frame(2000 + number)}))
        assert store._core.maintenance.compactions > 2

    assert simulated(story) == []


def test_a_group_larger_than_the_logs_room_waits_for_one_compaction_and_is_written_into_the_new_log():
    async def story(store):
        largest = len(sizes(6)) // 2
        await fill_log(store, largest)
        old, groups = store._core.log, store.stats().log_groups
        await store.commit(deletes=sizes(6))
        assert store._core.maintenance.compactions == 1
        assert store._core.log is not old
        assert store.stats().log_groups == groups + 1
        assert await store.list_blobs() == []

    assert simulated(story) == []


def test_a_group_that_fits_does_not_wait():
    async def story(store):
        await store.commit(deletes=sizes(6))
        assert store._core.maintenance.compactions == 0

    assert simulated(story) == []


@pytest.mark.parametrize("ticks", range(12))
def test_a_compaction_that_began_before_is_the_one_waited_for(ticks):
    """At whatever point it is: before its turn, waiting for it, or shortly after."""

    async def story(store):
        await fill_log(store)
        compaction = store._core.maintenance.start_compaction()
        for _ in range(ticks):
            await asyncio.sleep(0)
        await store.commit(lent({A: frame(1)}))
        await compaction
        assert store._core.maintenance.compactions == 1

    assert simulated(story) == []


def test_who_comes_while_a_group_waits_comes_after_it_in_the_order_of_coming():
    async def story(store):
        await fill_log(store)
        ended = []

        async def delete(number):
            await store.commit(deletes=[guid(number)])
            ended.append(number)

        first = asyncio.ensure_future(delete(0))
        await until(lambda: store._core.maintenance.compacting)
        others = []
        for number in range(1, 6):
            others.append(asyncio.ensure_future(delete(number)))
            await asyncio.sleep(0)
        assert not first.done()
        assert len(store._core.queue._waiting) >= 3, "they came too late to wait behind the first"
        await asyncio.gather(first, *others)
        assert ended == [0, 1, 2, 3, 4, 5]
        assert store._core.maintenance.compactions == 1

    assert simulated(story) == []


def test_what_is_pending_and_overwritten_while_its_flush_waits_is_flushed_as_it_is_then():
    """The slot that was pending when the group was formed first may be another blob's by now."""

    async def story(store):
        core = store._core
        await store.write_blobs(lent({A: frame(1), B: frame(2), C: frame(3)}))
        await fill_log(store)
        old = core.index.find(A) >> 64
        flush = asyncio.ensure_future(store.flush())
        await until(lambda: core.maintenance.compacting)
        await store.write_blob(A, lend(frame(11)))
        await store.delete_blob(B)
        assert core.index.slots.state(old) is SlotState.FREE
        await store.write_blob(guid(30), lend(frame(30)))
        assert core.index.find(guid(30)) >> 64 == old, "it has the slot that A had"
        assert not flush.done()
        await flush
        assert core.index.find_durable(A) == core.index.find(A)
        assert core.index.find_durable(B) is None
        found = recover(core.file_io.engine.disk.live, None)
        assert found[A] == frame(11)
        assert B not in found

    assert simulated(story) == []


# --- what goes wrong -------------------------------------------------------------------------


def no_room(*_):
    raise BlobStoreIOError(errno.ENOSPC, "a test's snapshot")


def test_a_compaction_that_fails_is_the_error_of_the_waiting_group_only(monkeypatch):
    async def story(store):
        await fill_log(store)
        before, old = await read_all(store), store._core.log
        with monkeypatch.context() as patch:
            patch.setattr(Compaction, "_allocate_segments", no_room)
            outcomes = await asyncio.gather(
                store.commit(lent({A: frame(1)})), store.commit(deletes=[B]), return_exceptions=True
            )
        assert [getattr(outcome, "errno", outcome) for outcome in outcomes] == [errno.ENOSPC] * 2
        assert [outcome.applied for outcome in outcomes] == [False] * 2
        assert await read_all(store) == before
        assert store._core.log is old
        assert store._core.file_io.poison_cause is None
        await store.commit(lent({A: frame(2)}), [B])
        assert store._core.maintenance.compactions == 1

    assert simulated(story) == []


def test_a_compaction_whose_switch_fails_is_the_groups_error_and_the_old_log_stays(monkeypatch):
    async def story(store):
        await fill_log(store)
        core = store._core
        before, old, free = await read_all(store), core.log, core.log_space.free_granules
        with monkeypatch.context() as patch:
            patch.setattr(Compaction, "_carry", no_room)
            with pytest.raises(BlobStoreIOError, match="a test's snapshot"):
                await store.commit(lent({A: frame(1)}))
        assert core.log is old
        assert core.log_space.free_granules == free, "the new log's segments are free again"
        assert await read_all(store) == before
        await store.commit(lent({A: frame(2)}))

    assert simulated(story) == []


def test_a_compaction_that_poisons_fails_the_group_and_every_one_after_it(monkeypatch):
    async def story(store):
        await fill_log(store)
        core = store._core
        failure = BlobStoreIOError(errno.EIO, "a test's superblock")

        async def strike(*_, **__):
            core.file_io.poison(failure)
            raise failure

        monkeypatch.setattr(core.superblocks, "change", strike)
        outcomes = await asyncio.gather(
            *(store.commit(lent({guid(n): frame(1)})) for n in range(3)), return_exceptions=True
        )
        assert all(isinstance(outcome, (BlobStoreIOError, StorePoisoned)) for outcome in outcomes), outcomes
        with pytest.raises(StorePoisoned):
            await store.commit(deletes=[B])

    assert simulated(story) == []


def test_a_group_that_no_compaction_makes_room_for_is_refused_after_a_bounded_number_of_them():
    async def story(store):
        core = store._core
        before, real = await read_all(store), core.maintenance.log_fits
        core.maintenance.log_fits = lambda blocks: blocks < 3 and real(blocks)
        outcomes = await asyncio.gather(
            store.commit(deletes=sizes(4)), store.commit(deletes=sizes(3)), return_exceptions=True
        )
        assert core.maintenance.compactions in range(COMPACTIONS_MAX, 2 * COMPACTIONS_MAX + 1)
        for outcome in outcomes:
            assert isinstance(outcome, BlobStoreIOError)
            assert (outcome.errno, outcome.applied) == (errno.ENOSPC, False)
            assert "simulated: the log has no room for this change" in str(outcome)
            assert "change fewer blobs at once" in str(outcome)
        assert await read_all(store) == before
        await store.commit(deletes=[A])

    assert simulated(story) == []


@pytest.mark.parametrize("where", ["_carry", "_write_switch"])
async def test_a_handler_that_raises_in_the_switch_ends_every_wait(store_path, monkeypatch, where):
    """The compaction, the group that waits for it, and the commits behind that all end."""

    async def strike(*_):
        raise Struck

    store = await AsyncFileBlobStore.open(store_path, page_size=PAGE, engine="pread")
    await store.commit([(A, frame(7))])
    core = store._core
    monkeypatch.setattr(core.maintenance, "log_fits", lambda _blocks: False)
    monkeypatch.setattr(Compaction, where, strike)
    seen = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: seen.append(context["exception"]))
    calls = [asyncio.ensure_future(store.commit([(guid(n), frame(1))])) for n in range(3)]
    calls.append(asyncio.ensure_future(core.maintenance.wait()))
    # Not wait_for(): what never ends cannot be cancelled either.
    _, waiting = await asyncio.wait(calls, timeout=30)
    assert not waiting
    outcomes = [call.exception() for call in calls[:3]]
    assert all(isinstance(outcome, Exception) for outcome in outcomes), outcomes
    assert [type(error) for error in seen] == [Struck], "the loop sees it, as from any callback"
    await asyncio.wait_for(core.maintenance.wait(), 60)
    with pytest.raises(StorePoisoned):
        await asyncio.wait_for(store.aclose(), 60)
    async with AsyncFileBlobStore.open(store_path) as again:
        assert await read_all(again) == {A: frame(7)}


# --- pins ------------------------------------------------------------------------------------


def test_while_the_log_is_read_a_group_without_room_waits_and_no_compaction_begins():
    async def story(store):
        await fill_log(store)
        maintenance = store._core.maintenance
        maintenance.pin()
        maintenance.pin()
        commit = asyncio.ensure_future(store.commit(lent({A: frame(1)})))
        for holders in (2, 1):
            for _ in range(50):
                await asyncio.sleep(0)
            assert not commit.done(), f"{holders} readers of the log"
            assert not maintenance.compacting
            maintenance.unpin()
        await commit
        assert maintenance.compactions == 1

    assert simulated(story) == []


def test_who_waits_for_readers_to_leave_waits_for_those_who_came_meanwhile():
    async def story(store):
        maintenance = store._core.maintenance
        maintenance.pin()
        waiters = [asyncio.ensure_future(maintenance.wait_unpinned()) for _ in range(3)]
        await asyncio.sleep(0)
        maintenance.unpin()
        maintenance.pin()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not any(waiter.done() for waiter in waiters)
        maintenance.unpin()
        await asyncio.gather(*waiters)
        await maintenance.wait_unpinned()

    assert simulated(story) == []


@pytest.mark.parametrize("ticks", range(16))
def test_a_reader_of_the_log_a_compaction_and_a_group_without_room_wait_for_each_other_in_no_circle(ticks):
    """``verify`` waits for the compaction under way, which waits for its turn, which a group has."""

    async def story(store):
        await fill_log(store)
        maintenance = store._core.maintenance
        compaction = maintenance.start_compaction()
        for _ in range(ticks):
            await asyncio.sleep(0)
        maintenance.pin()  # as verify does, and then
        reader = asyncio.ensure_future(maintenance.wait())
        commit = asyncio.ensure_future(store.commit(lent({A: frame(1)})))
        await reader
        maintenance.unpin()
        await commit
        await compaction

    assert simulated(story) == []


@pytest.mark.parametrize("ticks", range(0, 24, 2))
def test_closing_beside_a_group_that_waits_for_room_ends_both(ticks):
    async def story(store):
        await fill_log(store)
        await store.write_blob(B, lend(frame(5)))
        commit = asyncio.ensure_future(store.commit(lent({A: frame(1)})))
        for _ in range(ticks):
            await asyncio.sleep(0)
        flush = asyncio.ensure_future(store.flush())
        await asyncio.sleep(0)
        core = store._core
        live = core.file_io.engine.disk
        await store.aclose()
        await commit
        await flush
        found = recover(live.live, None)
        assert (found[A], found[B]) == (frame(1), frame(5))

    with small_log(records=2):
        loop, disk = SimLoop(), SimDisk(image=used_image(128))

        async def run():
            store = await open_sim_store(disk, loop)
            try:
                await begin(store, 12)
                await story(store)
            finally:
                forget(store)

        loop.run(run())
        assert loop.complaints == []
