"""A group that goes as it should, without a coroutine: its parts end, it is flushed, it is durable.

The commits of a small group and its one block are written together.  A :class:`FlatGroup` keeps the writes
that are not whole yet; when there are none, it asks for the fdatasync (rule 1: for nothing else), and when
that has succeeded the group is durable.  Anything else (a short write, an error, a second sync) ends the
callbacks: the coroutine of :class:`~uringblob.store.log.group_writer.GroupWriter` goes on with the answers
so far.

A reaper that a signal handler's exception ended calls a sink again, so what is counted is a set; where the
exception strikes in the middle of a callback, the store is poisoned, as by one inside a job.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from uringblob import tuning
from uringblob.completion import call_surely
from uringblob.engines import transfers
from uringblob.store.format import (
    BLOCK_SIZE,
    FLAG_FRAMES_SYNCED,
    RECORDS_PER_BLOCK,
    BlockType,
    delete_record,
    set_record,
)
from uringblob.store.index.changes import Change
from uringblob.store.io.file_io import ErrorContext
from uringblob.store.io.pending_write import PendingWrite
from uringblob.store.log.commit import Commit
from uringblob.store.log.group import LARGE_GROUP_BYTES, Group, Member
from uringblob.store.log.group_writer import GroupWriter
from uringblob.store.log.in_turns import confirm_in_turns
from uringblob.store.log.writer import BlockRun


class Groups(Protocol):
    """The queue that a group comes from."""

    def end_group(self, group: object) -> None:
        """Begin the next group: ``group`` was acknowledged, and holds the log no more; may be repeated."""

    def hand_over(self, write: Callable[[], Coroutine[Any, Any, list[Member]]]) -> None:
        """Go on with the group in flight by the coroutine of ``write``, which returns whom to regroup."""

    def interrupt(self, error: BaseException) -> None:
        """Fail every member, and poison the store if need be: ``error`` was raised in a callback."""


class FlatGroup(Group):
    """One group of small commits, and one block; it holds the log from the start to its end."""

    # Set by of(): a group is made for every commit, or few.
    _writer: GroupWriter
    _groups: Groups
    _commits: list[Commit]
    _left: set[PendingWrite]
    _run: BlockRun
    _block: PendingWrite | None = None
    _synced: int | None = None
    _over = False
    _syncing = False
    _turn: object = None

    @classmethod
    def of(cls, writer: GroupWriter, members: list[Member], groups: Groups) -> FlatGroup | None:
        """Return the group of ``members`` if all are small commits, and nothing stands in its way."""
        commits: list[Commit] = []
        for member in members:
            if not isinstance(member, Commit):
                return None
            commits.append(member)
        active, file_io = writer.active, writer.file_io
        if (
            file_io.poison_cause is not None
            or file_io.repairs.due
            or active.log.room < 1
            or not writer.maintenance.log_fits(1)
        ):
            return None
        group = cls(active.log, file_io, members)
        if group.size > RECORDS_PER_BLOCK or group._unsynced > LARGE_GROUP_BYTES:
            return None
        group._writer, group._groups, group._commits, group._left = writer, groups, commits, set()
        try:
            return group if active.exclusive.try_acquire(group) else None
        except BaseException:
            group._release()  # a signal handler's, when it was acquired
            raise

    def start(self) -> None:
        """Form the group and write its block."""
        try:
            self._writer.before_group(self._log)
            changes: dict[bytes, Change] = {}
            self.changes = changes
            self._writer.index.begin_commits(changes, self.superseded, self._commits)
            self._write(changes)
        except Exception as error:  # noqa: BLE001 - every member gets it
            self._give_up(error)

    def _write(self, changes: dict[bytes, Change]) -> None:
        records = []
        for guid, change in changes.items():
            entry = change.entry
            records.append(delete_record(guid) if entry is None else set_record(guid, entry))
        flags = 0 if self._unsynced else FLAG_FRAMES_SYNCED
        self._run = offset, data = self._log.encode_small_group(BlockType.GROUP, self.seq, records, flags)
        self.begun = True
        file_io, block = self._file_io, self._writer.block_buffer
        block.view[:] = data

        self._block = PendingWrite(file_io, offset, [block], BLOCK_SIZE, self._finish_block, offset)
        writes = [self._block]
        for commit in self._commits:
            if isinstance(commit.written, PendingWrite):
                writes.append(commit.written)  # noqa: PERF401 - a comprehension is one call more
        self._left.update(writes)
        file_io.engine.push()
        landed = self._landed
        for pending in writes:
            if pending.result is not None:
                landed(pending)
            else:
                pending.on_end = landed

    async def _finish_block(self, offset: int, answer: int) -> None:
        context = ErrorContext("writing the log", self._file_io.path, offset)
        block = self._writer.block_buffer
        await transfers.write_whole(self._file_io.engine, offset, [block], context, answer)

    # --- callbacks -----------------------------------------------------------------------

    def _landed(self, pending: PendingWrite) -> None:
        """Count a write that has ended; when all are whole, flush."""
        try:
            if self._over:
                return
            if pending.result != pending.size_bytes:
                self._give_up()
                return
            self._left.discard(pending)
            if not self._left and not self._syncing:
                self._syncing = True
                if not self._file_io.start_sync(f"commit of group {self.seq}", self._after_sync):
                    self._give_up()
        except BaseException as error:
            self._groups.interrupt(error)
            raise

    def _after_sync(self, result: int) -> None:
        """Take the sync's result, once: the reaper repeats this where a signal handler has raised."""
        try:
            if self._over:
                return
            self._synced = result
            file_io = self._file_io
            if result or file_io.syncing or file_io.poison_cause is not None:
                self._give_up()  # this sync failed, or its success proves nothing
                return
            self._over = True
            index = self._writer.index
            self._writer.active.announce(self.seq)
            self._log.accept_blocks(self.seq, 1)
            index.finish_group(self.changes, self.seq)
            if index.slots.confirm(self.seq - 1, tuning.APPLIED_AT_ONCE):
                self._confirm_rest()
            for change in self.superseded:
                index.free_superseded(change)
            self._writer.groups += 1
            self._acknowledge(collections.deque(self._commits))
        except BaseException as error:
            self._groups.interrupt(error)  # the log has the group, the index perhaps a part of it
            raise

    def _confirm_rest(self) -> None:
        """Free what a large group before this one replaced; with the groups to come, the file would grow."""
        freeing = confirm_in_turns(self._file_io.checksum_budget, self._writer.index.slots, self.seq - 1)
        with contextlib.suppress(MemoryError):  # the next group begins it
            self._file_io.start(freeing)

    def _acknowledge(self, commits: collections.deque[Commit]) -> None:
        """Acknowledge a few commits, and the others in the next iteration; then end."""
        acknowledged_bytes = 0
        for _ in range(tuning.ACKNOWLEDGED_AT_ONCE):
            if not commits or acknowledged_bytes >= tuning.ACKNOWLEDGED_BYTES_AT_ONCE:
                break
            commit = commits[0]
            commit.resolve()
            acknowledged_bytes += commit.frame_bytes
            commits.popleft()  # last: resolving twice does nothing
            self._writer.commits += 1
        if commits:
            self._turn = turn = object()
            call_surely(self._file_io.loop, self._acknowledge_more, commits, turn)
        else:
            self._release()
            self._writer.maintain()
            self._groups.end_group(self)

    def _acknowledge_more(self, commits: collections.deque[Commit], turn: object) -> None:
        if turn is not self._turn:
            return  # the second call of call_surely
        try:
            self._turn = None
            self._acknowledge(commits)
        except BaseException as error:
            self._groups.interrupt(error)
            raise

    def _release(self) -> None:
        self._writer.active.exclusive.release_from(self)

    # --- what a coroutine goes on with ---------------------------------------------------

    def drop(self) -> None:
        """Let no callback do anything any more, and let go of the log."""
        self._over = True
        self._release()

    def _give_up(self, error: Exception | None = None) -> None:
        """End the callbacks: a coroutine goes on, or fails every member with ``error``."""
        if not self._over:
            for pending in self._left:
                pending.on_end = None
            self._groups.hand_over(lambda: self._go_on(error))
            self._over = True  # last: struck before it, the queue is interrupted, and drops this group

    async def _go_on(self, error: Exception | None) -> list[Member]:
        try:
            if error is not None:
                await self._writer.abort(self, error)
                raise error
            return await self._writer.make_durable(self, self._members, self._finish_writes)
        finally:
            self._release()

    async def _finish_writes(self) -> dict[Member, BaseException]:
        assert self._block is not None  # without an error it was requested
        return await self._finish([self._run], self._block, self._synced)
