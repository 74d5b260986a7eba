"""Mutants of one victim, judged one after the other."""

from __future__ import annotations

import collections
import functools

from fuzz.hostile import judge, victims, victims_log
from fuzz.mutator import Mutator

the_victims = functools.cache(victims)


def mutants(seed: int, count: int):
    """Yield ``count`` mutants of a victim, each with what was done to it."""
    victim = the_victims()[seed % len(the_victims())]
    mutator = Mutator(victim.image, victim.log, seed)
    for _ in range(count):
        yield mutator.mutant()


def attack(seed: int, count: int) -> collections.Counter:
    """Judge ``count`` mutants of one victim; a failure's last line replays it."""
    outcomes: collections.Counter = collections.Counter()
    with victims_log():
        for number, (image, deeds) in enumerate(mutants(seed, count)):
            try:
                outcomes[judge(image, read_only=number % 4 == 3, deep=number % 8 == 0)] += 1
            except Exception as error:
                raise AssertionError(
                    f"{error!r}\nreplay: fuzz seed={seed} mutant={number} {deeds}"
                ) from error
    return outcomes
