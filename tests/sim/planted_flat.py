"""Planted bugs of small commits, whose groups are written by callbacks, and of waits."""

from __future__ import annotations

import contextlib
import itertools
from unittest import mock

from uringblob import wait
from uringblob.ring.completions import InFlight
from uringblob.store.frame_reads import FrameReads
from uringblob.store.io.file_io import FileIO
from uringblob.store.log.flat_group import FlatGroup
from uringblob.store.log.writer import Log
from uringblob.wait import Wait


@contextlib.contextmanager
def log_position_not_moved():
    """The next group is written where this one is."""

    def accept_blocks(self, seq, blocks):
        self.group_blocks += blocks
        self.seq = seq

    with mock.patch.object(Log, "accept_blocks", accept_blocks):
        yield


@contextlib.contextmanager
def log_position_moved_twice():
    """A group leaves a blank block behind it."""
    real = Log.accept_blocks

    def accept_blocks(self, seq, blocks):
        real(self, seq, blocks)
        self.skip(blocks)

    with mock.patch.object(Log, "accept_blocks", accept_blocks):
        yield


@contextlib.contextmanager
def sync_asked_for_before_the_last_write_has_landed():
    """The flush goes out while one write is in flight; the group waits for both."""
    real, after = FlatGroup._landed, FlatGroup._after_sync

    def landed(self, pending):
        if len(self._left) == 2 and pending.result == pending.size_bytes:
            self._left.discard(pending)
            self._syncing = True
            if not self._file_io.start_sync(f"commit of group {self.seq}", self._after_sync):
                self._give_up()
            return
        real(self, pending)
        if self._syncing and self._synced is not None and not self._left:
            after(self, self._synced)

    def after_sync(self, result):
        self._synced = result
        if not self._left or result:
            after(self, result)

    with (
        mock.patch.object(FlatGroup, "_landed", landed),
        mock.patch.object(FlatGroup, "_after_sync", after_sync),
    ):
        yield


@contextlib.contextmanager
def short_write_counted_as_whole_by_its_group():
    real = FlatGroup._landed

    def landed(self, pending):
        if pending.result > 0:
            pending.result = pending.size_bytes
        real(self, pending)

    with mock.patch.object(FlatGroup, "_landed", landed):
        yield


@contextlib.contextmanager
def acknowledged_when_its_writes_have_landed():
    """A small group is durable when it is written; its flush is left out."""

    def start_sync(_self, _what, then):
        then(0)
        return True

    with mock.patch.object(FileIO, "start_sync", start_sync):
        yield


@contextlib.contextmanager
def sync_of_a_small_group_believed_though_it_failed():
    real = FlatGroup._after_sync

    def after_sync(self, _result):
        with mock.patch.object(self._file_io, "poison_cause", None):
            real(self, 0)

    with mock.patch.object(FlatGroup, "_after_sync", after_sync):
        yield


@contextlib.contextmanager
def groups_end_taken_twice():
    """What a reaper repeats is done again: as if no handler had ever raised."""
    real = FlatGroup._after_sync

    def after_sync(self, result):
        self._over = False
        real(self, result)

    with mock.patch.object(FlatGroup, "_after_sync", after_sync):
        yield


@contextlib.contextmanager
def task_entered_from_another_tasks_step():
    with mock.patch.object(wait, "_current_task", return_value=None):
        yield


@contextlib.contextmanager
def checksum_mismatch_lost():
    """The engine says that the frame is another, and nobody asks it."""

    def end(self, waited):
        self.slots.unpin(waited.entry >> 64)
        return waited.got == self.page_size

    with mock.patch.object(FrameReads, "end", end):
        yield


@contextlib.contextmanager
def cancelled_wait_lets_go_of_the_buffer():
    def cancel(self, msg=None):
        self.complete(0)
        return True

    with mock.patch.object(Wait, "cancel", cancel):
        yield


@contextlib.contextmanager
def numbers_of_operations_repeat():
    """A completion is taken for that of the operation which has its number now."""
    real = InFlight.__init__

    def begin(self, *arguments):
        real(self, *arguments)
        self.next_user_data = itertools.cycle(range(1, 9)).__next__

    with mock.patch.object(InFlight, "__init__", begin):
        yield


#: Bug: the hunt that finds it.
PLANTED_IN_FLAT_GROUPS = {
    log_position_not_moved: "small commits",
    log_position_moved_twice: "small commits",
    sync_asked_for_before_the_last_write_has_landed: "small commits",
    acknowledged_when_its_writes_have_landed: "small commits",
    short_write_counted_as_whole_by_its_group: "short by 512 among small commits",
    sync_of_a_small_group_believed_though_it_failed: "EIO among small commits",
    groups_end_taken_twice: "answers given twice",
    task_entered_from_another_tasks_step: "answers inside a push",
    checksum_mismatch_lost: "flipped bits",
    cancelled_wait_lets_go_of_the_buffer: "cancellations",
    numbers_of_operations_repeat: "a busy kernel",
}
