"""Row 30: stores in a bucket, on the simulated one."""

from __future__ import annotations

from remote import lives, steps
from torture.rows import Lot, row

PROMISE = "a bucket that loses, delays and repeats requests; machines asleep or dead at any request"


@row(30, PROMISE, unit="lives", ci="40 lives", release=20_000, share=1, lots=2)
def remote_lives(lot: Lot):
    for seed in lot.seeds():
        lives.Life(seed, (0.05, 0.15, 0.3)[seed % 3]).run()
        yield {"lives": 1}


@row(30, PROMISE, unit="steps", ci="a fifth", release="every step", share=0.5, lots=2)
def remote_steps(lot: Lot):
    for _, step in lot.mine(list(steps.every_step())):
        step()
        yield {"steps": 1}
