"""The slot life cycle: every pair of states, the fences, and who gets which run."""

from __future__ import annotations

import itertools
import random

import pytest

from uringblob.store.format import SlotRun
from uringblob.store.index.free_map import CHUNK_SLOTS, RUN_SLOTS_MAX
from uringblob.store.index.slot_states import MOVES, SlotState
from uringblob.store.index.slots import SlotTable

S = SlotState
#: How to bring a fresh slot into each state.
PATHS = {
    S.FREE: [],
    S.WRITING: [S.WRITING],
    S.PENDING: [S.WRITING, S.PENDING],
    S.LIVE: [S.WRITING, S.LIVE],
    S.RETIRED: [S.WRITING, S.LIVE, S.RETIRED],
    S.LOG: [S.LOG],
    S.BAD: [S.WRITING, S.BAD],
    S.HOLE: [S.HOLE],
}


def table(slots=16):
    return SlotTable(2, slots)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(S, S)))
def test_every_move_is_in_the_table_or_refused(before, after):
    slots = table()
    for state in PATHS[before]:
        slots.move(5, state)
    if after in MOVES[before]:
        slots.move(5, after)
        assert slots.state(5) is after
    else:
        with pytest.raises(AssertionError, match="not in the table"):
            slots.move(5, after)


def test_counts_add_up_whatever_happens():
    slots = table()
    slots.allocate_run(3, S.WRITING)
    slots.move(2, S.LIVE)
    slots.retire(2, fence=9)
    slots.extend(20)
    assert sum(slots.count(state) for state in S) == 18
    assert slots.count(S.RETIRED) == 1


def test_runs_are_contiguous_and_lowest_first():
    slots = table()
    assert slots.allocate_run(4, S.WRITING) == SlotRun(2, 4)
    assert slots.allocate_run(2, S.WRITING) == SlotRun(6, 2)
    slots.move_run(SlotRun(3, 1), S.FREE)
    assert slots.allocate_run(2, S.WRITING) == SlotRun(8, 2)
    assert slots.allocate_run(1, S.WRITING) == SlotRun(3, 1)


def brought_to(states, beyond):
    """Return a table with slots 5, 6, ... in ``states``, and maybe with one past the file's end."""
    slots = table()
    if beyond:
        assert slots.mark_used(20, S.LIVE)
    for slot, state in enumerate(states, 5):
        for step in PATHS[state]:
            slots.move(slot, step)
    return slots


RUNS = [([before] * 4, after) for before in S for after in MOVES[before]]
MIXED = ([S.WRITING, S.PENDING, S.WRITING, S.WRITING], S.LIVE)


@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize(("states", "to"), [*RUNS, MIXED])
def test_a_run_moves_as_its_slots_would_one_by_one(states, to, beyond):
    together, one_by_one = brought_to(states, beyond), brought_to(states, beyond)
    together.move_run(SlotRun(5, 4), to)
    for slot in range(5, 9):
        one_by_one.move(slot, to)
    assert [together.state(slot) for slot in range(21)] == [one_by_one.state(slot) for slot in range(21)]
    assert [together.count(state) for state in S] == [one_by_one.count(state) for state in S]
    assert together.allocate_run(1, S.WRITING) == one_by_one.allocate_run(1, S.WRITING)


@pytest.mark.parametrize("state", [S.LIVE, S.BAD])
def test_a_run_that_may_not_move_stays_whole(state):
    slots = brought_to([state] * 4, beyond=False)
    with pytest.raises(AssertionError, match="slot 5: "):
        slots.move_run(SlotRun(5, 4), S.WRITING)
    assert [slots.state(slot) for slot in range(5, 9)] == [state] * 4


def test_a_freed_run_across_chunks_of_the_index_is_found_again():
    slots = SlotTable(2, 3 * CHUNK_SLOTS)
    (run,) = slots.allocate_runs(3 * CHUNK_SLOTS - 2, S.WRITING)
    assert slots.allocate_run(1, S.WRITING) is None
    slots.move_run(SlotRun(CHUNK_SLOTS - 1, CHUNK_SLOTS + 2), S.FREE)
    for slot in range(CHUNK_SLOTS - 1, 2 * CHUNK_SLOTS + 1):
        assert slots.allocate_run(1, S.WRITING) == SlotRun(slot, 1)
    assert slots.allocate_run(1, S.WRITING) is None
    assert run.slots == slots.count(S.WRITING)


def test_a_run_longer_than_a_search_finds_is_allocated_in_one_run_if_it_is_free():
    slots = SlotTable(2, 3 * CHUNK_SLOTS)
    assert slots.allocate_run(RUN_SLOTS_MAX + 1, S.WRITING) is None
    assert slots.allocate_runs(2 * RUN_SLOTS_MAX + 5, S.WRITING) == [SlotRun(2, 2 * RUN_SLOTS_MAX + 5)]


def test_a_run_marked_used_leaves_the_slots_below_the_first_and_is_not_allocated():
    slots = table(10)
    slots.mark_run_used(SlotRun(0, 5), S.LOG)
    assert [slots.state(slot) for slot in range(6)] == [S.BAD] * 2 + [S.LOG] * 3 + [S.FREE]
    assert (slots.count(S.LOG), slots.count(S.FREE)) == (3, 5)
    assert slots.allocate_run(5, S.WRITING) == SlotRun(5, 5)


def test_what_a_log_may_have_to_name_is_what_lives_what_waits_and_what_is_being_written():
    slots = table()
    for slot, state in enumerate(S, 2):
        for step in PATHS[state]:
            slots.move(slot, step)
    assert slots.named == 3


def test_without_a_run_there_are_pieces():
    slots = table(10)
    slots.allocate_run(8, S.WRITING)
    for slot in (2, 3, 5, 7, 8):
        slots.move(slot, S.FREE)
    assert slots.allocate_run(3, S.WRITING) is None
    pieces = slots.allocate_runs(5, S.WRITING)
    assert pieces == [SlotRun(2, 2), SlotRun(7, 2), SlotRun(5, 1)], "the longest first, and none cut in two"
    assert slots.count(S.FREE) == 0


@pytest.mark.parametrize("seed", range(10))
def test_pieces_are_whole_free_runs_until_the_last_and_no_slot_comes_twice(seed):
    rng = random.Random(seed)
    slots = SlotTable(2, 2 * CHUNK_SLOTS)
    (everything,) = slots.allocate_runs(slots.count(S.FREE), S.WRITING)
    at = everything.slot
    while at < everything.end:
        end = min(everything.end, at + rng.choice((1, 1, 2, 3, 9, 130)))
        if rng.random() < 0.5:
            slots.move_run(SlotRun(at, end - at), S.FREE)
        at = end
    free = slots.count(S.FREE)
    asked = rng.randint(1, free)
    pieces = slots.allocate_runs(asked, S.WRITING)
    assert sum(piece.slots for piece in pieces) == asked
    assert slots.count(S.FREE) == free - asked
    taken = [slot for piece in pieces for slot in range(piece.slot, piece.end)]
    assert len(set(taken)) == asked
    for piece in pieces[:-1]:
        assert slots.state(piece.end) is not S.FREE, "a run was cut though more was asked for"


def live(slots):
    run = slots.allocate_run(1, S.WRITING)
    slots.move(run.slot, S.LIVE)
    return run.slot


def test_a_superseded_slot_waits_until_its_group_is_not_the_last():
    slots = table()
    slot = live(slots)
    slots.retire(slot, fence=5)
    slots.confirm(4)
    assert slots.state(slot) is S.RETIRED
    assert slots.awaiting_group == 1
    slots.confirm(5)
    assert slots.state(slot) is S.FREE
    assert slots.awaiting_group == 0


@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize("held", [[], [6]])
@pytest.mark.parametrize("confirmed", [3, 4, 5])
def test_slots_retire_together_as_they_would_one_by_one(beyond, held, confirmed):
    together, one_by_one = (brought_to([S.LIVE] * 3 + [S.PENDING], beyond) for _ in range(2))
    for slots in together, one_by_one:
        for slot in held:
            slots.hold(slot)
        slots.confirm(confirmed)
    together.retire_each([7, 5, 6, 8], fence=4)
    for slot in 7, 5, 6, 8:
        one_by_one.retire(slot, fence=4)
    for then in (
        lambda slots: None,
        lambda slots: slots.confirm(4, at_most=2),
        lambda slots: slots.confirm(4),
        lambda slots: [slots.release(slot) for slot in held],
    ):
        then(together)
        then(one_by_one)
        assert [together.state(slot) for slot in range(21)] == [one_by_one.state(slot) for slot in range(21)]
        assert [together.count(state) for state in S] == [one_by_one.count(state) for state in S]
        assert (together.named, together.held, together.awaiting_group) == (
            one_by_one.named,
            one_by_one.held,
            one_by_one.awaiting_group,
        )
    assert together.allocate_run(3, S.WRITING) == one_by_one.allocate_run(3, S.WRITING)


def test_slots_that_a_group_frees_are_found_as_the_run_that_they_make():
    slots = table()
    taken = slots.allocate_run(14, S.WRITING)
    slots.move_run(taken, S.LIVE)
    assert slots.allocate_run(1, S.WRITING) is None  # it has learned that nothing is free
    slots.retire_each(range(4, 12), fence=1)
    slots.confirm(1)
    assert slots.allocate_run(8, S.WRITING) == SlotRun(4, 8)


def test_a_slot_that_may_not_retire_is_refused_among_others():
    slots = brought_to([S.LIVE, S.WRITING], beyond=False)
    with pytest.raises(AssertionError, match="slot 6: WRITING -> RETIRED is not in the table"):
        slots.retire_each([5, 6], fence=1)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("to", S)
def test_free_slots_are_allocated_as_they_move_one_by_one(count, to):
    together, one_by_one = table(), table()
    if to not in MOVES[S.FREE]:
        with pytest.raises(AssertionError, match="slot 2: FREE -> "):
            together.allocate_run(count, to)
        to = S.FREE
    else:
        assert together.allocate_run(count, to) == SlotRun(2, count)
        for slot in range(2, 2 + count):
            one_by_one.move(slot, to)
    assert [together.state(slot) for slot in range(16)] == [one_by_one.state(slot) for slot in range(16)]
    assert [together.count(state) for state in S] == [one_by_one.count(state) for state in S]
    assert together.named == one_by_one.named


def test_a_held_slot_waits_for_its_last_reader():
    slots = table()
    slot = live(slots)
    slots.pin(slot)
    slots.pin(slot)
    slots.retire(slot, fence=0)
    slots.unpin(slot)
    assert slots.state(slot) is S.RETIRED
    slots.unpin(slot)
    assert slots.state(slot) is S.FREE


def test_both_fences_must_pass_in_either_order():
    slots = table()
    slot = live(slots)
    slots.pin(slot)
    slots.retire(slot, fence=3)
    slots.unpin(slot)
    assert slots.state(slot) is S.RETIRED
    slots.confirm(3)
    assert slots.state(slot) is S.FREE


def test_slots_past_the_end_are_known_and_never_handed_out():
    slots = table(8)
    assert slots.mark_used(11, S.LIVE)
    assert not slots.mark_used(11, S.LIVE)
    assert slots.beyond == {11: S.LIVE}
    slots.extend(16)
    taken = slots.allocate_runs(slots.count(S.FREE), S.WRITING)
    assert all(not run.slot <= 11 < run.slot + run.slots for run in taken)
    slots.retire(11, fence=0)
    assert slots.state(11) is S.FREE
    assert not slots.beyond


def test_claims_refuse_the_superblocks_and_slots_that_are_taken():
    slots = table()
    assert not slots.mark_used(0, S.LIVE)
    assert not slots.mark_used(1, S.LOG)
    assert slots.mark_used(2, S.LIVE)
    assert not slots.mark_used(2, S.LOG)


def test_claiming_many_slots_is_claiming_each():
    """The loop that opens large stores repeats what claim does: inside the file, beyond its end, taken."""
    one, many = SlotTable(1, 8), SlotTable(1, 8)
    wanted = [3, 7, 9, 1, 3, 5]
    marked = list(itertools.takewhile(lambda slot: one.mark_used(slot, SlotState.LIVE), wanted))
    assert many.mark_all_used(wanted, SlotState.LIVE) == len(marked) == 4
    for slot in range(12):
        assert many.state(slot) == one.state(slot)
    assert [many.count(state) for state in SlotState] == [one.count(state) for state in SlotState]
    assert many.mark_all_used([0], SlotState.LIVE) == 0


# ---- readers in other processes -------------------------------------------------------------------


def kept_for(slots, readers):
    """Have ``slots`` ask ``readers``, the states that are read."""
    asked = []

    def none_between(low, high):
        asked.append((low, high))
        return not any(low <= at < high for at in readers)

    slots.none_between = none_between
    return asked


def superseded(slots, fence):
    slots.move(5 + fence, S.WRITING)
    slots.move(5 + fence, S.LIVE)
    slots.retire(5 + fence, fence)


def test_a_slot_is_kept_while_a_reader_is_at_a_state_before_its_group():
    slots, readers = table(), [2]
    asked = kept_for(slots, readers)
    for fence in (2, 3, 4):
        superseded(slots, fence)
    slots.confirm(4)
    assert slots.state(7) is S.FREE  # a reader after group 2 does not have it
    assert [slots.state(slot) for slot in (8, 9)] == [S.RETIRED, S.RETIRED]
    assert slots.kept == 2
    assert slots.awaiting_group == 0
    asked.clear()
    slots.confirm(5)
    assert asked == [(0, 3)], "one question, however many are kept"
    readers[:] = [3]
    slots.confirm(5)
    slots.confirm(5)
    assert (slots.state(8), slots.state(9), slots.kept) == (S.FREE, S.RETIRED, 1)
    readers.clear()
    slots.confirm(5)
    assert slots.kept == 0
    asked.clear()
    superseded(slots, 0)
    assert asked == [], "no record named it, so no other process reads it"


def test_an_answer_that_nobody_is_below_is_not_asked_for_again():
    slots = table()
    asked = kept_for(slots, [])
    superseded(slots, 3)
    slots.confirm(3)
    superseded(slots, 2)
    assert asked == [(0, 3)]


def reborn(slots, slot, birth, fence):
    """Group ``birth`` names ``slot``, and group ``fence`` supersedes it."""
    slots.move(slot, S.WRITING)
    slots.move(slot, S.LIVE)
    if slots.births is not None:
        slots.births[slot] = birth
    slots.retire(slot, fence)
    slots.confirm(fence)


def test_a_reader_keeps_only_what_its_state_shows():
    """It kept whatever was superseded since, so that beside one that stands still a file grew without end."""
    slots, readers = table(), [2]
    asked = kept_for(slots, readers)
    superseded(slots, 3)  # slot 8, named before anything was kept
    slots.confirm(3)
    assert slots.kept == 1
    for birth in range(4, 40, 2):
        reborn(slots, 9, birth, birth + 1)
        assert slots.state(9) is S.FREE, "no state that is read shows it"
    assert (slots.kept, slots.state(8)) == (1, S.RETIRED)
    readers.append(40)
    reborn(slots, 9, 40, 41)
    assert (slots.kept, slots.state(9)) == (2, S.RETIRED)
    readers.remove(2)
    slots.confirm(42)
    slots.confirm(42)
    assert (slots.state(8), slots.state(9)) == (S.FREE, S.RETIRED), "each as soon as its own readers are gone"
    readers.clear()
    slots.confirm(42)
    assert slots.kept == 0
    assert slots.births is None
    assert max(high for _, high in asked) == 41


def test_what_a_group_frees_is_asked_about_at_once():
    slots, readers = table(), [2]
    asked = kept_for(slots, readers)
    superseded(slots, 3)
    slots.confirm(3)
    for slot in range(9, 14):
        slots.move(slot, S.WRITING)
        slots.move(slot, S.LIVE)
        slots.births[slot] = slot - 5  # groups 4 to 8
        slots.retire(slot, 9)
    asked.clear()
    slots.confirm(9)
    assert asked == [*[(0, 3)] * 5, (4, 9)], "and as many kept slots as it supersedes are looked at"
    assert slots.kept == 1


def test_a_snapshot_that_ends_leaves_its_slot_to_the_readers():
    slots, readers = table(), [2]
    kept_for(slots, readers)
    slots.hold(8)
    superseded(slots, 3)
    slots.confirm(4)
    assert slots.held == 1
    slots.release(8)
    assert (slots.held, slots.kept) == (0, 1)
    readers.clear()
    slots.confirm(4)
    assert slots.state(8) is S.FREE


def test_at_an_opening_beside_an_older_reader_all_that_is_free_is_kept():
    slots, readers = SlotTable(2, 12), [2]
    kept_for(slots, readers)
    slots.mark_used(6, S.LIVE)
    slots.keep_all_free(7, 20)
    assert slots.count(S.FREE) == 0
    assert slots.kept == 9
    slots.extend(16)  # these slots were in the file, too
    assert (slots.count(S.FREE), slots.kept) == (0, 13)
    slots.extend(24)
    assert (slots.count(S.FREE), slots.kept) == (4, 17)
    readers[:] = [7]
    slots.confirm(8)
    assert slots.kept == 0
    assert slots.count(S.FREE) == 21
    assert slots.allocate_run(8, S.WRITING) == SlotRun(7, 8)


def test_a_table_is_cut_and_grows_again():
    slots = SlotTable(2, 2 * CHUNK_SLOTS)
    slots.allocate_run(3, S.WRITING)
    slots.move(CHUNK_SLOTS, S.HOLE)
    assert slots.unused_from() == 5
    slots.cut(5)
    assert (slots.limit, slots.count(S.FREE), slots.count(S.HOLE)) == (5, 0, 0)
    assert slots.allocate_run(1, S.WRITING) is None
    slots.extend(7)
    assert slots.allocate_run(2, S.WRITING) == SlotRun(5, 2)


def test_a_hole_is_not_handed_out_until_it_is_filled():
    slots = table(8)
    slots.move_run(SlotRun(2, 4), S.HOLE)
    assert slots.allocate_run(1, S.WRITING) == SlotRun(6, 1)
    assert slots.find_run(S.HOLE, 2, 8, 1, 3) == SlotRun(2, 3), "so many at most"
    assert slots.find_run(S.HOLE, 4, 8, 1, 3) == SlotRun(4, 2)
    assert slots.find_run(S.HOLE, 2, 8, 5, 9) is None, "so many at least"
    slots.move(3, S.FREE)
    assert slots.allocate_run(1, S.WRITING) == SlotRun(3, 1)


def test_a_walk_down_the_table_takes_so_many_live_slots_at_a_time():
    slots = table(66)
    slots.mark_run_used(SlotRun(2, 64), S.LIVE)
    seen, high = 0, 66
    while high > 2:
        low = slots.live_from(2, high, 10)
        assert 0 < high - low <= 10
        seen, high = seen + high - low, low
    assert seen == 64
    assert slots.live_from(2, 66, 64) == 2
