"""Who gets room where there is little: remedies in their order, pieces instead of runs, one growth for two."""

from __future__ import annotations

import asyncio
import errno

import pytest

from uringblob import BlobStoreIOError, StorePoisoned
from uringblob.completion import Completion
from uringblob.store.medium import Medium
from uringblob.store.slots import SlotState, SlotTable
from uringblob.store.space import SEGMENT_BYTES_MIN, Space

#: One slot is one segment; of those the log wants one for a snapshot, and three more.
PAGE = SEGMENT_BYTES_MIN
RESERVE = 4


class Disk:
    """An engine that can only grow: up to ``room`` slots, or never with another errno."""

    def __init__(self, room):
        self.room = room
        self.number = errno.ENOSPC
        self.grown = []

    def grow(self, size):
        done = Completion(loop=asyncio.get_running_loop())
        fits = size // PAGE <= self.room
        if fits:
            self.grown.append(size // PAGE)
        asyncio.get_running_loop().call_soon(done.finish, 0 if fits else -self.number)
        return done


def space_of(slots, disk, *, confirm=None, compact=None, log=None):
    async def no(*_):
        (log if log is not None else []).append("compact")
        return False

    medium = Medium(disk, "some.blobs", asyncio.get_running_loop())
    return Space(
        medium, slots, PAGE, records=lambda: 1, confirm=confirm or no, compact=compact or no
    )  # fmt: skip


def refused(number):
    return BlobStoreIOError(number, "confirming")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
async def test_a_confirmation_without_room_is_followed_by_the_next_remedy_and_any_other_failure_ends(number):
    slots = SlotTable(2, 2 + RESERVE + 1)
    slots.take_run(RESERVE + 1, SlotState.WRITING)
    slots.move(5, SlotState.LIVE)
    slots.retire(5, fence=1)
    log = []

    async def confirm():
        log.append("confirm")
        raise refused(number)

    space = space_of(slots, Disk(room=slots.limit), confirm=confirm, log=log)
    with pytest.raises(BlobStoreIOError) as raised:
        await space.take_frames(1)
    assert log == (["confirm", "compact"] if number == errno.ENOSPC else ["confirm"])
    assert "confirming" in str(raised.value) or number == errno.ENOSPC
    assert raised.value.errno == number


async def test_where_a_quarter_is_free_a_batch_goes_into_pieces_and_the_file_does_not_grow():
    slots = SlotTable(2, 34)
    space = space_of(slots, disk := Disk(room=1000))
    await space.refill()
    taken = slots.take_run(slots.count(SlotState.FREE), SlotState.WRITING)
    for slot in range(taken.slot, taken.slot + taken.slots):
        slots.move(slot, SlotState.FREE if slot % 2 else SlotState.LIVE)
    runs = await space.take_frames(4)
    assert [run.slots for run in runs] == [1, 1, 1, 1]
    assert all(slots.state(run.slot) is SlotState.WRITING for run in runs)
    assert disk.grown == []


async def test_on_a_disk_almost_full_a_batch_takes_every_piece_there_is():
    """The file grows by the one slot that is missing; the next growth is refused, and is not needed."""
    slots = SlotTable(2, 42)
    space = space_of(slots, disk := Disk(room=43))
    await space.refill()
    slots.take_run(slots.count(SlotState.FREE), SlotState.WRITING)
    for slot in (10, 20, 30):
        slots.move(slot, SlotState.FREE)
    runs = await space.take_frames(4)
    assert sorted(run.slot for run in runs) == [10, 20, 30, 42]
    assert disk.grown == [43]
    with pytest.raises(BlobStoreIOError) as raised:
        await space.take_frames(1)
    assert raised.value.errno == errno.ENOSPC
    assert "some.blobs" in str(raised.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
async def test_a_reserve_that_cannot_be_completed_waits_for_room_and_for_nothing_else(number):
    disk = Disk(room=0)
    disk.number = number
    space = space_of(SlotTable(2, 2), disk)
    if number == errno.EIO:
        with pytest.raises(BlobStoreIOError) as raised:
            await space.refill()
        assert raised.value.errno == number
    else:
        await space.refill()
    assert space.short


async def test_two_who_need_a_segment_grow_the_file_once():
    """The second finds, when it has the lock, that the first one's growth was enough for both."""
    slots = SlotTable(2, 42)
    slots.take_run(40, SlotState.WRITING)
    space = space_of(slots, disk := Disk(room=1000))
    first, second = await asyncio.gather(space.take_segment(), space.take_segment())
    assert first.slot != second.slot
    assert slots.count(SlotState.LOG) == 2
    assert len(disk.grown) == 1


async def test_a_segment_that_is_nowhere_is_a_refusal_and_nothing_was_taken():
    slots = SlotTable(2, 10)
    slots.take_run(8, SlotState.WRITING)
    space = space_of(slots, Disk(room=10))
    with pytest.raises(BlobStoreIOError, match=r"growing some\.blobs"):
        await space.take_segment()
    assert slots.count(SlotState.LOG) == 0


async def test_a_poisoned_store_hands_out_no_slot_and_keeps_what_it_had():
    """A slot may have become free because a group failed; what the medium holds of it is unknown."""
    slots = SlotTable(2, 42)
    space = space_of(slots, Disk(room=1000))
    free = slots.count(SlotState.FREE)
    space._medium.poison(refused(errno.EIO))
    with pytest.raises(StorePoisoned):
        await space.take_frames(2)
    assert slots.count(SlotState.WRITING) == 0
    assert slots.count(SlotState.FREE) == free


async def test_what_becomes_due_or_poisoned_while_slots_are_looked_for_is_seen_before_they_are_handed_out():
    """A slot may have become free because a group failed: the medium may name it until that is wiped."""
    slots = SlotTable(2, 2)
    space = space_of(slots, disk := Disk(room=1000))
    grow, steps = disk.grow, []

    async def repair():
        steps.append((slots.count(SlotState.WRITING), slots.count(SlotState.LOG)))
        if len(steps) % 2:
            raise refused(errno.ENOSPC)

    def grow_and_owe(size):
        disk.grow = grow
        space._medium.repairs._due.append(repair)
        return grow(size)

    disk.grow = grow_and_owe
    with pytest.raises(BlobStoreIOError, match="make room"):
        await space.take_frames(2)
    assert steps == [(0, 0)]
    assert space.take_ready(2) is None, "it is due, and there is room"
    (run,) = await space.take_frames(2)
    assert (run.slots, len(steps)) == (2, 2)

    space._medium.repairs._due.append(repair)
    with pytest.raises(BlobStoreIOError, match="make room"):
        await space.take_segment()
    assert steps[2:] == [(2, 0)]
    await space.take_segment()
    space._medium.poison(refused(errno.EIO))
    assert space.take_ready(1) is None
