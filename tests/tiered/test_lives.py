"""The bucket is always a prefix of what was committed: the power is cut at any step, and bugs are planted."""

from __future__ import annotations

import logging
import random

import pytest

import seeds
from tiered.lives import World
from tiered.planted import PLANTED

pytestmark = pytest.mark.one_interpreter

WORLDS, LIVES, CALLS = 4, 4, 12
APART = 1000
STEPS_MAX = 400  #: of a life
SEEDS_A_BUG = 40  #: at most; where nothing has moved the first finds it


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("uringblob").disabled = True  # uploads fail by the hundred
    yield
    logging.getLogger("uringblob").disabled = False


def live_on(seed: int, actors: int = 2) -> World:
    """Three lives whose power may be cut, one that ends well, and another machine."""
    world = World(seed, actors=actors, rate=random.Random(seed).choice((0, 0.1, 0.3)))
    try:
        for life in range(LIVES):
            cut_at = world.rng.randrange(1, STEPS_MAX) if life < LIVES - 1 else None
            world.live(CALLS, cut_at=cut_at, frames_max=world.rng.choice((None, 4, 8)))
        world.take_over()
    except Exception as error:
        raise AssertionError(f"{error!r}\nreplay: seed={seed} life={world.lives}") from error
    return world


@pytest.mark.parametrize("part", range(WORLDS))
def test_random_lives(part, count_row):
    worlds, first = list[World](), seeds.first() + part * APART
    while len(worlds) < WORLDS or not all(
        any(getattr(world, figure) for world in worlds) for figure in ("groups", "fetched", "evicted")
    ):
        assert len(worlds) < 10 * WORLDS, "nothing was uploaded, fetched or evicted: they ask nothing"
        worlds.append(live_on(first + len(worlds), actors=2 + len(worlds) % 2))
    count_row(
        27,
        **{
            "lives of a tier": sum(world.lives for world in worlds),
            "groups judged": sum(world.groups for world in worlds),
            "power cuts of a tier": sum(world.cuts for world in worlds),
        },
    )


def test_the_power_is_cut_at_every_step(count_row):
    """Of one small life, and of its recovery."""
    for cut_at in range(1, STEPS_MAX):
        world = World(7, rate=0)
        if not world.live(3, cut_at=cut_at, frames_max=3):
            break
        world.live(1, frames_max=3)
        world.take_over()
    else:
        raise AssertionError("the life has no end")
    count_row(27, **{"steps at which a tier's power was cut": cut_at})


@pytest.mark.parametrize(
    ("bug", "seed"), PLANTED.items(), ids=lambda given: getattr(given, "__name__", str(given))
)
def test_a_planted_bug_is_found(bug, seed):
    with bug(), pytest.raises(AssertionError) as caught:
        for number in range(seed, seed + SEEDS_A_BUG):
            live_on(number, actors=4)
    assert "replay:" in str(caught.value)
