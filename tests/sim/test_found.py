"""Bugs that the simulated disk found in the store, each with its story: the smallest sequence that shows it."""

from __future__ import annotations

import asyncio

import pytest
from sim.rig import frame, guid, read_all, small_log
from uringblob.testing.sim_disk import SimDisk
from uringblob.testing.sim_loop import SimLoop
from uringblob.testing.sim_store import new_image, open_sim_store

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
        first = asyncio.ensure_future(store.commit([(C, OTHER)]))
        await asyncio.sleep(0)
        await store.write_blob(A, OLD)
        rest = [asyncio.ensure_future(store.commit([(A, NEW)])), asyncio.ensure_future(store.flush())]
        await asyncio.gather(first, *rest)
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
