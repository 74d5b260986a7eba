"""Every order of completions of small commits, and each way in which their groups are handed over (row 3)."""

from __future__ import annotations

import pytest

from monitor import install
from sim.hand_overs import Case, cases_of, explored, image_of
from sim.planted_flat import (
    acknowledged_when_its_writes_have_landed,
    groups_end_taken_twice,
    log_position_moved_twice,
    log_position_not_moved,
    short_write_counted_as_whole_by_its_group,
    sync_asked_for_before_the_last_write_has_landed,
    sync_of_a_small_group_believed_though_it_failed,
)

pytestmark = pytest.mark.one_interpreter

#: Calls that join behind, and a batch with a flush of its own, whose requests have more orders.
JOINING = [Case(("one",), event=(name, 0)) for name in ("large", "put", "synced")]
OVERLAPPED = [
    Case(("one", "synced")),
    *(Case(("one", "synced"), ("sync", number, "failed")) for number in range(2)),
    *(Case(("one", "synced"), ("write", number, how)) for number in range(3) for how in ("short", "failed")),
]

#: Each is a way in which a group went on, by the census of :mod:`sim.flat`.
HAND_OVERS = [
    "begun",
    "durable",
    "short",
    "failed",
    "its block",
    "by a coroutine",
    "by a coroutine: no room",
    "by a coroutine: poisoned, or a repair is due",
    "not synced: a write, or another sync",
    "not synced: poisoned",
    "synced: failed",
    "synced: overlapped",
]


def test_every_order_of_every_hand_over(count_row):
    events = ("close", "cancel 0", "cancel 1", "drop", "flush")
    figures, seen = explored(cases_of(("one", "two"), events=events), JOINING, OVERLAPPED)
    assert not [way for way in HAND_OVERS if not seen[way]], seen
    for name in (*events, "large", "put", "synced"):
        assert figures[f"{name} at some step"], f"no {name} came before a completion"
    assert figures["orders"] > 500
    count_row(3, **{f"hand-overs: {name}": number for name, number in figures.items()})


@pytest.mark.parametrize(
    "bug",
    [
        log_position_not_moved,
        log_position_moved_twice,
        sync_asked_for_before_the_last_write_has_landed,
        acknowledged_when_its_writes_have_landed,
        short_write_counted_as_whole_by_its_group,
        sync_of_a_small_group_believed_though_it_failed,
        groups_end_taken_twice,
    ],
    ids=lambda bug: bug.__name__,
)
def test_finds(bug):
    """By the rig or by the order monitor, as the hunts of :mod:`sim.test_canaries` do."""
    for groups, blocks in ((0, 16), (0, 4), (1, 4), (2, 4)):
        image_of(groups, blocks)  # before the bug: the store would find its own log overwritten
    found = False
    with bug():
        try:
            explored(cases_of(("one", "two"), events=()))
        except AssertionError:
            found = True
        assert install.take() or found
