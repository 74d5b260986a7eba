"""Rows 2 to 4: power cuts, at random, exhaustively, and during recovery."""

from __future__ import annotations

from sim.rig import torture
from sim.test_crash import options_of
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
        yield {"disk images": torture(seed, **options_of(seed))}
