"""Power cuts at every step: random workloads, every short sequence, and recovery (rows 2 to 4 of the faults)."""

from __future__ import annotations

import collections
import itertools

import pytest

import seeds
from sim.exhaustive import exhaust, sequences
from sim.power_cuts import options_of, relapses, torture
from sim.settings import IMAGE_CHUNKS, IMAGES, RELAPSE_CHUNKS, RELAPSES, SEQUENCE_MAX

pytestmark = pytest.mark.one_interpreter

#: Seeds of one chunk lie so far from those of the next.
APART = 1000


@pytest.mark.parametrize("chunk", range(IMAGE_CHUNKS))
def test_random_lives(chunk, count_row):
    """Row 2.  Only different images are counted, each opened by the store's own recovery."""
    figures: collections.Counter = collections.Counter()
    for seed in itertools.count(seeds.first() + chunk * APART):
        figures += torture(seed, **options_of(seed))
        if figures["disk images"] >= IMAGES // IMAGE_CHUNKS:
            break
    old, fresh = figures["frames over old ones"], figures["frames over fresh space"]
    assert old > fresh, "on fresh space a file system's journaling hides ordering bugs"
    count_row(2, **figures)


def exhaust_all(count_row, **options) -> None:
    figures = exhaust(sequences(SEQUENCE_MAX), **options)
    assert figures["sequences"] == sum(6**length for length in range(1, SEQUENCE_MAX + 1))
    assert not figures["with more than the limit"]
    count_row(3, **figures)


@pytest.mark.parametrize(("groups", "segment_blocks"), [(0, 3), (1, 3), (2, 4)])
def test_every_sequence_of_up_to_three_operations(groups, segment_blocks, count_row):
    """Row 3.  ``groups`` moves the log's end to each block of a segment, so that each operation meets each edge."""
    exhaust_all(count_row, groups=groups, segment_blocks=segment_blocks, torn=True)


@pytest.mark.parametrize(("groups", "segment_blocks"), [(1, 3)])
def test_every_three_operations_at_once(groups, segment_blocks, count_row):
    """Row 3, with the operations begun together: their requests are in flight side by side."""
    exhaust_all(count_row, groups=groups, segment_blocks=segment_blocks, together=True)


@pytest.mark.parametrize("chunk", range(RELAPSE_CHUNKS))
def test_power_is_cut_again_during_recovery(chunk, count_row):
    """Row 4: at every step of a recovery, and at every step of the recovery from that."""
    figures: collections.Counter = collections.Counter()
    for seed in itertools.count(seeds.first() + chunk * APART + 500_000):
        figures += relapses(seed)
        if figures["disk images"] >= RELAPSES // RELAPSE_CHUNKS:
            break
    count_row(4, **figures)
