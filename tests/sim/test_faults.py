"""The n-th request fails, for every n, once and from then on (rows 5 and 6 of the faults)."""

from __future__ import annotations

import itertools

import pytest

from sim.lost_pages import reopened_on_its_cache
from sim.rig import FAULTS, PAGE, Moment, life_with_fault, life_with_faults, lives, open_with_fault
from sim.settings import FAULT_SEEDS

pytestmark = pytest.mark.one_interpreter

EVERY = pytest.mark.parametrize(
    ("name", "forever"),
    list(itertools.product(FAULTS, (False, True))),
    ids=lambda v: {0: "once", 1: "on"}.get(v, v),
)


def sweep(live) -> int:
    """Call ``live(index)`` for every index until it says that there is no such request."""
    for index in itertools.count():
        if not live(index):
            return index
    raise AssertionError


@EVERY
def test_in_a_life(name, forever, count_row):
    """The call raises, the store goes on or is poisoned as the contract says, and reopening is clean."""
    for seed in range(FAULT_SEEDS):
        requests = sweep(
            lambda index, seed=seed: life_with_fault(seed, name, index, forever=forever, used=True, calls=14)
        )
        assert requests > 10
        count_row(5, faults=requests)


@EVERY
def test_on_a_full_disk(name, forever, count_row):
    """The same where there is hardly any room."""
    requests = sweep(
        lambda index: life_with_fault(77, name, index, forever=forever, calls=10, capacity=70 * PAGE)
    )
    assert requests > 10
    count_row(5, faults=requests)


@EVERY
def test_while_opening(name, forever, count_row):
    """Opening raises an I/O error or is as if nothing had happened, and the next opening is."""
    count = 0
    for life in lives(5, 2):
        life.run()
        moments = [m for m in life.moments if m.why == "write"][:: max(1, len(life.moments) // 4)]
        for moment in [*moments, Moment(life.disk.live, life.history.knowledge(), "closed")]:
            count += sweep(lambda index, moment=moment: open_with_fault(moment, name, index, forever=forever))
    count_row(5, **{"faults while opening": count})


def test_two_or_three_faults_in_one_life(count_row):
    struck = sum(life_with_faults(seed, calls=14) for seed in range(150))
    assert struck > 150
    count_row(5, **{"compound faults": struck})


#: Whatever the errno: the contract makes no difference.
SYNC_FAULTS = ("EIO", "ENOSPC", "EDQUOT", "EINTR")


@pytest.mark.parametrize("forever", [False, True], ids=["once", "on"])
@pytest.mark.parametrize("seed", range(6))
def test_a_failed_fsync_poisons_and_no_other_is_asked_for(seed, forever, count_row):
    """Row 6, at every fsync of a life: poisoned, and no later success is asked for or believed.

    The seed decides what of the dirty data is lost with it, so a belief in it would be found out by
    what is there after a reopen.
    """
    count = 0
    for name in SYNC_FAULTS:
        lived = sweep(
            lambda index, name=name: life_with_fault(
                seed,
                name,
                index,
                forever=forever,
                used=True,
                kinds=("sync",),
                calls=20,
                tasks=3,
                compactions=0.1,
            )
        )
        assert lived > 3
        count += lived
    count_row(6, **{"failed fsyncs": count})


@pytest.mark.parametrize("seed", range(8))
def test_what_a_failed_fsync_lost_and_the_cache_still_shows(seed, count_row):
    """Row 6, where a system keeps lost pages in its cache: what the next opener shows outlives a power cut.

    Found here: a last group of deletions was not written again, and the next opener called it
    damaged; nor was a segment's header, with the groups behind it; and with the newest superblock
    torn on the disk the other one was written first.
    """
    count_row(6, **{"reopened on a cache that hides them": sweep(lambda i: reopened_on_its_cache(seed, i))})
