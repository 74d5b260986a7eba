"""Planted bugs in vacuums; see ``sim/planted.py``."""

from __future__ import annotations

import contextlib
import dataclasses
from unittest import mock

from uringblob.engines import transfers
from uringblob.store import vacuum
from uringblob.store.format import SlotRun, entry_slot, pack_entry
from uringblob.store.growth import FileGrowth
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.log_space import LogSpace
from uringblob.store.index.slot_states import SlotState
from uringblob.store.index.slots import SlotTable
from uringblob.store.log.group_commit import GroupQueue
from uringblob.store.log.superblocks import Superblocks


@contextlib.contextmanager
def old_slots_freed_when_their_frames_are_copied():
    """The map names the copies from then on, and the log will, too."""
    real = GroupQueue.join_moves

    def join_moves(self, moves, frame_bytes):
        index = self._index
        for guid, old, new in moves:
            if index.find(guid) is old and index._delta is None:
                index.slots.move(entry_slot(new), SlotState.LIVE)
                index._store_durable(guid, new, old, 0)
        return real(self, [], frame_bytes)

    with mock.patch.object(GroupQueue, "join_moves", join_moves):
        yield


@contextlib.contextmanager
def file_cut_before_the_fences():
    """What the last group replaced lies behind the new end."""

    def unused_from(self):
        return len(self._states.rstrip(bytes((SlotState.FREE, SlotState.HOLE, SlotState.RETIRED))))

    def cut(self, limit):
        for slot in range(limit, self.limit):
            if self.state(slot) == SlotState.RETIRED:
                self._retired = type(self._retired)(one for one in self._retired if one[1] != slot)
                self.move(slot, SlotState.FREE)
        real(self, limit)

    real = SlotTable.cut
    with (
        mock.patch.object(SlotTable, "unused_from", unused_from),
        mock.patch.object(SlotTable, "cut", cut),
    ):
        yield


@contextlib.contextmanager
def log_space_given_up_in_one_superblock():
    """The other one lists it still, and an opener may read that one."""

    async def record_extents(self, extents):
        if sum(extent.slots for extent in extents) > sum(extent.slots for extent in self.current.log_space):
            await real(self, extents)
        else:
            await self._write_older(dataclasses.replace(self.current, log_space=tuple(extents)))

    real = Superblocks.record_extents
    with mock.patch.object(Superblocks, "record_extents", record_extents):
        yield


@contextlib.contextmanager
def log_space_given_up_that_a_log_may_get():
    """It is free when a vacuum looks at it; that is not enough."""

    def withdraw(self, first):
        runs = [(max(run.slot, first), run.end) for run in self._free if run.end > first]
        return [SlotRun(begin, end - begin) for begin, end in runs]

    with (
        mock.patch.object(LogSpace, "withdraw", withdraw),
        mock.patch.object(LogSpace, "restore"),
    ):
        yield


def _joins(condition):
    """Join what is moved where ``condition`` holds."""

    def join_group(self, changes, guid, change):
        if change.moves is not None and not condition(self, changes, guid, change):
            return change
        change.moves = None
        return real(self, changes, guid, change)

    real = BlobIndex.join_group
    return mock.patch.object(BlobIndex, "join_group", join_group)


@contextlib.contextmanager
def overwritten_blobs_moved_all_the_same():
    """What a commit wrote since the frame was copied is lost."""
    with _joins(lambda self, changes, guid, _: guid not in changes and guid not in self._pending):
        yield


@contextlib.contextmanager
def pending_writes_overruled_by_a_move():
    with _joins(lambda self, changes, guid, c: guid not in changes and self.find_durable(guid) is c.moves):
        yield


@contextlib.contextmanager
def commits_of_the_same_group_overruled_by_a_move():
    with _joins(
        lambda self, _changes, guid, c: guid not in self._pending and self.find_durable(guid) is c.moves
    ):
        yield


@contextlib.contextmanager
def metadata_left_behind():
    with mock.patch.object(vacuum, "pack_entry", lambda slot, checksum, _meta: pack_entry(slot, checksum)):
        yield


@contextlib.contextmanager
def slots_punched_that_others_may_get():
    async def punch(self, first):
        run = self._slots.find_run(SlotState.FREE, first, self._slots.limit, 1, 1)
        if run is not None:
            size = self.page_size
            await transfers.punch(self._file_io.engine, run.slot * size, run.slots * size, "punching")
        return run

    with mock.patch.object(FileGrowth, "punch", punch):
        yield


@contextlib.contextmanager
def file_cut_before_its_table():
    """Until the file is cut, others get slots behind its new end."""

    async def cut(self):
        slots, end = self._slots, self._slots.unused_from()
        before, size_bytes = self._file_io.file_size(), end * self.page_size
        if size_bytes >= before:
            return 0
        await transfers.cut(self._file_io.engine, size_bytes, "cutting")
        slots.cut(end)
        return before - size_bytes

    with mock.patch.object(FileGrowth, "cut", cut):
        yield


PLANTED_IN_VACUUMS = dict.fromkeys(
    (
        old_slots_freed_when_their_frames_are_copied,
        file_cut_before_the_fences,
        log_space_given_up_in_one_superblock,
        log_space_given_up_that_a_log_may_get,
        overwritten_blobs_moved_all_the_same,
        pending_writes_overruled_by_a_move,
        commits_of_the_same_group_overruled_by_a_move,
        metadata_left_behind,
        slots_punched_that_others_may_get,
        file_cut_before_its_table,
    ),
    "vacuums",
)
