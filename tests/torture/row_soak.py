"""Row 18: the soak, for as long as its time lasts."""

from __future__ import annotations

from sim.rig import life_with_faults
from soak.load import Footprint, openings
from soak.test_soak import RSS_SLACK_BYTES, WARM_UP
from torture.rows import Lot, row


@row(
    18,
    "soak: mixed load, random faults, random reopening, memory and descriptors watched",
    unit="openings",
    ci="280 openings, 330 lives with faults",
    release="24 h",
    share=1,
    lots=3,
    unobserved="the monitor's own memory would be measured",
)
def soak(lot: Lot):
    work = (_real("io_uring"), _real("pread"), _simulated)[lot.shard % 3](lot)
    for _ in range(WARM_UP):
        next(work)
    before = Footprint.now()
    for counts in work:
        yield counts
        before.assert_flat(Footprint.now(), rss_bytes=RSS_SLACK_BYTES)


def _real(engine: str):
    """Mixed load and random reopening on a real disk."""

    def work(lot: Lot):
        for calls in openings(str(lot.directory / f"soak-{engine}.blobs"), engine, seed=lot.seed):
            yield {"openings": 1, "calls": calls}

    return work


def _simulated(lot: Lot):
    """The same with random faults, several in a life, on the simulated disk."""
    for seed in lot.seeds():
        yield {"openings": 1, "faults met": life_with_faults(seed)}
