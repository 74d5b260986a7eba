"""The sixteen rules of the commit protocol (docs/maintainers/format.md), each taken out, and the scenario that then fails.

Most are hunted by the rig and the order monitor, as planted bugs are; those that power cuts on a
simulated disk cannot show have a scenario here, which passes with the rule and fails without it.
"""

from __future__ import annotations

import os
from unittest import mock

import pytest

from monitor import install
from sim import planted
from sim.hunts import hunt_for
from sim.rig import PAGE, forget, frame, guid, small_log
from sim.test_full_disk import live_on_a_full_disk
from uringblob import BlobStoreError, FileBlobStore
from uringblob.store import file as store_file
from uringblob.store.index import blob_index, log_space
from uringblob.store.opening import create as creation
from uringblob.testing import History, SimDisk, SimLoop, new_image, open_sim_store

pytestmark = pytest.mark.one_interpreter


# --- rules that only these scenarios show ----------------------------------------------------------


def two_creators(directory) -> None:
    """Rule 11: the second creator finds the name taken when it links, and opens the winner's store."""
    path = str(directory / "store")
    write_image = creation._write_image

    def beaten(fd, *made):
        write_image(fd, *made)
        with (
            mock.patch.object(creation, "_write_image", write_image),
            FileBlobStore.open(path, page_size=PAGE, engine="pread") as winner,
        ):
            winner.commit([(guid(1), frame(1))])

    with mock.patch.object(creation, "_write_image", beaten):
        loser = FileBlobStore.open(path, page_size=PAGE, engine="pread")
    with loser:
        assert loser.has_blob(guid(1)), "the loser replaced the winner's file"


def existing_file_replaced():
    return mock.patch.object(creation, "_put_in_place", os.replace)


def only_what_is_durable_is_read(directory) -> None:
    """Rule 12: an opener flushes before its first read of the file."""
    path = str(directory / "store")
    FileBlobStore.open(path, page_size=PAGE, engine="pread").close()
    calls = []
    fdatasync, pread = os.fdatasync, os.pread

    def flush(fd):
        calls.append("flush")
        fdatasync(fd)

    def read(*arguments):
        calls.append("read")
        return pread(*arguments)

    with mock.patch.object(os, "fdatasync", flush), mock.patch.object(os, "pread", read):
        FileBlobStore.open(path, engine="pread").close()
    assert calls[:2] == ["flush", "read"], calls


def cache_believed():
    return mock.patch.object(store_file, "drop_cache", return_value=None)


def a_full_disk_takes_deletes(_directory) -> None:
    """Rule 13: on a full disk no delete is refused."""
    with small_log(segment_bytes=16 * PAGE):
        base = new_image(PAGE)
        for level in range(40, 72, 8):
            loop = SimLoop()
            disk = SimDisk(level, image=base.copy(), capacity=base.size + level * PAGE)
            diary = loop.run(live_on_a_full_disk(disk, loop, History(), rounds=40))
            assert not diary.refused


def no_reserve():
    return mock.patch.object(log_space.LogSpace, "for_compaction", return_value=0)


def rewrites_do_not_eat_the_disk(_directory) -> None:
    """Rule 16: a frame overwritten before any flush gives its slot back at once."""
    loop = SimLoop()
    base = new_image(PAGE)

    async def run():
        disk = SimDisk(image=base.copy(), capacity=base.size + 1024 * PAGE)
        store = await open_sim_store(disk, loop)
        try:
            for stamp in range(1500):
                await store.write_blob(guid(1), frame(stamp))
        finally:
            forget(store)

    loop.run(run())


def overwritten_frames_kept():
    return mock.patch.object(blob_index.BlobIndex, "_retire_unlogged", return_value=None)


#: Rule, what takes it out, and the hunt (a string) or the scenario that notices.
RULES = [
    (1, planted.acknowledged_before_the_fsync_returned, "power cuts"),
    (1, planted.short_write_taken_for_whole, "short by 512"),
    (2, planted.doubtful_group_accepted_unverified, "power cuts"),
    (2, planted.next_group_before_the_last_is_durable, "power cuts"),
    (3, planted.group_dropped_though_a_later_one_stands, "flipped bits"),
    (4, planted.tail_not_wiped, "power cuts"),
    (5, planted.failed_group_not_wiped, "ENOSPC"),
    (6, planted.block_checksum_leaves_out_the_records, "flipped bits"),
    (6, planted.blocks_not_bound_to_their_place, "misplaced blocks"),
    (6, planted.segment_linked_before_it_is_zeroed, "power cuts"),
    (7, planted.header_linked_before_it_is_durable, "power cuts"),
    (8, planted.slots_freed_before_their_record_is_durable, "power cuts"),
    (8, planted.slots_freed_with_the_last_group, "power cuts"),
    (9, planted.snapshot_of_the_visible_map, "power cuts"),
    (9, planted.segments_released_before_the_superblocks, "power cuts"),
    (10, planted.seal_before_the_flush, "power cuts"),
    (11, existing_file_replaced, two_creators),
    (12, cache_believed, only_what_is_durable_is_read),
    (12, planted.cache_believed_by_an_opener, "lost pages"),
    (13, no_reserve, a_full_disk_takes_deletes),
    (14, planted.doubtful_group_shown_unverified, "power cuts"),
    (14, planted.cache_believed_by_a_read_only_opener, "lost pages"),
    (15, planted.frames_said_to_be_synced, "power cuts"),
    (16, overwritten_frames_kept, rewrites_do_not_eat_the_disk),
]


def test_no_rule_is_left_out():
    assert {rule for rule, _, _ in RULES} == set(range(1, 17))


@pytest.mark.parametrize(
    ("rule", "without", "scenario"), RULES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_a_rule_taken_out_is_noticed(rule, without, scenario, disk_dir):
    if isinstance(scenario, str):
        with without():
            assert hunt_for(scenario) is not None, f"nobody misses rule {rule}"
        return
    with without(), pytest.raises((AssertionError, BlobStoreError)):
        scenario(disk_dir)
    install.take()


@pytest.mark.parametrize(
    "scenario", [s for _, _, s in RULES if not isinstance(s, str)], ids=lambda s: s.__name__
)
def test_with_the_rule_all_is_well(scenario, disk_dir):
    scenario(disk_dir)
