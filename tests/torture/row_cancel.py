"""Row 12: every coroutine cancelled at every await, of many more schedules than in CI."""

from __future__ import annotations

import itertools

from cancel.cases import CASES, MANNERS, sweep
from torture.rows import Lot, row

SCHEDULES = 200


@row(
    12,
    "a task cancelled at every await, before submission, in flight, after completion",
    unit="awaits cancelled",
    ci="every await of 5 schedules",
    release=f"every await of {SCHEDULES} schedules",
    share=1,
    lots=2,
)
def every_await(lot: Lot):
    first = lot.seed * SCHEDULES
    for seed, manner, name in lot.mine(itertools.product(range(first, first + SCHEDULES), MANNERS, CASES)):
        yield {"awaits cancelled": sweep(name, manner, seed), "schedules swept": 1}
