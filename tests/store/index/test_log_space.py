"""The slots kept for logs: how many there must be, how they are cut, and that what must fit always fits."""

from __future__ import annotations

import errno
import random
from types import SimpleNamespace

import pytest

from uringblob import BlobStoreIOError
from uringblob.store.format import BLOCK_SIZE, META_CELLS_MAX, SlotRun, blocks_for, first_slot
from uringblob.store.index.log_space import (
    BASE_BYTES,
    BASE_SLOTS,
    GRANULE_BYTES,
    SEGMENT_BYTES_MAX,
    LogSpace,
    base_granules,
    granule_slots,
)
from uringblob.store.log.compaction import Compaction
from uringblob.store.log.maintenance import LogMaintenance
from uringblob.store.log.writer import Log

KIB = 1024
MIB = 1024 * KIB
#: Each power of two, and others around those where something changes.
PAGE_SIZES = [*(4096 << bit for bit in range(15)), *(n * KIB for n in (12, 36, 60, 68, 100, 1540)), 63 * MIB]
RECORDS = [0, 1, 118, 119, 120, 1_000, 1_785, 1_786, 20_000, 300_000]


# --- how much there is -----------------------------------------------------------------------


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_a_store_that_holds_nothing_keeps_its_base_and_that_is_the_fixed_cost(page_size):
    kept = base_granules(page_size) * granule_slots(page_size)
    assert LogSpace(page_size).wanted(0) == base_granules(page_size)
    if page_size <= 64 * KIB:
        superblocks = first_slot(page_size) * page_size if page_size > 4096 else 8192
        assert kept * page_size <= BASE_BYTES - superblocks
        assert kept * page_size >= BASE_BYTES - superblocks - 2 * granule_slots(page_size) * page_size
    else:
        assert kept in (BASE_SLOTS, BASE_SLOTS + 1)
        assert first_slot(page_size) + kept < 8, "at most eight frames, the superblocks' included"


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_more_blobs_never_want_less_and_a_granule_is_a_block_of_header_at_least(page_size):
    space = LogSpace(page_size)
    wanted = [space.wanted(records) for records in range(0, 400_000, 777)]
    assert wanted == sorted(wanted)
    assert space.granule * page_size >= min(GRANULE_BYTES, page_size)
    useful = space.granule * page_size // BLOCK_SIZE - 1
    assert useful > 0 or page_size == BLOCK_SIZE
    assert [space.granules_for(blocks) for blocks in (0, 1, useful, useful + 1)] == [0, 1, 1, 2]


@pytest.mark.parametrize(("page_size", "percent"), [(4096, 5.5), (8192, 2.8), (64 * KIB, 0.4)])
def test_of_a_large_store_the_log_takes_a_few_percent(page_size, percent):
    space = LogSpace(page_size)
    for records in (300_000, 1_000_000, 10_000_000):
        assert space.wanted(records) * space.granule * 100 / records <= percent


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_a_segment_is_a_small_part_of_all_and_its_zeroing_is_one_request(page_size):
    space = LogSpace(page_size)
    at = first_slot(page_size)
    for granules in (1, 15, 23, 24, 47, 48, 1000, 5000):
        space.add(SlotRun(at, granules * space.granule))
        at += granules * space.granule
        segment = space.segment_granules * space.granule * page_size
        assert space.segment_granules >= 1
        assert segment <= max(SEGMENT_BYTES_MAX, page_size)
        assert space.segment_granules == 1 or space.segment_granules * 24 <= space.capacity


# --- what must fit, fits ---------------------------------------------------------------------


class Chain:
    """A log that writes nothing: the real arithmetic of log, compaction and maintenance, and no medium.

    ``named`` blobs are what the slot table says; ``durable`` what a snapshot taken now would hold.  The
    metadata of each takes ``meta`` cells.
    """

    def __init__(self, page_size, named, rng, *, pieces, meta=0):
        self.page_size = page_size
        self.named = self.durable = named
        self.meta, self.meta_cells = meta, named * meta
        self.largest = blocks_for(named, named * meta)
        self.delta_count = 0
        self.space = LogSpace(page_size)
        self.rng = rng
        self._lay_out(pieces)
        self.maintenance = LogMaintenance(
            None,
            self,
            self.space,
            self,
            SimpleNamespace(current=SimpleNamespace(version=2)),
            self.nothing,
        )
        self.maintenance._compacting = None
        self.log = self.first_log()

    # What it asks of the index.

    @property
    def slots(self):
        return self

    def delta(self):
        return range(self.delta_count)

    @property
    def delta_meta_cells(self):
        return self.delta_count * self.meta

    async def nothing(self):
        """There is as much as there shall be."""

    def _lay_out(self, pieces):
        """Give the space what it wants and not one granule more, in extents that do not touch."""
        left, at = self.space.wanted(self.named, self.meta_cells), first_slot(self.page_size)
        while left:
            part = left if pieces == 1 else min(left, self.rng.randint(1, max(1, left // pieces)))
            self.space.add(SlotRun(at, part * self.space.granule))
            at += (part + 1) * self.space.granule
            left -= part

    def log_of(self, segments):
        *segments, tail = segments
        return Log(
            None, store_id=bytes(16), log_id=1, page_size=self.page_size, segments=segments, tail=tail,
            position=(0, 1), seq=1, space=self.space,
        )  # fmt: skip

    def first_log(self):
        self.begin_compaction()
        return self.switch_log()

    # What the real ones do, without the writing of it.

    def extend(self, log, blocks):
        while log.room < blocks:
            log.segments.append(log.tail)
            log.tail = self.space.allocate(self.space.segment_granules)
            log.room = log._count_room()

    def write(self, blocks):
        """A group, as the queue writes it: ``ensure_room``, and then the position moves on."""
        self.extend(self.log, blocks)
        self.log.skip(blocks)

    def begin_compaction(self):
        compaction = Compaction(None, None, self.space, self, None)
        compaction._allocate_segments(self.largest + 1)
        self.new = self.log_of(compaction._segments)
        self.new.skip(self.largest)
        self.delta_count = 0
        self.maintenance._compacting = SimpleNamespace(done=lambda: False)

    def switch_log(self):
        """The carry, then the SWITCH in the old log, and only then the old log's segments are free."""
        new = self.new
        carried = blocks_for(self.delta_count, self.delta_meta_cells)
        self.extend(new, carried)
        new.skip(carried)
        self.delta_count = 0
        self.maintenance._compacting = None
        return new

    def compact(self):
        old = self.log
        new = self.switch_log()
        self.extend(old, 1)
        old.skip(1)
        for segment in old.chain:
            self.space.free(segment)
        self.log = new

    def check(self):
        """No two logs share a slot, all lies in log space, and what is free is what is left."""
        segments = self.log.chain + (self.new.chain if self.new is not self.log else [])
        slots = [slot for segment in segments for slot in range(segment.slot, segment.end)]
        assert len(slots) == len(set(slots))
        assert all(
            self.space.owns(segment) and segment.slots % self.space.granule == 0 for segment in segments
        )
        assert self.space.free_granules == self.space.capacity - len(slots) // self.space.granule


def chains(seed):
    """Yield a chain for each frame size and number of blobs, once in one extent and once in many."""
    rng = random.Random(seed)
    for page_size in PAGE_SIZES:
        for records in RECORDS:
            for pieces, meta in ((1, 0), (4, 0), (4, 1), (1, META_CELLS_MAX)):
                yield Chain(page_size, records, rng, pieces=pieces, meta=meta)


def test_after_a_compaction_the_largest_group_fits_and_after_it_the_next_compaction():
    """``wanted`` covers it: the snapshot in use, a group that names every blob, and a snapshot beside both."""
    for chain in chains(1):
        largest = chain.largest
        for _ in range(4):
            assert chain.maintenance.log_fits(largest), (
                f"{chain.page_size} {chain.named} {chain.space} {chain.log}"
            )
            chain.write(largest)
            chain.begin_compaction()
            chain.compact()
            chain.new = chain.log
            chain.check()


def test_whatever_was_written_before_and_beside_a_snapshot_the_largest_group_fits_when_the_log_is_switched():
    """Ordinary groups come, as long as they fit, also while a snapshot is written; so its carry may be long."""
    refused = beside = 0
    for chain in chains(2):
        largest = chain.largest
        sizes = [1, 1, 2, largest, max(1, largest // 3), max(1, largest // 10)]
        for _ in range(3):
            for _ in range(chain.rng.choice((0, 5, 40, 300))):
                if chain.maintenance.log_fits(size := chain.rng.choice(sizes)):
                    chain.write(size)
                else:
                    refused += 1
            chain.begin_compaction()
            for _ in range(chain.rng.choice((0, 3, 30))):
                if chain.maintenance.log_fits(size := chain.rng.choice(sizes)):
                    chain.write(size)
                    chain.delta_count = min(chain.named, chain.delta_count + size * 119 // (1 + chain.meta))
                else:
                    beside += 1
            chain.check()
            chain.compact()
            chain.new = chain.log
            assert chain.maintenance.log_fits(largest), (
                f"{chain.page_size} {chain.named} {chain.space} {chain.log}"
            )
            chain.write(largest)
            chain.check()
    assert refused > 1000, "the log was never so long that a group had to wait"
    assert beside > 100, "the carries were never so long that a group had to wait"


def test_what_a_group_is_said_to_take_is_never_less_than_what_it_takes():
    for chain in chains(3):
        for _ in range(20):
            blocks = chain.rng.choice((1, 2, 15, 16, 100, chain.largest))
            if not chain.maintenance.log_fits(blocks):
                chain.begin_compaction()
                chain.compact()
                chain.new = chain.log
                continue
            said, before = chain.log.granules_for(blocks), chain.space.free_granules
            chain.write(blocks)
            chain.extend(chain.log, 1)  # the SWITCH that must follow
            assert before - chain.space.free_granules <= said


def test_with_two_fifths_less_the_largest_group_would_not_fit_in_stores_of_every_frame_size(monkeypatch):
    """So the tables above can fail."""
    wanted = LogSpace.wanted
    monkeypatch.setattr(LogSpace, "wanted", lambda self, *cells: wanted(self, *cells) * 3 // 5)
    refused = {c.page_size for c in chains(1) if not c.maintenance.log_fits(c.largest)}
    assert refused == set(PAGE_SIZES)


# --- handing out -----------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [4096, 64 * KIB, MIB])
@pytest.mark.parametrize("seed", range(6))
def test_segments_are_whole_granules_of_the_extents_and_no_slot_is_had_twice(page_size, seed):
    rng = random.Random(seed)
    space = LogSpace(page_size)
    granule, at = space.granule, first_slot(page_size)
    for granules in (7, 1, 12, 40):
        space.add(SlotRun(at, granules * granule))
        at += granules * granule + rng.choice((0, 1, granule, 5 * granule))
    mine: dict[int, SlotRun] = {}
    for _ in range(400):
        if rng.random() < 0.55:
            asked = rng.choice((1, 1, 2, 3, 20))
            if not space.free_granules:
                with pytest.raises(BlobStoreIOError):
                    space.allocate(asked)
                continue
            segment = space.allocate(asked)
            assert space.owns(segment)
            assert segment.slots % granule == 0
            assert granule <= segment.slots <= asked * granule
            mine[segment.slot] = segment
        elif mine:
            space.free(mine.pop(rng.choice(list(mine))))
        slots = [slot for segment in mine.values() for slot in range(segment.slot, segment.end)]
        assert len(slots) == len(set(slots))
        assert space.free_granules == space.capacity - len(slots) // granule == 60 - len(slots) // granule
    for segment in mine.values():
        space.free(segment)
    assert space._free == space.extents, "what was given back became whole again"


def space_of(*extents, used=()):
    """Return log space of frames of 64 KiB, where a slot is a granule."""
    return LogSpace(
        64 * KIB, [SlotRun(*extent) for extent in extents], [SlotRun(*segment) for segment in used]
    )


def test_a_segment_is_cut_out_of_the_first_run_that_has_it_or_else_is_the_longest_there_is():
    space = space_of((1, 2), (10, 4), (20, 9))
    assert space.allocate(3) == SlotRun(10, 3)
    assert space.allocate(7) == SlotRun(20, 7)
    assert space.allocate(7) == SlotRun(1, 2), "the first of the longest"
    assert space.allocate(7) == SlotRun(27, 2)
    assert space.allocate(7) == SlotRun(13, 1)


def test_log_space_that_is_used_up_says_so_and_hands_out_nothing():
    space = space_of((1, 2))
    assert space.allocate(2) == SlotRun(1, 2)
    with pytest.raises(
        BlobStoreIOError, match="log space is used up: delete blobs, or give the disk more room"
    ) as e:
        space.allocate(1)
    assert e.value.errno == errno.ENOSPC
    assert (space.free_granules, space.capacity) == (0, 2)
    space.free(SlotRun(2, 1))
    assert space.allocate(5) == SlotRun(2, 1)


def test_extents_that_touch_are_one_in_whatever_order_they_come():
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1)):
        parts = [(1, 2), (3, 4), (7, 1)]
        space = space_of(*(parts[index] for index in order))
        assert space.extents == [SlotRun(1, 7)]
        assert space.capacity == space.free_granules == 7
        assert space.allocate(7) == SlotRun(1, 7), "one segment lies across what was added in parts"


def test_what_extents_would_be_with_one_more_changes_nothing_yet():
    space = space_of((1, 2), (10, 4))
    assert space.with_extent(SlotRun(3, 7)) == [SlotRun(1, 13)]
    assert space.with_extent(SlotRun(5, 1)) == [SlotRun(1, 2), SlotRun(5, 1), SlotRun(10, 4)]
    assert space.extents == [SlotRun(1, 2), SlotRun(10, 4)]
    assert space.capacity == space.free_granules == 6


def test_an_extent_beside_a_segment_in_use_grows_what_is_free_only():
    space = space_of((1, 4), used=[(1, 1), (4, 1)])
    assert space.free_granules == 2
    space.add(SlotRun(5, 3))
    assert (space.free_granules, space.capacity) == (5, 7)
    assert space.allocate(3) == SlotRun(5, 3)
    assert space.allocate(3) == SlotRun(2, 2)


def test_a_log_in_use_is_not_handed_out_and_what_is_no_log_space_is_not_taken_back():
    space = space_of((1, 6), (20, 1), used=[(2, 1), (4, 2)])
    assert space.free_granules == 4
    assert sorted(space.allocate(1).slot for _ in range(4)) == [1, 3, 6, 20]
    for stranger in ((0, 1), (6, 2), (7, 1), (19, 2), (1, 20)):
        with pytest.raises(AssertionError, match="is no log space"):
            space.free(SlotRun(*stranger))
    with pytest.raises(AssertionError, match="is not free log space"):
        LogSpace(64 * KIB, [SlotRun(1, 2)], [SlotRun(2, 2)])
