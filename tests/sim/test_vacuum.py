"""Row 22, vacuums: beside writers and snapshots, with power cuts, failed requests and cancelled calls at each step."""

from __future__ import annotations

import asyncio
import collections
import functools
import itertools
import random

import pytest

import seeds
from sim.cancelling import CancellingLife
from sim.rig import life_with_fault, recover, small_log, torture, used_image
from sim.vacuums import VacuumLife, vacuum_options

pytestmark = pytest.mark.one_interpreter

SEEDS = 3
APART = 2000


def count_of(count_row, lives: list[VacuumLife], *, whole: bool = True, **figures: int) -> None:
    vacuums, moved, freed, given_up = (
        sum(getattr(life, name) for life in lives) for name in ("vacuums", "moved", "freed", "given_up")
    )
    assert lives
    if whole:
        assert moved, "no frame was moved"
        assert freed, "no file was cut"
    count_row(22, **{"vacuums": vacuums, "frames moved": moved, "log space given up": given_up}, **figures)


def test_power_is_cut_beside_vacuums(count_row):
    figures: collections.Counter = collections.Counter()
    lives: list[VacuumLife] = []

    def kind(*args, **options):
        lives.append(VacuumLife(*args, **options))
        return lives[-1]

    for seed in range(seeds.first(), seeds.first() + 20):
        if len(lives) >= 2 * SEEDS and any(life.given_up for life in lives):
            break
        figures += torture(seed, count=2, kind=kind, images_per_step=2, **vacuum_options(seed))
    assert sum(life.given_up for life in lives), "no log space was given up"
    count_of(count_row, lives, **{"disk images": figures["disk images"]})


#: One request in so many fails in a run, others in the next.
APART_IN_LIFE = 25
FAILING = {"used": True, "calls": 6, "guids": 8}


def busy_seed(first: int) -> int:
    """Return a seed from ``first`` on in whose life, if nothing fails, frames move and the file is cut."""
    lives: list[VacuumLife] = []

    def kind(*args, **options):
        lives.append(VacuumLife(*args, **options))
        return lives[-1]

    for seed in itertools.count(first):
        life_with_fault(seed, "EIO", 10**9, forever=False, kind=kind, **FAILING)
        if lives[-1].moved >= 3 and lives[-1].freed:
            return seed
    raise AssertionError


@pytest.mark.parametrize("name", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("forever", [False, True], ids=["once", "forever"])
def test_requests_fail_beside_vacuums(name, forever, count_row):
    """A step that fails loses nothing, and neither keeps a slot nor uses one again."""
    seed, lives = busy_seed(seeds.first() + APART), []
    for index in itertools.count(seed % APART_IN_LIFE, APART_IN_LIFE):
        life = life_with_fault(seed, name, index, forever=forever, kind=VacuumLife, **FAILING)
        if life is None:
            break
        lives.append(life)
    # Where all requests fail from one on, few of which were tried, no vacuum may have come so far.
    count_of(count_row, lives, whole=not forever, **{"requests that failed": len(lives)})


class CancelledBeside(VacuumLife, CancellingLife):
    """Its calls, the vacuums too, are cancelled at any moment."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self._others = functools.partial(CancellingLife.one_call, self)

    async def vacuum(self) -> None:
        task = asyncio.ensure_future(super().vacuum())
        for _ in range(self.rng.randrange(400)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


def test_calls_are_cancelled_beside_vacuums(count_row):
    lives: list[VacuumLife] = []
    for seed in range(seeds.first(), seeds.first() + 60):
        if sum(life.moved for life in lives) > 5 * SEEDS and len(lives) >= SEEDS:
            break
        with small_log(seed=seed):
            life = CancelledBeside(used_image(8), random.Random(seed), calls=60, guids=12, images_per_step=0)
            try:
                life.run()
                recover(life.disk.live, life.history.knowledge(), deep=True)
            except Exception as error:
                raise AssertionError(f"{error!r}\nreplay: seed={seed}") from error
            lives.append(life)
    count_of(count_row, lives)


@pytest.mark.parametrize("sparse", [False, True], ids=["allocated", "sparse"])
def test_a_full_disk_beside_vacuums(sparse, count_row):
    """Space that went back is not always to be had again; nothing is lost, and deletions go on."""
    lives = []
    for seed in range(seeds.first(), seeds.first() + SEEDS):
        with small_log(seed=seed):
            image = used_image(10)
            life = VacuumLife(
                image,
                random.Random(seed),
                calls=60,
                guids=12,
                images_per_step=0,
                capacity=image.size,
                sparse=sparse,
                compactions=0,
            )
            try:
                life.run()
                recover(life.disk.live, life.history.knowledge(), deep=True)
            except Exception as error:
                raise AssertionError(f"{error!r}\nreplay: seed={seed}") from error
            lives.append(life)
    count_of(count_row, lives)
