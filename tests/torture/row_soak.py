"""Row 18: the soak, for as long as its time lasts."""

from __future__ import annotations

from soak.load import Footprint, openings
from soak.test_soak import RSS_SLACK_BYTES, WARM_UP
from torture.rows import Lot, row


@row(
    18,
    "soak: mixed load, random reopening, memory and descriptors watched",
    unit="openings",
    ci="280 openings, 330 lives with faults",
    release="24 h",
    share=1,
    lots=2,
)
def soak(lot: Lot):
    engine = ("io_uring", "pread")[lot.shard % 2]
    life = openings(str(lot.directory / f"soak-{engine}.blobs"), engine, seed=lot.seed)
    for _ in range(WARM_UP):
        next(life)
    before = Footprint.now()
    for calls in life:
        yield {"openings": 1, "calls": calls}
        before.assert_flat(Footprint.now(), rss_bytes=RSS_SLACK_BYTES)
        if lot.left() <= 0:
            return
