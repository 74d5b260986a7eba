"""Row 19: overwriting and deleting without end, and full disks; on a simulated disk that answers at once.

The same on real disks: ``tests/behaviour/test_space.py``.
"""

from __future__ import annotations

import collections
from unittest import mock

import pytest

import seeds
from sim.settings import REPLACED
from sim.space_use import KIB, MIB, churn_simulated, full_disk_simulated
from uringblob.store.growth import FileGrowth
from uringblob.store.index.log_space import LogSpace

pytestmark = pytest.mark.one_interpreter

#: Frame size, live blobs, and what part of the figure falls to them: long frames take their time.
STORES = [
    (4 * KIB, 20_000, 1 / 2),
    (4 * KIB, 1_000, 1 / 2),
    (64 * KIB, 2_000, 1 / 4),
    (64 * KIB, 200, 1 / 10),
    (512 * KIB, 256, 1 / 20),
    (4 * MIB, 40, 1 / 200),
]
#: Frame size, frames that the disk has room for, deletes in a commit.
FULL = [
    (4 * KIB, 4_000, 100),
    (4 * KIB, 300, 1),
    (64 * KIB, 800, 100),
    (64 * KIB, 200, 1),
    (512 * KIB, 150, 7),
]


@pytest.mark.slow
@pytest.mark.parametrize(("page_size", "live", "share"), STORES)
def test_a_store_whose_live_size_is_constant_stays_within_a_quarter_of_it(page_size, live, share, count_row):
    rounds = 3
    replaced = sum(
        churn_simulated(seeds.first() + number, page_size, live, int(REPLACED * share / rounds))
        for number in range(rounds)
    )
    count_row(19, **{f"frames of {page_size // KIB} KiB replaced": replaced})


@pytest.mark.parametrize(("page_size", "frames", "a_commit"), FULL)
def test_a_full_disk_is_emptied_and_holds_as_much_again_and_no_delete_is_refused(
    page_size, frames, a_commit, count_row
):
    done: collections.Counter = collections.Counter()
    for number in range(4):
        done += full_disk_simulated(seeds.first() + number, page_size, frames, a_commit=a_commit)
    count_row(19, **done)


@pytest.mark.slow
def test_one_commit_deletes_a_hundred_thousand_blobs_of_a_full_disk(count_row):
    done = full_disk_simulated(seeds.first(), 4 * KIB, 106_000, a_commit=100_000)
    assert done["deletes on a full disk"] > 100_000
    count_row(19, **done)


@pytest.mark.parametrize(("page_size", "live", "share"), STORES[:2])
def test_growth_that_is_always_cheap_is_found(page_size, live, share):
    with (
        mock.patch.object(FileGrowth, "is_cheap", return_value=True),
        pytest.raises(AssertionError, match=r" times\nreplay: churn_simulated"),
    ):
        churn_simulated(0, page_size, live, 30_000)


@pytest.mark.parametrize(("page_size", "frames", "a_commit"), FULL[::2])
def test_a_log_that_keeps_no_room_for_a_compaction_is_found(page_size, frames, a_commit):
    with (
        mock.patch.object(LogSpace, "for_compaction", return_value=0),
        pytest.raises(AssertionError, match="replay: full_disk_simulated"),
    ):
        for seed in range(4):
            full_disk_simulated(seed, page_size, frames, a_commit=a_commit)
