"""Row 17: a disk that takes a second, or hangs for half a minute, on simulated time."""

from __future__ import annotations

from sim.slow import slow_life
from torture.rows import Lot, row


@row(
    17,
    "a disk that takes 1 s, and one that hangs 30 s, per request (simulated time)",
    unit="lives",
    ci="80 lives",
    release=100,
    share=0.3,
)
def slow_disks(lot: Lot):
    for seed in lot.seeds():
        yield slow_life(seed, (1.0, 30.0)[seed % 2])
