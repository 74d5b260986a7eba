"""Power cuts at every step of random lives: rows 2 and 4, with read-only openers and a rotten superblock."""

from __future__ import annotations

import collections
import random

from sim.judging import Judge, recover, relapse, rotten
from sim.lives import lives


def options_of(seed: int) -> dict:
    """What kind of lives a seed's are."""
    rng = random.Random(seed)
    return {
        "tasks": rng.choice((1, 2, 3, 5, 8)),
        "guids": rng.choice((2, 3, 5, 9)),
        "calls": rng.choice((8, 16, 30)),
        "compactions": rng.choice((0.02, 0.1, 0.3)),
        "reads": rng.choice((12, 12, 60)),
    }


def torture(
    seed: int, *, count: int = 3, deep: int = 160, again: int = 180, rot: int = 40, looks: int = 20, **options
) -> collections.Counter:
    """Run the lives of ``seed`` and judge every image; returns what was judged, and how.

    Every ``deep``-th image is judged thoroughly; every ``again``-th loses power again while it is
    recovered, twice; in every ``rot``-th one superblock is damaged as well;
    every ``looks``-th different one is also opened read-only.
    """
    figures: collections.Counter = collections.Counter()
    judge = Judge(looks=looks)
    number = at = 0
    try:
        for number, life in enumerate(lives(seed, count, **options)):  # noqa: B007 - the replay line needs it
            at = -1
            life.run()
            if life.last is not None:
                assert recover(life.disk.live, None) == life.last, "a clean close lost or changed something"
            for at, moment in enumerate(life.moments):
                rng = random.Random(seed * 1000003 + at)
                if rot and at % rot == 0 and (flipped := rotten(moment.image, rng)) is not None:
                    recover(flipped, moment.known)
                    figures["one superblock rotten"] += 1
                if deep and at % deep == 0:
                    recover(moment.image, moment.known, deep=True)
                    figures["gone on with"] += 1
                if again and at % again == 0:
                    once, twice = relapse(moment, rng, judge)
                    figures["cut again"] += once
                    figures["cut a third time"] += twice
                if judge.look(moment.image, moment.known):
                    life.torn.append(moment.image)
    except Exception as error:
        raise AssertionError(f"{error!r}\nreplay: seed={seed} life={number} image={at} {options}") from error
    figures["frames over old ones"] = life.past.over_old
    figures["frames over fresh space"] = life.past.over_fresh
    figures["disk images"] = judge.opened
    figures["opened read-only"] = judge.looked
    figures["judged with other knowledge"] = judge.judged - judge.opened
    return figures


def relapses(seed: int, every: int = 12) -> collections.Counter:
    """Cut the power again during the recovery of every ``every``-th image of a seed's lives, and once more."""
    figures: collections.Counter = collections.Counter()
    judge = Judge()
    at = number = 0
    try:
        for number, life in enumerate(lives(seed, 2, **options_of(seed))):  # noqa: B007 - the same
            life.run()
            for at, moment in enumerate(life.moments[::every]):
                once, twice = relapse(moment, random.Random(seed * 1000003 + at), judge)
                figures["during a recovery"] += once
                figures["during the recovery from that"] += twice
    except Exception as error:
        raise AssertionError(f"{error!r}\nreplay: relapses seed={seed} life={number} image={at}") from error
    figures["disk images"] = sum(figures.values())
    figures["different ones among the latter"] = judge.opened
    return figures
