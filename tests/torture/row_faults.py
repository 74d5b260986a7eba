"""Rows 5 to 7 on the simulated disk: failing requests, failing fsyncs, no space."""

from __future__ import annotations

import itertools
import random

from sim.faulty import FAULTS, life_with_fault, life_with_faults
from sim.lives import PAGE, small_log
from sim.test_full_disk import check_level
from torture.rows import Lot, row
from uringblob.testing.sim.store import new_image


def sweep(seed: int, name: str, **options) -> int:
    """Let each request of a seed's life fail in its turn; returns how many there are."""
    return next(i for i in itertools.count() if not life_with_fault(seed, name, i, used=True, **options))


@row(
    5,
    "every errno and short count at every request of a life, once and from then on; two or three at once",
    unit="faults",
    ci="every index of one life, 150 compound lives",
    release=100_000,
    share=2,
)
def failing_requests(lot: Lot):
    for seed in lot.seeds():
        rng = random.Random(seed)
        options = {
            "calls": rng.choice((8, 14, 24)),
            "tasks": rng.choice((1, 3, 5)),
            "guids": rng.choice((3, 5, 9)),
        }
        name, forever = rng.choice(sorted(FAULTS)), rng.random() < 0.5
        yield {"faults": sweep(seed, name, forever=forever, **options), "lives swept": 1}
        for compound in range(seed * 20, seed * 20 + 20):
            yield {"faults": life_with_faults(compound, **options), "lives with several": 1}


@row(6, "an fsync fails, at every index", unit="failed fsyncs", ci="every index", release=20_000)
def failing_fsyncs(lot: Lot):
    for seed in lot.seeds():
        for name, forever in itertools.product(("EIO", "ENOSPC", "EDQUOT", "EINTR"), (False, True)):
            swept = sweep(seed, name, forever=forever, kinds=("sync",), calls=20, compactions=0.1)
            yield {"failed fsyncs": swept}


@row(7, "no space, at every 4 KiB step around the edge", unit="levels", ci="64", release=1024, share=0.7)
def full_disks(lot: Lot):
    """Two ways of refusing, three lengths of the log's segments, and more blobs the more room there is."""
    for sparse, blocks, level in lot.mine(itertools.product((False, True), (8, 16, 64), range(30, 201))):
        with small_log(segment_bytes=blocks * PAGE):
            check_level(new_image(PAGE), level, sparse=sparse, rounds=40, deep=True)
        yield {"levels": 1}
