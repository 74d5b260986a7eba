"""Row 19: overwriting and deleting without end; full disks emptied, refilled, and emptied for good."""

from __future__ import annotations

import random

from sim.space_use import KIB, MIB, churn_simulated, full_disk_simulated
from torture.rows import Lot, row


@row(
    19,
    "overwriting and deleting without end: the file stays within 1.25 times what is live",
    unit="frames replaced",
    ci="200,000 of 4 KiB, 70,000 of 64 KiB",
    release=10_000_000,
)
def overwriting(lot: Lot):
    for seed in lot.seeds():
        dice = random.Random(seed)
        page_size = dice.choice((4, 4, 8, 64, 64, 128, 512, 4096)) * KIB
        live = dice.randrange(16, max(32, min(20_000, 128 * MIB // page_size)))
        operations = dice.choice((3_000, 30_000 if page_size <= 64 * KIB else 6_000))
        yield {"frames replaced": churn_simulated(seed, page_size, live, operations)}


@row(
    19,
    "a full disk is emptied and refilled in any order; deletes on it beside compaction",
    unit="full disks",
    ci="35",
    release=10_000,
)
def full_disks(lot: Lot):
    for seed in lot.seeds():
        dice = random.Random(seed)
        page_size = dice.choice((4, 4, 8, 64, 128, 512)) * KIB
        frames = dice.randrange(100, 4_000 if page_size <= 8 * KIB else 600)
        yield full_disk_simulated(seed, page_size, frames, a_commit=dice.choice((1, 7, 100, 100_000)))
