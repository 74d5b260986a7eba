"""Conditions of a commit: checked in its turn, all or nothing, and what is refused leaves nothing behind.

On the simulated disk, where a group is in flight for as long as the test holds its flush.
"""

from __future__ import annotations

import asyncio
import errno

import pytest

from sim.judging import recover
from sim.lives import PAGE, forget, frame, guid, lend, lent, read_all, small_log, used_image
from uringblob import (
    AsyncFileBlobStore,
    AsyncMemoryBlobStore,
    BlobStoreIOError,
    ConditionFailed,
    StorePoisoned,
)
from uringblob.buffers.checksum import frame_checksum
from uringblob.store.index.slot_states import SlotState
from uringblob.store.io.checksum_budget import GUIDS_AT_ONCE
from uringblob.testing.sim.disk import Fault, SimDisk
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import open_sim_store

pytestmark = pytest.mark.one_interpreter

A, B, C, D = (guid(n) for n in range(4))


def checksum(stamp):
    return frame_checksum(frame(stamp))


def simulated(story, *, frames=64, deep=True):
    """Run ``story(store, disk)``, close the store, and open what it leaves."""
    with small_log():
        loop, disk = SimLoop(), SimDisk(image=used_image(frames))

        async def run():
            store = await open_sim_store(disk, loop)
            try:
                await story(store, disk)
                if store._core.file_io.poison_cause is not None:
                    return None
                assert store._core.index.slots.count(SlotState.WRITING) == 0, "a slot was kept"
                await store.flush()
                seen = await read_all(store)
                await store.aclose()
                return seen
            finally:
                forget(store)

        seen = loop.run(run())
        assert loop.complaints == []
        if seen is not None:
            assert recover(disk.live, None, deep=deep) == seen


async def in_one_group(store, *commits):
    """Have ``commits`` share the group after one that is in flight; return how each ended."""
    before = store.stats().log_groups
    first = asyncio.ensure_future(store.commit([(guid(90), lend(frame(90)))]))
    await asyncio.sleep(0)
    assert not store._core.queue.idle
    ends = await asyncio.gather(*commits, return_exceptions=True)
    await first
    assert store.stats().log_groups <= before + 2, "they did not share a group"
    return ends


def test_a_blob_that_is_there_is_not_created_again_and_the_error_says_what_is_there():
    async def story(store, _disk):
        await store.commit(lent({A: frame(1)}), if_absent=[A])
        free, syncs = store.stats().slots_free, store.stats().syncs
        with pytest.raises(ConditionFailed, match="must not be there and has checksum") as caught:
            await store.commit(lent({A: frame(2), B: frame(2)}), if_absent=[B, A])
        error = caught.value
        assert (error.guid, error.expected, error.found) == (A, None, checksum(1))
        assert store.path in str(error)
        assert await read_all(store) == {A: frame(1)}
        assert (store.stats().slots_free, store.stats().syncs) == (free, syncs)

    simulated(story)


def test_a_frame_is_replaced_only_where_it_is_the_one_that_was_seen():
    async def story(store, _disk):
        await store.commit(lent({A: frame(1)}))
        await store.commit(lent({A: frame(2)}), if_checksum={A: checksum(1)})
        with pytest.raises(ConditionFailed, match="must have checksum") as caught:
            await store.commit(lent({A: frame(3)}), if_checksum={A: checksum(1)})
        assert (caught.value.expected, caught.value.found) == (checksum(1), checksum(2))
        with pytest.raises(ConditionFailed, match="and is not there"):
            await store.commit(deletes=[B], if_checksum={B: checksum(1)})
        await store.commit(deletes=[A], if_checksum={A: checksum(2)})
        assert await read_all(store) == {}

    simulated(story)


def test_of_two_commits_in_one_group_the_second_sees_the_first():
    async def story(store, _disk):
        await store.commit(lent({C: frame(1)}))
        ends = await in_one_group(
            store,
            store.commit(lent({A: frame(1)}), if_absent=[A]),
            store.commit(lent({A: frame(2)}), if_absent=[A]),
            store.commit(lent({B: frame(2)}), [C], if_checksum={A: checksum(1)}),
            store.commit(lent({D: frame(3)}), if_absent=[C]),
            store.commit(lent({D: frame(4)}), if_checksum={C: checksum(1)}),
        )
        assert [type(end) for end in ends] == [
            type(None),
            ConditionFailed,
            type(None),
            type(None),
            ConditionFailed,
        ]
        assert ends[1].found == checksum(1)
        assert await read_all(store) == {A: frame(1), B: frame(2), D: frame(3), guid(90): frame(90)}

    simulated(story)


def test_what_is_refused_leaves_what_it_superseded_in_the_group():
    async def story(store, _disk):
        ends = await in_one_group(
            store,
            store.commit(lent({A: frame(1), B: frame(1)})),
            store.commit(lent({A: frame(2)}), [B], if_absent=[guid(90)]),
        )
        assert [type(end) for end in ends] == [type(None), ConditionFailed]
        assert await read_all(store) == {A: frame(1), B: frame(1), guid(90): frame(90)}

    simulated(story)


def test_a_refusal_because_of_a_member_that_then_fails_is_taken_back():
    """The first finds no room for its frame, so its name is free: the second creates it."""

    async def story(store, disk):
        struck = []

        def no_room(_index, kind):
            # The frames of the two that wait are written while the group before them is in flight.
            if kind == "write" and len(struck) < 1 and waiting:
                struck.append(kind)
                return Fault(errno.ENOSPC)
            return None

        waiting = []
        disk.faults = no_room

        async def failing():
            waiting.append(True)
            await store.commit(lent({A: frame(1)}))

        ends = await in_one_group(store, failing(), store.commit(lent({A: frame(2)}), if_absent=[A]))
        assert struck == ["write"]
        assert isinstance(ends[0], BlobStoreIOError)
        assert ends[1] is None
        assert (await read_all(store))[A] == frame(2)

    simulated(story)


def test_what_is_written_and_not_flushed_counts_and_stays_not_durable():
    async def story(store, disk):
        await store.commit(lent({B: frame(1)}))
        await store.write_blob(A, lend(frame(1)))
        await store.delete_blob(B)
        with pytest.raises(ConditionFailed):
            await store.commit(lent({C: frame(1)}), if_absent=[A])
        await store.commit(lent({C: frame(1)}), if_absent=[B], if_checksum={A: checksum(1)})
        assert store.needs_flush()
        assert recover(disk.durable, None) == {B: frame(1), C: frame(1)}
        await store.commit(lent({B: frame(2)}), if_absent=[B])  # instead of the deletion
        await store.commit(lent({A: frame(2)}), if_checksum={A: checksum(1)})
        assert not store.needs_flush()

    simulated(story)


def test_a_check_alone_writes_nothing():
    async def story(store, _disk):
        await store.commit(lent({A: frame(1)}))
        before = store.stats()
        await store.commit(if_absent=[B], if_checksum={A: checksum(1)})
        with pytest.raises(ConditionFailed):
            await store.commit(if_absent=[A])
        with pytest.raises(ConditionFailed):
            await store.commit(deletes=[B], if_absent=[A])
        after = store.stats()
        assert (after.syncs, after.log_groups) == (before.syncs, before.log_groups)

    simulated(story)


def test_a_write_beside_a_large_commit_is_never_lost():
    """The commit joins its group in several steps: the write comes before all of them, or after."""
    count = 4 * GUIDS_AT_ONCE
    names = [guid(200 + n) for n in range(count)]
    ends, content = set(), frame(1)

    async def one(store, rounds):
        commit = asyncio.ensure_future(store.commit([(name, content) for name in names], if_absent=names))
        for _ in range(rounds):
            await asyncio.sleep(0)
        by_then = commit.done()
        await store.write_blob(names[-1], lend(frame(2)))
        (end,) = await asyncio.gather(commit, return_exceptions=True)
        ends.add(type(end))
        if end is not None:
            assert (end.guid, end.found) == (names[-1], checksum(2))
            assert await store.list_blobs() == [names[-1]]
        room = bytearray(PAGE)
        await store.read_blob(names[-1], room)
        assert bytes(room) == frame(2), f"the write after {rounds} rounds is lost"
        await store.commit(deletes=names)
        return by_then

    async def story(store, _disk):
        rounds = 0
        while not await one(store, rounds):
            rounds += 1

    simulated(story, frames=3 * count, deep=False)
    assert ends == {ConditionFailed, type(None)}


@pytest.mark.parametrize("at", [0, 1, GUIDS_AT_ONCE, 3 * GUIDS_AT_ONCE])
def test_a_large_commit_leaves_its_group_whole(at):
    names, content = [guid(200 + n) for n in range(4 * GUIDS_AT_ONCE)], frame(1)

    async def story(store, _disk):
        await store.commit([(names[at], lend(frame(7)))])
        ends = await in_one_group(
            store,
            store.commit(lent({A: frame(1)})),
            store.commit([(name, content) for name in names], if_absent=names),
            store.commit(lent({B: frame(1)}), if_absent=names[:at]),
        )
        assert [type(end) for end in ends] == [type(None), ConditionFailed, type(None)]
        assert ends[1].guid == names[at]
        found = await read_all(store)
        assert found == {names[at]: frame(7), A: frame(1), B: frame(1), guid(90): frame(90)}
        assert (store.stats().slots_live, store.stats().slots_pending) == (4, 0)

    simulated(story, frames=3 * len(names), deep=False)


def test_a_poisoned_store_checks_nothing():
    async def story(store, _disk):
        store._core.file_io.poison(BlobStoreIOError(errno.EIO, "the disk is gone"))
        with pytest.raises(StorePoisoned):
            await store.commit(if_absent=[A])

    simulated(story)


@pytest.fixture(params=[AsyncFileBlobStore.open, AsyncMemoryBlobStore], ids=["file", "memory"])
async def store(request, store_path):
    if request.param is AsyncMemoryBlobStore:
        store = AsyncMemoryBlobStore(PAGE)
    else:
        store = await request.param(store_path, page_size=PAGE)
    async with store:
        yield store


@pytest.mark.parametrize("absent", [guid(1), "1" * 32, [b"short"], [7]])
async def test_what_is_no_list_of_guids_is_refused(store, absent):
    with pytest.raises((TypeError, ValueError)):
        await store.commit(if_absent=absent)


@pytest.mark.parametrize(
    ("checksums", "error"),
    [
        ([(A, 1)], TypeError),
        ({A: "1"}, TypeError),
        ({A: None}, TypeError),
        ({A: -1}, ValueError),
        ({A: 1 << 64}, ValueError),
        ({b"short": 1}, ValueError),
    ],
)
async def test_what_is_no_checksum_is_refused(store, checksums, error):
    with pytest.raises(error):
        await store.commit([(A, bytes(store.page_size))], if_checksum=checksums)
    assert not await store.has_blob(A)
