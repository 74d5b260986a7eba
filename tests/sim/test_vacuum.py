"""Row 22, vacuums: beside writers and snapshots, with power cuts, failed requests and cancelled calls at each step."""

from __future__ import annotations

import collections
import itertools
import random

import pytest

import seeds
from sim.cancelling import CancellingLife
from sim.rig import life_with_fault, options_of, recover, small_log, torture, used_image
from sim.vacuums import VacuumLife

pytestmark = pytest.mark.one_interpreter

SEEDS = 6
APART = 2000


def vacuum_options(seed: int) -> dict:
    """What kind of lives a seed's are: with blobs enough that log space grows for them, and shrinks."""
    return {**options_of(seed), "calls": 40, "guids": (8, 20, 30)[seed % 3]}


def count_of(count_row, lives: list[VacuumLife], **figures: int) -> None:
    vacuums, moved, freed, given_up = (
        sum(getattr(life, name) for life in lives) for name in ("vacuums", "moved", "freed", "given_up")
    )
    assert moved, "no frame was moved"
    assert freed, "no file was cut"
    count_row(22, **{"vacuums": vacuums, "frames moved": moved, "log space given up": given_up}, **figures)


def test_power_is_cut_beside_vacuums(count_row):
    figures: collections.Counter = collections.Counter()
    lives: list[VacuumLife] = []

    def kind(*args, **options):
        lives.append(VacuumLife(*args, **options))
        return lives[-1]

    for seed in range(seeds.first(), seeds.first() + SEEDS):
        figures += torture(seed, kind=kind, **vacuum_options(seed))
    assert sum(life.given_up for life in lives), "no log space was given up"
    count_of(count_row, lives, **{"disk images": figures["disk images"]})
