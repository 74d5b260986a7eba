"""Readers beside a writer, both killed at any moment, compactions and power cuts beneath (row 21 of the faults)."""

from __future__ import annotations

import gc

import pytest

import seeds
from monitor import install
from sim import planted_readers as bugs
from sim.readers import live

pytestmark = [
    pytest.mark.one_interpreter,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

LIVES = 20
#: Few lives meet these: a hunt begins a little before a seed that does.
FIRST_SEED = {
    bugs.announced_before_the_flush: 18,
    bugs.registered_after_the_map_was_read: 28,
    bugs.what_is_not_announced_is_read_too: 12,
    bugs.refreshed_without_a_lock_for_any_state: 45,
}
#: One life in fifty meets the rarest of them, and which one depends on chance.
HUNTED_MAX = 1000


@pytest.fixture(autouse=True)
def the_killed_are_collected_here():
    yield
    gc.collect()


def test_every_state_that_a_reader_shows_was_committed_and_stays_what_it_was(count_row):
    lives = [live(seed) for seed in range(seeds.first(), seeds.first() + LIVES)]
    figures = {
        "states looked at": sum(len(life.seen) for life in lives),
        "refreshes that moved": sum(life.moved for life in lives),
        "simulated kills": sum(life.kills for life in lives),
        "power cuts": sum(life.cuts for life in lives),
    }
    assert all(figures.values()), figures
    count_row(21, **figures)


@pytest.mark.parametrize("bug", bugs.PLANTED, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found(bug):
    first = FIRST_SEED.get(bug, 0)
    with bug():
        for seed in range(first, first + HUNTED_MAX):
            try:
                live(seed)
            except Exception:
                install.take()
                return
            if install.take():
                return
    raise AssertionError(f"{bug.__name__} lives")
