"""Row 19 with real files: a store whose live size is constant, and full disks emptied and filled again.

Hundreds of thousands of frames go through a simulated disk: ``tests/sim/test_space_use.py``.
"""

from __future__ import annotations

import collections
import os
import random

import pytest

import seeds
from behaviour import children
from behaviour.mounts import MIB, tmpfs
from sim import space_use
from sim.space_use import KIB
from uringblob import AsyncFileBlobStore

pytestmark = pytest.mark.one_interpreter

#: Frame size, live blobs, frames replaced, in how many openings.
STORES = [
    (4 * KIB, 20_000, 10_000, 1),
    (4 * KIB, 1_000, 3_000, 3),
    (64 * KIB, 200, 600, 3),
    (512 * KIB, 32, 100, 1),
]


@pytest.mark.parametrize(("page_size", "live", "operations", "openings"), STORES)
async def test_a_store_whose_live_size_is_constant_stays_within_a_quarter_of_it(
    store_path, engine, page_size, live, operations, openings, count_row
):
    dice, names, replaced = random.Random(seeds.first()), space_use.Names(live), 0
    for opening in range(openings):
        async with AsyncFileBlobStore.open(
            store_path, engine=engine, page_size=page_size, buffers=4
        ) as store:
            if not opening:
                await space_use.write(store, names.live, max(1, live // 16))
            replaced += await space_use.churn(store, names, dice, operations // openings)
            space_use.check_size(store, os.path.getsize(store_path), live)
            assert store.stats().amplification == os.path.getsize(store_path) / page_size / live
    count_row(19, **{"frames replaced in real files": replaced})


@pytest.mark.parametrize(("page_size", "frames"), [(4 * KIB, 1_000), (64 * KIB, 100), (512 * KIB, 24)])
def test_a_file_that_may_grow_no_more_is_emptied_and_holds_as_much_again(
    disk_dir, engine, page_size, frames, count_row
):
    """RLIMIT_FSIZE stands for a full disk; each engine has half of the orders."""
    done: collections.Counter = collections.Counter()
    half = len(space_use.ORDERS) // 2
    for number in range(half) if engine == "pread" else range(half, 2 * half):
        path, seed = str(disk_dir / f"store-{number}"), seeds.first() + number
        done.update(
            children.run("behaviour.child_fsize:empty_and_refill", path, engine, page_size, frames, seed)
        )
    count_row(19, **done)


async def test_a_full_tmpfs_is_emptied_and_holds_as_much_again(needs_root, disk_dir, engine, count_row):
    dice, names = random.Random(seeds.first()), space_use.Names(0)
    with tmpfs(disk_dir / "small", 12 * MIB) as directory:
        path = directory / "store"
        async with AsyncFileBlobStore.open(path, engine=engine, page_size=4 * KIB, buffers=4) as store:
            await space_use.fill_up(store, names)
            replaced = await space_use.refill(store, names, dice, deleted=0.95, order="at random")
        async with AsyncFileBlobStore.open(path, engine=engine, buffers=4) as store:
            doomed = await space_use.delete_all(store, names, dice, a_commit=100)
    count_row(
        19, **{"frames of a full disk replaced": replaced, "deletes on a full disk": doomed, "full disks": 1}
    )
