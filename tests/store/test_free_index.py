"""The index of free slots: it misses none, and it does not walk over the taken ones."""

from __future__ import annotations

import random

import pytest

from uringblob.store.format import Segment
from uringblob.store.free_index import CHUNK_SLOTS, FreeIndex
from uringblob.store.slots import SlotState, SlotTable

LIVE = int(SlotState.LIVE)


class Counted(bytearray):
    """Slots' states that know how many of them were searched."""

    searched = 0

    def find(self, what, begin, end):
        found = super().find(what, begin, end)
        self.searched += (min(end, len(self)) if found < 0 else found + 1) - begin
        return found


@pytest.mark.parametrize("seed", range(20))
def test_the_lowest_free_slot_is_the_one_that_a_walk_finds(seed):
    rng = random.Random(seed)
    states = bytearray(rng.randrange(3 * CHUNK_SLOTS))
    index = FreeIndex(states)
    for step in range(400):
        action = rng.randrange(4)
        if action == 0:
            begin = rng.randrange(len(states) + 1)
            part = range(begin, min(len(states), begin + rng.choice((1, 50, 2 * CHUNK_SLOTS))))
            for slot in part:
                states[slot] = LIVE
        elif action == 1 and states:
            slot = rng.randrange(len(states))
            states[slot] = 0
            index.freed(slot)
        elif action == 2 and len(states) < 8 * CHUNK_SLOTS:
            states.extend(bytes(rng.choice((1, 7, CHUNK_SLOTS))))
            index.grown()
        assert index.lowest() == states.find(0), f"seed {seed}, step {step}"


def test_a_commit_in_a_large_store_searches_no_more_than_one_stretch():
    states = Counted([LIVE] * (200 * CHUNK_SLOTS))
    index = FreeIndex(states)
    assert index.lowest() == -1
    states.searched = 0
    low, high = 5, 199 * CHUNK_SLOTS + 17
    for _ in range(10):  # the lowest slot is free, or the only one lies behind all others
        for slot in (low, high):
            states[slot] = 0
            index.freed(slot)
            assert index.lowest() == slot
            states[slot] = LIVE
    assert states.searched <= 2 * 10 * CHUNK_SLOTS + CHUNK_SLOTS


def test_a_table_hands_out_what_was_freed_behind_two_million_slots():
    slots = SlotTable(2, 2_000_000)
    slots.claim_all(range(2, 2_000_000), SlotState.LIVE)
    assert slots.find_run(1) is None
    slots.retire(1_999_990, fence=0)
    assert slots.take_run(1, SlotState.WRITING) == Segment(1_999_990, 1)
    slots.extend(2_000_003)
    assert slots.take_run(3, SlotState.WRITING) == Segment(2_000_000, 3)
    assert slots.find_run(1) is None
