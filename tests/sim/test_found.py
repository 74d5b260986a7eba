"""Bugs that the simulated disk found in the store, each with its story: the smallest sequence that shows it."""

from __future__ import annotations

import asyncio

import pytest

from sim.rig import PAGE, frame, guid, life_with_fault, lives, options_of, read_all, small_log, torture
from uringblob.store.format import pack_entry
from uringblob.store.index.slot_states import SlotState
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import new_image, open_sim_store

pytestmark = pytest.mark.one_interpreter

A, B, C = guid(1), guid(2), guid(3)
OLD, NEW, OTHER = frame(1), frame(2), frame(3)


@pytest.fixture
def sim():
    """Run ``scenario(store, disk)`` on a fresh store; return what a power cut right after it leaves."""

    def run(scenario) -> dict[bytes, bytes]:
        loop = SimLoop()
        disk = SimDisk(image=new_image())

        async def both():
            store = await open_sim_store(disk, loop)
            await scenario(store, disk)
            lost = SimDisk(image=disk.durable.copy())
            await store.aclose()
            after = await open_sim_store(lost, loop)
            try:
                return await read_all(after)
            finally:
                await after.aclose()

        with small_log():
            return loop.run(both())

    return run


def test_a_commit_wins_over_an_older_pending_write_that_a_later_flush_brings(sim):
    """seed 12: write_blob(A) returned; commit(A) waited for the group before it; flush joined the same group.

    The group was merged in the order of asking, so the flush's older write of A overruled the
    commit, which was acknowledged and lost.  A commit now wins over anything pending.
    """

    async def scenario(store, _disk):
        await store.write_blob(A, OLD)
        await asyncio.gather(store.commit([(C, OTHER)]), store.commit([(A, NEW)]), store.flush())
        assert (await read_all(store))[A] == NEW

    assert sim(scenario)[A] == NEW


def test_a_commit_of_a_deletion_that_is_pending_already_makes_it_durable(sim):
    """seed 9: delete_blob(A) made A invisible, so commit(deletes=[A]) found nothing to do.

    It returned, and after a power cut A was back.
    """

    async def scenario(store, _disk):
        await store.commit([(A, OLD), (B, OLD)])
        await store.delete_blob(A)
        await store.commit([(C, NEW)], [A])
        await store.delete_blob(B)
        await store.commit((), [B])

    assert sim(scenario) == {C: NEW}


def test_a_deletion_while_an_older_frame_is_being_logged_is_not_forgotten(sim):
    """seed 1392: A was written, flush took that frame, A was written again and deleted before it ended.

    The deletion looked at the second frame only, which no group knew, and at the map, which did
    not have A yet: nothing to make durable, so it left no trace.  Then the flush ended, and A was
    back, with its first frame, for readers and on disk.
    """

    async def scenario(store, _disk):
        await store.write_blob(A, OLD)
        flushing = asyncio.ensure_future(store.flush())
        await asyncio.sleep(0)
        manifest = store._core.index
        assert not store._core.queue.idle
        # What the end of write_blob does, at once, so that the flush is still under way.
        slot = manifest.slots.allocate_run(1, SlotState.WRITING).slot
        manifest.publish([(A, pack_entry(slot, 0))], synced=True)
        await store.delete_blob(A)
        await flushing
        assert not await store.has_blob(A)
        await store.flush()

    assert sim(scenario) == {}


#: seed, fault, index of the request that fails, and what went wrong then.
SWEPT = [
    (
        0,
        "EIO",
        3,
        "a log write failed with EIO, the error said applied=False, and after a reopen it was there",
    ),
    (
        0,
        "ENOSPC",
        25,
        "no room for a segment's header poisoned the store: it is wiped, and the store goes on",
    ),
    (0, "EINTR", 0, "EINTR while the file grew was raised, where reads and writes try again"),
    (0, "EAGAIN", 0, "the same for EAGAIN"),
]


@pytest.mark.parametrize(("seed", "fault", "index", "story"), SWEPT, ids=lambda value: str(value)[:20])
def test_found_by_sweeping_faults(seed, fault, index, story):
    assert life_with_fault(seed, fault, index, forever=False, calls=14) is not None, story


@pytest.mark.parametrize("seed", range(3, 20))
def test_an_fsync_that_succeeds_beside_a_failing_one_is_not_believed(seed):
    """A commit was acknowledged although an fsync had failed, and was gone after a reopen.

    The system tells one fsync of lost pages, and only one.  The fsync of a data_sync batch, or of
    a log segment's preparation, got the error; a commit's own fsync, under way at the same time or
    begun just afterwards, answered 0, and the commit was acknowledged.
    """
    index = 0
    while life_with_fault(
        seed, "EIO", index, forever=False, kinds=("sync",), calls=20, tasks=4, compactions=0.1
    ):
        index += 1
    assert index > 3


@pytest.mark.parametrize(("seed", "blocks"), [(2, 43), (20, 31), (37, 35)])
def test_slots_that_grew_may_be_gone_when_the_growth_returns(seed, blocks):
    """On a nearly full disk two writers waited for the file to grow; the first took the second's slots.

    The second had counted free slots before it waited, and died of an AssertionError in allocate_runs.
    """
    for life in lives(seed, 2, capacity=blocks * PAGE, guids=20, calls=16):
        life.run()


def test_a_carry_ahead_of_a_group_that_a_reader_leaves_out_is_no_newer_log():
    """A read-only opener through a cache left the last group out, and took a compaction's carry for a later log.

    One superblock was being written, and was torn, when the power was cut.
    """
    torture(26735910033000, **options_of(26735910033000))
