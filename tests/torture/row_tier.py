"""Row 27: a tier before a bucket, with the power cut at any step of either."""

from __future__ import annotations

import logging

from tiered.test_lives import live_on
from torture.rows import Lot, row


@row(
    27,
    "a tier before a bucket: the power is cut at any step, requests are lost, late and repeated",
    unit="lives",
    ci="64 random lives, and every step of a small one",
    release=10_000,
    share=1,
    lots=2,
)
def tiers(lot: Lot):
    logging.getLogger("uringblob").disabled = True  # uploads fail by the hundred
    for seed in lot.seeds():
        world = live_on(seed, actors=2 + seed % 4)
        yield {"lives": world.lives, "groups judged": world.groups, "power cuts": world.cuts}
