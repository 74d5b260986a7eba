"""Rows 2 to 4: power cuts, at random, exhaustively, and during recovery."""

from __future__ import annotations

import itertools

from sim.exhaustive import exhaust, sequences
from sim.hand_overs import cases_of, explored
from sim.power_cuts import options_of, relapses, torture
from torture.rows import Lot, row


@row(
    2,
    "power cut: any subset of the un-flushed writes, torn",
    unit="disk images",
    ci="100,000",
    release=10_000_000,
    share=6,
    lots=2,
)
def power_cuts(lot: Lot):
    for seed in lot.seeds():
        yield torture(seed, **options_of(seed))


@row(
    3,
    "the same, exhaustively: every sequence of up to four operations",
    unit="sequences",
    ci="every sequence of up to 3",
    release="every sequence of up to 4",
    share=4,
    lots=4,
)
def every_sequence(lot: Lot):
    """Sequences that begin alike go together: they leave many an image in common."""
    kinds = [{"torn": True}, {"together": True}]
    places = itertools.product(range(4), (3, 4), kinds)
    alike = itertools.groupby(sorted(sequences(4)), key=lambda operations: operations[:2])
    families = [list(family) for _, family in alike]
    for (groups, segment_blocks, kind), family in lot.mine(itertools.product(places, families)):
        figures = exhaust(family, groups=groups, segment_blocks=segment_blocks, **kind)
        figures.pop("most un-flushed")
        yield figures


@row(
    3,
    "small commits in every order of completions: each request failing, each event before each completion",
    unit="orders",
    ci="every order of two commits",
    release="every order of three calls, two completing at once, and a compaction",
    share=2,
    lots=2,
)
def every_order(lot: Lot):
    events = (
        "close",
        "close_now",
        "cancel 0",
        "cancel 1",
        "drop",
        "flush",
        "put",
        "large",
        "synced",
        "compaction",
    )
    calls = [("one",), ("one", "two"), ("one", "synced"), ("one", "two", "another"), ("one", "two", "synced")]
    cases = [
        (case, pairs) for pairs in (False, True) for some in calls for case in cases_of(some, events=events)
    ]
    for case, pairs in lot.mine(cases):
        if case.event is None or case.event[0] != "cancel 1" or len(case.calls) > 1:
            figures, _ = explored([case], pairs=pairs)
            yield figures


@row(
    4,
    "power cut during recovery, and during that recovery",
    unit="disk images",
    ci="10,000",
    release=1_000_000,
    share=3,
    lots=2,
)
def cuts_during_recovery(lot: Lot):
    for seed in lot.seeds():
        yield relapses(seed)
