"""Rows 2 to 4: power cuts, at random, exhaustively, and during recovery."""

from __future__ import annotations

import itertools

from sim.exhaustive import exhaust, sequences
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
