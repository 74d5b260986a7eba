"""Power cuts at every step: random workloads, and every short sequence (rows 2 to 4 of the faults)."""

from __future__ import annotations

import random

import pytest

from sim.exhaustive import exhaust
from sim.rig import torture
from sim.settings import CHUNK, LENGTH, SEEDS

pytestmark = pytest.mark.one_interpreter


def options_of(seed: int) -> dict:
    rng = random.Random(seed)
    return {
        "tasks": rng.choice((1, 2, 3, 5, 8)),
        "guids": rng.choice((2, 3, 5, 9)),
        "calls": rng.choice((8, 16, 30)),
        "compactions": rng.choice((0.02, 0.1, 0.3)),
        "reads": rng.choice((12, 12, 60)),
    }


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_random_lives(first):
    for seed in range(first, first + CHUNK):
        torture(seed, **options_of(seed))


@pytest.mark.parametrize("segment_blocks", [3, 4])
@pytest.mark.parametrize("groups", range(4))
def test_every_short_sequence(groups, segment_blocks):
    """``groups`` moves the log's end through a segment, so that each operation meets each edge."""
    figures = exhaust(LENGTH - 1, groups=groups, segment_blocks=segment_blocks, torn=True)
    assert not figures["cut short"], figures


def test_every_sequence_of_full_length():
    figures = exhaust(LENGTH, groups=1, segment_blocks=4)
    assert not figures["cut short"], figures
