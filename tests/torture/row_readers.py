"""Row 21: readers beside a writer, on the simulated disk and as processes."""

from __future__ import annotations

import os

from behaviour.test_readers import kill_both_ways
from conftest import why_no_uring
from sim.readers import live
from torture.rows import Lot, row

KILLS_AT_ONCE = 10


@row(
    21,
    "readers beside a writer, simulated: kills, compactions, reopening, power cuts",
    unit="states looked at",
    ci="960",
    release=1_000_000,
)
def simulated(lot: Lot):
    for seed in lot.seeds():
        life = live(seed)
        yield {"states looked at": len(life.seen), "simulated kills": life.kills, "power cuts": life.cuts}


@row(21, "readers and a writer as processes, killed", unit="kills", ci="8", release=10_000)
def processes(lot: Lot):
    for seed in lot.seeds():
        for engine in ["pread"] if why_no_uring() else ["io_uring", "pread"]:
            path = str(lot.directory / f"store-{seed}-{engine}")
            looks = kill_both_ways(path, engine, KILLS_AT_ONCE)
            os.unlink(path)
            yield {"kills": 2 * KILLS_AT_ONCE, "looks": looks}
