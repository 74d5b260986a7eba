"""Row 18: mixed load, random reopening and random faults for a while; memory and descriptors stay flat.

How much is done is a count, and not a time: a slow machine must not do less of it.
"""

from __future__ import annotations

import itertools

import pytest

import seeds
from sim.rig import life_with_fault
from soak.load import Footprint, openings

pytestmark = [
    pytest.mark.one_interpreter,
    pytest.mark.unobserved("the monitor's own memory would be measured"),
]

WARM_UP = 20
OPENINGS = 120
LIVES = 90
UNREACHED = 1 << 30
#: The allocator's arenas and the interpreter's caches; one leaked frame pool a life would be more.
RSS_SLACK_BYTES = 12 << 20


@pytest.fixture
def footprint(caplog):
    """Measure; what was logged so far is let go of, and with it the errors it speaks of."""

    def measure():
        caplog.clear()
        return Footprint.now()

    return measure


def test_real_stores_opened_again_and_again(store_path, engine, count_row, footprint):
    life = openings(store_path, engine, seed=seeds.number())
    calls = sum(itertools.islice(life, WARM_UP))
    before = footprint()
    calls += sum(itertools.islice(life, OPENINGS))
    before.assert_flat(footprint(), rss_bytes=RSS_SLACK_BYTES)
    count_row(18, openings=OPENINGS + WARM_UP, calls=calls)


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "short by 512"])
def test_simulated_stores_with_random_faults(fault, count_row, footprint):
    def live(count, first):
        for seed in range(first, first + count):
            life_with_fault(seed, fault, seed % 40, forever=seed % 3 == 0, calls=14)
        # A last error keeps its life until the next one: end with a life that has none.
        life_with_fault(0, fault, UNREACHED, forever=False, calls=14)

    live(WARM_UP, seeds.first())
    before = footprint()
    live(LIVES, seeds.first() + WARM_UP)
    before.assert_flat(footprint(), rss_bytes=RSS_SLACK_BYTES)
    count_row(18, **{"lives with faults": LIVES + WARM_UP})
