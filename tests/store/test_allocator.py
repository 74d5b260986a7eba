"""Who gets room where there is little: the log before frames, pieces instead of runs, growth only where it pays."""

from __future__ import annotations

import asyncio
import errno
import random
from types import SimpleNamespace

import pytest

from uringblob import BlobStoreIOError, StorePoisoned, tuning
from uringblob.completion import Completion
from uringblob.store.allocator import SlotAllocator
from uringblob.store.format import EXTENTS_MAX, SlotRun
from uringblob.store.growth import FileGrowth
from uringblob.store.index.log_space import LogSpace
from uringblob.store.index.slot_states import SlotState
from uringblob.store.index.slots import SlotTable
from uringblob.store.io.file_io import FileIO

#: One slot is one granule, and the least step by which a file grows; a small store wants 15 for its log.
PAGE = 64 * 1024
LOG = 15


@pytest.fixture(autouse=True)
def one_spare_slot(monkeypatch):
    """A small store may have one slot more than it needs."""
    monkeypatch.setattr(tuning, "SPARE_BYTES", PAGE)


class World:
    """A space with all it talks to; ``events`` says what it asked of them, in order.

    The disk can only grow: up to ``room`` slots, or never with another errno.
    """

    def __init__(self, frames, *, room=10**6, log=LOG, page_size=PAGE):
        self.page_size = page_size
        extent = SlotRun(2, log * max(1, PAGE // page_size))
        self.slots = SlotTable(2, extent.end + frames)
        self.first = extent.end  #: the first slot for frames
        self.slots.mark_run_used(extent, SlotState.LOG)
        self.log_space = LogSpace(page_size, [extent])
        self.room = room
        self.number = errno.ENOSPC
        self.events = []
        self.seq = 1
        self.recorded = list(self.log_space.extents)
        self.refuse_to_record = self.refuse_to_confirm = None
        self.pool = SimpleNamespace(page_size=page_size)  # nothing is read or written
        self.medium = FileIO(self, "some.blobs", asyncio.get_running_loop())
        self.blobs = None  #: how many there are said to be; None: the live slots
        self.growth = FileGrowth(self.medium, self.slots, self.log_space, page_size, self, self)
        self.allocator = SlotAllocator(self.medium, self.slots, self.growth, self)

    def __len__(self):
        """The visible blobs."""
        return self.slots.count(SlotState.LIVE) if self.blobs is None else self.blobs

    @property
    def grown(self):
        return [size for what, size in self.events if what == "grow"]

    def poll(self):
        """Nothing is in flight."""

    def grow(self, size):
        done = Completion(loop=asyncio.get_running_loop())
        fits = size // self.page_size <= self.room
        self.events.append(("grow" if fits else "no room for", size // self.page_size))
        asyncio.get_running_loop().call_soon(done.resolve, 0 if fits else -self.number)
        return done

    async def record_extents(self, extents):
        self.events.append(("record", sum(extent.slots for extent in extents)))
        await asyncio.sleep(0)
        if self.refuse_to_record is not None:
            raise self.refuse_to_record
        self.recorded = list(extents)

    async def commit_empty_group(self):
        self.events.append(("confirm", self.slots.awaiting_group))
        if self.refuse_to_confirm is not None:
            raise self.refuse_to_confirm
        self.seq += 1
        self.slots.confirm(self.seq - 1)

    # What callers do with slots.

    def fill(self, *free):
        """Make every frame's slot live but those numbered ``free``, counted from the first."""
        for run in self.slots.allocate_runs(self.slots.count(SlotState.FREE), SlotState.WRITING):
            self.slots.move_run(run, SlotState.LIVE)
        for number in free:
            self.slots.retire(self.first + number, fence=0)

    def supersede(self, *numbers):
        for number in numbers:
            self.slots.retire(self.first + number, fence=self.seq)

    def counts(self):
        return {state: self.slots.count(state) for state in SlotState}


def refused(number):
    return BlobStoreIOError(number, "refused")


def numbers_of(runs, world):
    return sorted(slot - world.first for run in runs for slot in range(run.slot, run.end))


# --- frames: what there is, what the last group freed, growth --------------------------------


async def test_frames_come_as_one_run_where_there_is_one_and_the_file_stays():
    world = World(20)
    assert await world.allocator.allocate_frames(4) == [SlotRun(world.first, 4)]
    assert world.allocator.allocate_ready(4) == SlotRun(world.first + 4, 4)
    assert world.slots.count(SlotState.WRITING) == 8
    assert world.events == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
async def test_a_confirmation_without_room_is_no_remedy_and_any_other_failure_ends(number):
    world = World(20, room=0)
    world.fill()
    world.supersede(5)
    world.refuse_to_confirm = refused(number)
    before = world.counts()
    with pytest.raises(BlobStoreIOError) as raised:
        await world.allocator.allocate_frames(1)
    assert world.counts() == before
    assert world.events[-1] == ("confirm", 1)
    assert world.grown == []
    if number == errno.EIO:
        assert raised.value is world.refuse_to_confirm
    else:
        assert raised.value.errno == errno.ENOSPC
        assert "growing some.blobs" in str(raised.value)


async def test_what_the_last_group_freed_is_confirmed_instead_of_growing_for_a_small_batch():
    world = World(160)
    world.fill()
    world.supersede(*range(40, 56))
    assert numbers_of(await world.allocator.allocate_frames(16), world) == list(range(40, 56))
    assert world.events == [("confirm", 16)]


@pytest.mark.parametrize(
    ("superseded", "count", "why"),
    [
        (60, 41, "the batch is large, its flush is not"),
        (16, 17, "that would not be enough"),
        (16, 8, "it is cheap"),
    ],
)
async def test_nothing_is_confirmed_where_that_would_not_pay(superseded, count, why):
    world = World(160)
    world.fill()
    world.supersede(*range(superseded))
    if why == "it is cheap":
        world.blobs = 1000
    await world.allocator.allocate_frames(count)
    assert [what for what, _ in world.events] == ["grow"], why


async def test_on_a_full_disk_what_the_last_group_freed_is_the_last_remedy():
    """Also for a batch so large that it would rather have grown the file."""
    world = World(20, room=0)
    world.fill()
    world.supersede(*range(10))
    assert numbers_of(await world.allocator.allocate_frames(10), world) == list(range(10))
    assert world.events[-1] == ("confirm", 10)
    assert world.grown == []


#: 160 live, so that ten more, and one, are comfort; and what is asked for will be live, too.
@pytest.mark.parametrize(
    ("free", "asked", "grows"),
    [(4, 4, True), (11, 4, True), (12, 4, False), (60, 4, False), (11, 11, True), (12, 12, False)],
)
async def test_a_batch_goes_into_pieces_where_a_sixteenth_is_free_already_and_else_the_file_grows(
    free, asked, grows
):
    world = World(160 + free)
    world.fill(*range(0, 2 * free, 2))
    runs = await world.allocator.allocate_frames(asked)
    if grows:
        assert [run.slots for run in runs] == [asked]
        assert len(world.grown) == 1
    else:
        assert numbers_of(runs, world) == list(range(0, 2 * asked, 2))
        assert world.grown == []
    assert world.slots.count(SlotState.WRITING) == asked


async def test_what_is_missing_is_grown_by_and_the_rest_lies_in_pieces_where_a_whole_run_is_dear():
    world = World(200)
    world.fill(*range(0, 60, 2))
    world.blobs = 10
    runs = await world.allocator.allocate_frames(40)
    assert world.grown == [world.first + 210]
    assert numbers_of(runs, world) == [*range(0, 60, 2), *range(200, 210)]


async def test_a_batch_longer_than_any_run_that_is_looked_for_comes_in_pieces_and_does_not_loop():
    world = World(0, log=40)
    runs = await world.allocator.allocate_frames(5000)
    assert numbers_of(runs, world) == list(range(5000))
    assert len(world.grown) == 1


async def test_on_a_disk_almost_full_a_batch_takes_every_piece_there_is():
    """The file grows by the one slot that is missing; the next growth is refused, and is not needed."""
    world = World(40)
    world.room = world.slots.limit + 1
    world.fill(8, 18, 28)
    assert numbers_of(await world.allocator.allocate_frames(4), world) == [8, 18, 28, 40]
    assert world.grown == [world.room]
    before = world.counts()
    with pytest.raises(BlobStoreIOError) as raised:
        await world.allocator.allocate_frames(1)
    assert raised.value.errno == errno.ENOSPC
    assert "some.blobs" in str(raised.value)
    assert world.counts() == before


async def test_growth_for_comforts_sake_that_is_refused_leaves_the_pieces():
    world = World(164, room=0)
    world.fill(0, 2, 4, 6)
    assert numbers_of(await world.allocator.allocate_frames(4), world) == [0, 2, 4, 6]
    assert world.grown == []
    assert world.events


async def test_two_batches_that_need_growth_grow_one_after_the_other_and_share_no_slot():
    world = World(10)
    world.fill()
    batches = await asyncio.gather(*(world.allocator.allocate_frames(5) for _ in range(6)))
    numbers = [number for runs in batches for number in numbers_of(runs, world)]
    assert len(set(numbers)) == 30
    assert world.grown == sorted(set(world.grown))


@pytest.mark.parametrize("seed", range(6))
async def test_a_store_whose_live_size_is_constant_stays_within_a_quarter_of_it(seed):
    """Batches of any size are overwritten in any order; each is a group, and the next one confirms it."""
    rng = random.Random(seed)
    world, live = World(0), 1000
    places = []
    for _ in range(live // 100):
        for run in await world.allocator.allocate_frames(100):
            world.slots.move_run(run, SlotState.LIVE)
            places += range(run.slot, run.end)
    sizes = rng.choice(((1,), (1, 7, 64), (64,), (1, 100, 250)))
    for step in range(3000):
        count = rng.choice(sizes)
        runs = await world.allocator.allocate_frames(count)
        world.seq += 1
        world.slots.confirm(world.seq - 1)
        for slot in (slot for run in runs for slot in range(run.slot, run.end)):
            world.slots.move(slot, SlotState.LIVE)
            victim = rng.randrange(live)
            world.slots.retire(places[victim], fence=world.seq)
            places[victim] = slot
        frames = world.slots.limit - world.first
        most = live * 5 // 4 if max(sizes) <= live // 16 else live + 2 * max(sizes) + live // 16 + 1
        assert frames <= most, f"{frames} slots for {live} live ones in step {step}, batches of {sizes}"
    assert world.log_space.capacity == LOG


# --- the log's own space ---------------------------------------------------------------------


async def test_the_log_gets_its_room_first_and_has_it_only_when_both_superblocks_say_so():
    world = World(0, log=5)
    states = []

    async def record(extents):
        # Allocated, so that no frame gets it, and not yet for logs either.
        states.append(
            (world.counts()[SlotState.LOG], world.log_space.capacity, world.log_space.free_granules)
        )
        world.events.append(("record", sum(extent.slots for extent in extents)))

    world.record_extents = record
    (run,) = await world.allocator.allocate_frames(3)
    assert [what for what, _ in world.events] == ["grow", "record", "grow"]
    assert states == [(world.log_space.capacity, 5, 5)]
    assert world.log_space.capacity >= LOG
    assert run.slot == world.log_space.extents[-1].end


async def test_one_extent_of_what_is_missing_comes_before_several_shorter_ones():
    world = World(LOG - 5, log=5)
    await world.growth.complete_log_space()
    assert world.events == [("record", LOG)]
    assert world.log_space.capacity == LOG


async def test_an_extent_that_may_be_recorded_or_not_is_neither_free_nor_log_space():
    world = World(0, log=5)
    world.refuse_to_record = refused(errno.EIO)
    with pytest.raises(BlobStoreIOError) as raised:
        await world.allocator.allocate_frames(3)
    assert raised.value is world.refuse_to_record
    assert world.medium.poison_cause is not None
    assert world.log_space.capacity == 5
    counts = world.counts()
    assert counts[SlotState.LOG] > 5
    assert counts[SlotState.FREE] == counts[SlotState.WRITING] == 0


async def test_log_space_grows_with_the_blobs_there_would_be_and_not_with_those_there_are():
    world = World(60_000)
    want = world.log_space.wanted
    count = next(count for count in range(60_000) if want(count) > LOG)
    assert world.allocator.allocate_ready(count) is None
    (run,) = await world.allocator.allocate_frames(count - 1)
    assert world.log_space.capacity == LOG
    world.allocator.free(run, SlotState.FREE)
    await world.allocator.allocate_frames(count)
    assert world.log_space.capacity >= want(count) > LOG
    assert world.recorded == world.log_space.extents


async def test_free_slots_become_log_space_and_where_they_are_apart_in_several_extents():
    world = World(40, log=5)
    world.fill(*range(10, 14), *range(20, 24), 30, 32)
    await world.growth.complete_log_space()
    assert world.log_space.capacity == LOG
    assert world.grown == []
    assert world.counts()[SlotState.FREE] == 0
    assert world.recorded == world.log_space.extents
    assert len(world.recorded) == 5
    recorded = [size for what, size in world.events if what == "record"]
    assert recorded == sorted(set(recorded)), "each extent was recorded before the next one was taken"


async def test_free_slots_too_few_for_a_granule_are_no_log_space_and_the_file_grows():
    """Frames of 4 KiB: a granule is 16 slots side by side."""
    world = World(64, log=5, page_size=4096)
    world.fill(*range(15), *range(20, 35))
    await world.growth.complete_log_space()
    assert world.log_space.capacity >= world.log_space.wanted(0)
    assert world.counts()[SlotState.FREE] == 30
    assert all(extent.slots % 16 == 0 for extent in world.recorded)
    assert len(world.grown) == 1


async def test_where_there_is_no_room_for_an_eighth_more_what_is_needed_is_enough():
    world = World(0, log=5, room=0)
    world.room = world.slots.limit + 10
    await world.growth.complete_log_space()
    assert world.log_space.capacity == LOG
    assert world.grown == [world.room]
    assert len(world.recorded) == 1, "it lies behind the log space there was"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
async def test_log_space_that_cannot_be_completed_waits_for_room_and_for_nothing_else(number):
    world = World(3, log=5, room=0)
    world.fill()
    world.number = number
    if number == errno.EIO:
        with pytest.raises(BlobStoreIOError) as raised:
            await world.growth.complete_log_space()
        assert raised.value.errno == number
    else:
        await world.growth.complete_log_space()
    assert world.log_space.capacity == 5
    assert world.allocator.allocate_ready(0) is None


async def test_what_there_is_room_for_becomes_log_space_though_it_is_not_enough():
    world = World(10, log=5, room=0)
    world.fill(3, 4, 7)
    await world.growth.complete_log_space()
    assert world.log_space.capacity == 8
    assert world.recorded == world.log_space.extents


async def test_frames_get_nothing_while_the_log_has_too_little_and_deletes_need_nothing():
    world = World(10, log=5, room=0)
    world.fill(*range(4))
    with pytest.raises(BlobStoreIOError, match=r"growing some\.blobs"):
        await world.allocator.allocate_frames(1)
    assert world.counts()[SlotState.WRITING] == 0
    assert world.log_space.capacity == 9, "all that is free is the log's"


async def test_two_who_find_too_little_log_space_extend_it_once():
    """The second finds, when it has the lock, that the first one's growth was enough for both."""
    world = World(0, log=5)
    (first,), (second,) = await asyncio.gather(
        world.allocator.allocate_frames(1), world.allocator.allocate_frames(1)
    )
    assert first.slot != second.slot
    assert [what for what, _ in world.events].count("record") == 1


def crowded(extents):
    """Return a world whose superblocks list so many extents of one granule each, and whose log wants more.

    Three slots are free, apart from all extents and from each other.
    """
    world = World(2 * EXTENTS_MAX + 10, log=1)
    for number in range(1, extents):
        slot = world.first + 2 * number
        world.slots.move(slot, SlotState.LOG)
        world.log_space.add(SlotRun(slot, 1))
    world.fill(*range(2 * EXTENTS_MAX + 4, 2 * EXTENTS_MAX + 10, 2))
    world.log_space.wanted = lambda *_: extents + 1
    assert len(world.log_space.extents) == extents
    return world


async def test_a_superblock_whose_list_is_full_is_a_refusal_that_says_what_to_do():
    world = crowded(EXTENTS_MAX)
    before = world.counts()
    with pytest.raises(
        BlobStoreIOError, match=f"some.blobs: the log needs more room, .* {EXTENTS_MAX} parts"
    ) as raised:
        await world.allocator.allocate_frames(1)
    assert raised.value.errno == errno.ENOSPC
    assert "Copy the blobs to a new store" in str(raised.value)
    assert world.counts() == before
    await world.growth.complete_log_space()  # an opener goes on with what there is
    assert world.counts() == before


async def test_the_last_place_in_a_superblocks_list_is_used():
    world = crowded(EXTENTS_MAX - 1)
    await world.allocator.allocate_frames(1)
    assert len(world.recorded) == EXTENTS_MAX


# --- poison ----------------------------------------------------------------------------------


async def test_a_poisoned_store_hands_out_no_slot_and_keeps_what_it_had():
    """A slot may have become free because a group failed; what the medium holds of it is unknown."""
    world = World(40)
    world.medium.poison(refused(errno.EIO))
    assert world.allocator.allocate_ready(2) is None
    before = world.counts()
    with pytest.raises(StorePoisoned):
        await world.allocator.allocate_frames(2)
    assert world.counts() == before


async def test_what_becomes_due_or_poisoned_while_slots_are_looked_for_is_seen_before_they_are_handed_out():
    """A slot may have become free because a group failed: the medium may name it until that is wiped."""
    world = World(0)
    grow, steps = world.grow, []

    async def repair():
        steps.append(world.slots.count(SlotState.WRITING))
        if len(steps) % 2:
            raise refused(errno.ENOSPC)

    def grow_and_owe(size):
        world.grow = grow
        world.medium.repairs.due.append(repair)
        return grow(size)

    world.grow = grow_and_owe
    with pytest.raises(BlobStoreIOError, match="make room"):
        await world.allocator.allocate_frames(2)
    assert steps == [0]
    assert world.allocator.allocate_ready(2) is None, "it is due, and there is room"
    (run,) = await world.allocator.allocate_frames(2)
    assert (run.slots, len(steps)) == (2, 2)
    world.medium.poison(refused(errno.EIO))
    assert world.allocator.allocate_ready(1) is None


async def test_an_extent_that_one_superblock_may_list_already_is_never_given_to_frames():
    world = World(200, page_size=4096)
    world.blobs = 4000
    world.refuse_to_record = refused(errno.ENOSPC)
    kept = world.slots.count(SlotState.LOG)
    with pytest.raises(BlobStoreIOError, match="make room"):
        await world.allocator.allocate_frames(4000)
    assert world.slots.count(SlotState.LOG) > kept
    assert world.log_space.capacity == LOG, "no log may use it yet"
    world.refuse_to_record = None
    await world.allocator.allocate_frames(1)
    assert world.log_space.capacity > LOG
