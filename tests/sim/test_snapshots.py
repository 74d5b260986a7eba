"""Snapshots beside writers, power cuts and requests that fail (row 22 of the faults)."""

from __future__ import annotations

import collections
import contextlib
import itertools
import random

import pytest

import seeds
from sim.cancelling import CancellingLife
from sim.rig import FAULTS, life_with_fault, options_of, recover, small_log, torture, used_image
from sim.snapshots import SnapshotLife, applied_one_by_one

pytestmark = pytest.mark.one_interpreter

SEEDS = 6
APART = 1000
#: One request in so many fails in a run, others in the next.
APART_IN_LIFE = 2


def count_of(count_row, lives: list[SnapshotLife], **figures: int) -> None:
    taken, looks = (sum(getattr(life, name) for life in lives) for name in ("taken", "looks"))
    assert taken, "no snapshot was taken"
    # Fewer than are taken where lives end early: about one look for each, and seeds differ.
    assert 2 * looks > taken, "nobody looked at them"
    count_row(22, **{"snapshots": taken, "looked through": looks}, **figures)


@pytest.mark.parametrize("in_turns", [False, True], ids=["at once", "in turns"])
def test_power_is_cut_beside_snapshots(count_row, in_turns):
    """Their lives leave what any life leaves; and what a snapshot shows does not change."""
    figures: collections.Counter = collections.Counter()
    lives: list[SnapshotLife] = []

    def kind(*args, **options):
        lives.append(SnapshotLife(*args, **options))
        return lives[-1]

    with applied_one_by_one() if in_turns else contextlib.nullcontext():
        for seed in range(seeds.first(), seeds.first() + SEEDS):
            figures += torture(seed, kind=kind, **{**options_of(seed), "calls": 40})
    count_of(count_row, lives, **{"disk images": figures["disk images"]})


@pytest.mark.parametrize("name", ["EIO", "ENOSPC", "short by 4096", "zero bytes"])
@pytest.mark.parametrize("forever", [False, True], ids=["once", "forever"])
def test_requests_fail_beside_snapshots(name, forever, count_row):
    """A group that is given up moves no snapshot, nor does a store that is poisoned."""
    seed, lives = seeds.first() + APART, []
    assert name in FAULTS
    for index in itertools.count(seeds.number() % APART_IN_LIFE, APART_IN_LIFE):
        life = life_with_fault(
            seed, name, index, forever=forever, used=True, kind=SnapshotLife, calls=40, tasks=2
        )
        if life is None:
            break
        lives.append(life)
    count_of(count_row, lives, **{"requests that failed": len(lives)})


class CancelledBeside(SnapshotLife, CancellingLife):
    """Its other calls are cancelled at any moment."""


def test_calls_are_cancelled_beside_snapshots(count_row):
    lives = []
    for seed in range(seeds.first(), seeds.first() + SEEDS):
        with small_log(seed=seed):
            life = CancelledBeside(used_image(8), random.Random(seed), calls=60, images_per_step=0)
            try:
                life.run()
                recover(life.disk.live, life.history.knowledge(), deep=True)
            except Exception as error:
                raise AssertionError(f"{error!r}\nreplay: seed={seed}") from error
            lives.append(life)
    count_of(count_row, lives)


def test_a_full_disk_beside_snapshots(count_row):
    """What snapshots hold is no longer free: writes are refused by name, and nothing moves."""
    lives, refused = [], 0
    for seed in range(seeds.first(), seeds.first() + SEEDS):
        with small_log(seed=seed):
            image = used_image(6)
            life = SnapshotLife(
                image, random.Random(seed), calls=60, images_per_step=0, capacity=image.size, compactions=0
            )
            try:
                life.run()
                recover(life.disk.live, life.history.knowledge(), deep=True)
            except Exception as error:
                raise AssertionError(f"{error!r}\nreplay: seed={seed}") from error
            lives.append(life)
            refused += sum("snapshots hold" in str(error) for error in life.errors)
    assert refused, "the disk was never full of what snapshots hold"
    count_of(count_row, lives, refused=refused)
