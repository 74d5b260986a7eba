"""A request that takes its time, on simulated time: who waits for it, and who goes on."""

from __future__ import annotations

import collections
import random

from sim.judging import recover
from sim.lives import Life, small_log, used_image
from uringblob.testing.sim.disk import Fault


class Slow:
    """Every ``every``-th request from the ``first`` on takes ``delay_s`` seconds."""

    def __init__(self, first: int, every: int, delay_s: float) -> None:
        self.first = first
        self.every = every
        self.fault = Fault(delay_s=delay_s)
        self.struck: collections.Counter = collections.Counter()

    def __call__(self, index: int, kind: str) -> Fault | None:
        if index < self.first or (index - self.first) % self.every:
            return None
        self.struck[kind] += 1
        return self.fault


def slow_life(seed: int, delay_s: float, *, every: int | None = None) -> collections.Counter:
    """Live with slow requests: nothing fails, nothing is lost, nothing in flight is used by others.

    The disk itself raises where a second write goes to a place with one in flight, and where the
    memory of a write in flight has changed.
    """
    rng = random.Random(seed)
    slow = Slow(rng.randrange(6), every or rng.choice((1, 3, 10, 50)), delay_s)
    with small_log(seed=seed):
        life = Life(used_image(24), rng, faults=slow, tasks=4, calls=16, compactions=0.1)
        try:
            life.run()
            assert not life.errors, life.errors
            assert life.loop.time() >= delay_s
            assert recover(life.disk.live, None) == life.last
            for moment in life.moments[:: max(1, len(life.moments) // 20)]:
                recover(moment.image, moment.known)
        except Exception as error:
            raise AssertionError(f"{error!r}\nreplay: slow_life seed={seed} {delay_s=} {every=}") from error
    return collections.Counter({"lives": 1, "slow requests": sum(slow.struck.values())})
