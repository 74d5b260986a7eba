"""The index of free slots: it misses none, and it does not walk over the taken ones."""

from __future__ import annotations

import random

import pytest

from uringblob.store.format import SlotRun
from uringblob.store.index.free_map import CHUNK_SLOTS, RUN_SLOTS_MAX, FreeMap
from uringblob.store.index.slot_states import SlotState
from uringblob.store.index.slots import SlotTable

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
    index = FreeMap(states)
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


def runs_of(states):
    """Yield every free run, as begin and length, by a walk."""
    begin = states.find(0)
    while begin >= 0:
        end = begin
        while end < len(states) and not states[end]:
            end += 1
        yield begin, end - begin
        begin = states.find(0, end)


def naive_lowest(states, count):
    return next((begin for begin, length in runs_of(states) if length >= count), -1)


#: Around each power of two, where a level changes, and around half and all of what is looked for.
COUNTS = sorted(
    {n for bit in range(RUN_SLOTS_MAX.bit_length()) for n in ((1 << bit) - 1, 1 << bit, (1 << bit) + 1)}
    & set(range(1, RUN_SLOTS_MAX + 1))
)


@pytest.mark.parametrize("seed", range(16))
def test_no_level_is_ever_too_low_whatever_is_taken_freed_and_grown(seed):
    """Searches are what lowers a level, so they come between all other steps, each for another length."""
    rng = random.Random(1000 + seed)
    states = bytearray([LIVE]) * (4 * CHUNK_SLOTS + rng.randrange(CHUNK_SLOTS))
    index = FreeMap(states)
    edges = [
        edge for chunk in range(1, 6) for edge in range(chunk * CHUNK_SLOTS - 2, chunk * CHUNK_SLOTS + 2)
    ]
    for step in range(150):
        where = rng.choice((*edges, *(rng.randrange(len(states)) for _ in edges))) % len(states)
        action = rng.randrange(5)
        if action <= 1:
            freed = {where, *rng.sample(edges, rng.choice((0, 0, 3)))}
            freed = [slot for slot in freed if slot < len(states)]
            rng.shuffle(freed)
            for slot in freed:
                states[slot] = 0
            index.freed(*freed)
        elif action == 2:
            end = min(len(states), where + rng.choice((1, 2, 30, 700, 2048, CHUNK_SLOTS, 6000)))
            states[where:end] = bytes(end - where)
            index.freed_run(where, end)
        elif action == 3:
            end = min(len(states), where + rng.choice((1, 1, 1, 40, 2000)))
            states[where:end] = bytes([LIVE]) * (end - where)
        elif rng.random() < 0.2 and len(states) < 7 * CHUNK_SLOTS:
            states.extend(bytes(rng.choice((1, 5, 3000))))
            index.grown()
        for count in rng.sample(COUNTS, 3):
            assert index.lowest(count) == naive_lowest(states, count), f"seed {seed}, {step=}, {count=}"


@pytest.mark.parametrize("count", [2, 3, 64, 101, 4095, RUN_SLOTS_MAX])
@pytest.mark.parametrize("before", [0, 1])
def test_the_one_slot_that_joins_two_chunks_makes_the_run_that_crosses_them(count, before):
    """It is the last of its chunk or the first of the next; the run's other slots lie on the other side."""
    last = CHUNK_SLOTS - before
    begin = last - count + 1 if not before else last
    states = bytearray([LIVE]) * (3 * CHUNK_SLOTS)
    index = FreeMap(states)
    assert index.lowest(1) == -1  # it has learned that nothing is free
    for slot in range(begin, begin + count):
        if slot != last:
            states[slot] = 0
            index.freed(slot)
    assert index.lowest(count) == -1
    states[last] = 0
    index.freed(last)
    assert index.lowest(count) == begin


def test_slots_freed_one_by_one_in_any_order_make_the_longest_run_there_can_be():
    states = bytearray([LIVE]) * (2 * CHUNK_SLOTS)
    index = FreeMap(states)
    begin = CHUNK_SLOTS // 2
    order = list(range(begin, begin + RUN_SLOTS_MAX))
    random.Random(3).shuffle(order)
    for slot in order:
        assert index.lowest(RUN_SLOTS_MAX) == -1
        states[slot] = 0
        index.freed(slot)
    assert index.lowest(RUN_SLOTS_MAX) == begin
    assert index.run_at(begin, 2 * RUN_SLOTS_MAX) == RUN_SLOTS_MAX
    assert index.run_at(begin, 7) == 7


def test_a_long_run_that_is_nowhere_is_searched_for_once_and_then_known_to_be_nowhere():
    """A store that deletes have fragmented: every second slot is free, and a batch wants 64 side by side."""
    states = Counted(bytes([LIVE, 0]) * (100 * CHUNK_SLOTS // 2))
    index = FreeMap(states)
    assert index.lowest(64) == -1
    states.searched = 0
    for _ in range(100):
        assert index.lowest(64) == -1
    assert states.searched == 0
    assert index.lowest(1) == 1
    assert index.lowest(2) == -1


def test_a_commit_in_a_large_store_searches_no_more_than_one_stretch():
    states = Counted([LIVE] * (200 * CHUNK_SLOTS))
    index = FreeMap(states)
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
    slots.mark_all_used(range(2, 2_000_000), SlotState.LIVE)
    assert slots.allocate_run(1, SlotState.WRITING) is None
    slots.retire(1_999_990, fence=0)
    assert slots.allocate_run(1, SlotState.WRITING) == SlotRun(1_999_990, 1)
    slots.extend(2_000_003)
    assert slots.allocate_run(3, SlotState.WRITING) == SlotRun(2_000_000, 3)
    assert slots.allocate_run(1, SlotState.WRITING) is None
