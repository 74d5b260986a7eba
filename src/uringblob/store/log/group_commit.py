"""Group commit: one group at a time, which all who wait for it share.

The next group begins only when the one before it is durable, published and acknowledged.  Meanwhile the
frames of the next commits are written, and their records wait here.  A group of small commits, with nothing
in its way, is a :class:`~uringblob.store.log.flat_group.FlatGroup`, which needs no coroutine; any other is
written by :class:`~uringblob.store.log.group_writer.GroupWriter`.  There is one queue for both.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from uringblob import tuning
from uringblob.completion import Completion, call_surely, persist
from uringblob.errors import BlobStoreError, one_each
from uringblob.store.index.changes import Change, Conditions
from uringblob.store.io.job import Job
from uringblob.store.io.pending_write import PendingWrite
from uringblob.store.log.flat_group import FlatGroup
from uringblob.store.log.group import LARGE_GROUP_BYTES, Member, Waiter
from uringblob.store.log.group_writer import GroupWriter


class GroupQueue:
    """Forms groups out of waiting members, in order, and writes one at a time."""

    def __init__(self, writer: GroupWriter) -> None:
        self._writer = writer
        self._file_io = writer.file_io
        self._index = writer.index
        self._waiting: collections.deque[Member] = collections.deque()
        #: Whether a group is in flight, or the next one waits for others to join.
        self._busy = False
        self._idle: Completion[None] | None = None
        self._stepping = self._step_due = False
        #: What the next group waits for, so that others may join it; ``None``: for nothing.
        self._joining: object = None
        #: The group in flight, ``None`` if a coroutine writes it, and its members.
        self._group: FlatGroup | None = None
        self._members: list[Member] = []
        self._writing = False  # a coroutine writes the group in flight
        self._recent_group_size = 0  # callers who shared a group of late

    @property
    def idle(self) -> bool:
        """Whether no group is in flight or waiting."""
        return not self._busy

    @property
    def flat(self) -> bool:
        """Whether the group in flight needs no coroutine."""
        return self._group is not None

    async def wait_idle(self) -> None:
        """Wait until no group is in flight or waiting; errors are those of their members."""
        while self._busy:
            if self._idle is None:
                self._idle = Completion(loop=self._file_io.loop)
            await self._idle

    # --- joining -------------------------------------------------------------------------

    def join_flush(self) -> Completion[None]:
        """Make every change durable that is pending when the group is formed."""
        return self._join(self._index.pending_changes, size=self._index.pending_count, flushes=True)

    def join_commit(
        self,
        entries: Sequence[tuple[bytes, int]],
        deletes: Sequence[bytes],
        *,
        written: PendingWrite | Job[None] | None,
        frame_bytes: int,
        conditions: Conditions = (),
    ) -> Completion[None]:
        """Make these entries and deletions durable together, and then visible."""

        def build_changes() -> Iterable[tuple[bytes, Change]]:
            return self._index.commit_changes(entries, deletes)

        size = len(entries) + len(deletes)
        return self._join(
            build_changes, size=size, written=written, frame_bytes=frame_bytes, conditions=conditions
        )

    def join_moves(self, moves: Sequence[tuple[bytes, int, int]], frame_bytes: int) -> Completion[None]:
        """Give blobs other slots, durably: of each guid the old entry and the new one.

        Where anything else has changed a blob, or changes it in the same group, the new slot is free again.
        """

        def build_changes() -> Iterable[tuple[bytes, Change]]:
            for guid, old, new in moves:
                yield guid, Change(new, moves=old)

        # Forced: also a group of which no move is left frees their slots.
        return self._join(build_changes, size=len(moves), frame_bytes=frame_bytes, forced=True)

    def commit_empty_group(self) -> Completion[None]:
        """Write a group even if it is empty: then the one before it is no longer the last."""
        return self._join(tuple, forced=True)

    def _join(
        self, build_changes: Callable[[], Iterable[tuple[bytes, Change]]], **fields: Any
    ) -> Completion[None]:
        member = Waiter(Completion(loop=self._file_io.loop), build_changes, **fields)
        self.join(member)
        return member.end

    def join(self, member: Member) -> None:
        """Have ``member`` take part in the next group."""
        busy = self._busy
        try:
            self._waiting.append(member)
            if not busy:
                self._busy = True
                self._step()
        except BaseException as error:
            # The caller frees its slots: no later group may log them.
            if member in self._waiting:
                self._waiting.remove(member)
            if not busy:
                self.interrupt(error)
            raise

    # --- from group to group -------------------------------------------------------------

    def _step(self) -> None:
        """Begin the next group, or note that there is none; a group that ends inside this has it repeated.

        What this raises goes to :meth:`interrupt`, once.
        """
        self._step_due = True
        if self._stepping:
            return
        try:
            self._stepping = True
            while self._step_due:
                self._step_due = False
                if not self._waiting:
                    self._become_idle()
                elif self._joining is None and len(self._waiting) < self._recent_group_size:
                    self._let_others_join()
                else:
                    self._joining = None
                    self._write_next()
        finally:
            self._stepping = False

    def _become_idle(self) -> None:
        self._busy = False
        if self._idle is not None:
            idle, self._idle = self._idle, None
            idle.resolve(None)

    def interrupt(self, error: BaseException) -> None:
        """Fail every member: a signal handler raised in here, or there was no memory to go on."""
        members, group = [*self._members, *self._waiting], self._group
        self._members = []
        self._waiting.clear()
        self._stepping = False
        self._joining = None
        if not isinstance(error, Exception):
            self._file_io.interrupted(error)
            error = RuntimeError(f"a signal handler raised {error!r}")
        elif self._writing or (group is not None and group.begun):
            self._file_io.poison(error)  # the medium may hold the group, and the index a part of it
        if group is not None:
            self._group = None
            group.drop()
        self._become_idle()
        self._fail(members, error)

    # --- who else joins ------------------------------------------------------------------

    def _let_others_join(self) -> None:
        """Wait for the last group's callers, which resume together, to submit their next commits.

        At most for this tick, for their checksums, and for the first one's frames.  Otherwise 64 committers
        fall into groups of 1 and 63 that wait for each other's flush.  A lone committer never waits here; and
        when all are there, the group's blocks are written while the device is busy with the frames.
        """
        self._joining = tick = object()
        call_surely(self._file_io.loop, self._go_on, tick, self._tick_passed)

    def _go_on(self, tick: object, step: Callable[[], None]) -> None:
        if tick is not self._joining:
            return  # the second call for this tick
        try:
            step()
        except BaseException as error:
            self.interrupt(error)
            raise

    def _go_on_after(self, completion: Completion[Any], step: Callable[[], None]) -> None:
        if completion.done():
            step()  # a write that failed, or was short, before the tick was over
            return
        self._joining = tick = object()
        # Twice: a signal handler that raises before the first line of a callback drops that call.
        for _ in range(2):
            completion.add_immediate_callback(lambda _: self._go_on(tick, step))

    def _tick_passed(self) -> None:
        barrier = self._file_io.checksum_budget.barrier()
        if barrier is None:
            self._budget_passed()
        else:
            self._go_on_after(barrier, self._budget_passed)

    def _budget_passed(self) -> None:
        first = self._waiting[0].written if self._waiting else None
        if len(self._waiting) >= self._recent_group_size or first is None or first.done():
            self._step()
        else:
            self._go_on_after(first.request() if isinstance(first, PendingWrite) else first, self._step)

    # --- one group -----------------------------------------------------------------------

    def _write_next(self) -> None:
        """Take waiting members, as far as they make one group, and write that."""
        self._members = members = list[Member]()
        waiting, frame_bytes = self._waiting, 0
        while waiting and len(members) < tuning.GROUP_MEMBERS_MAX:
            member = waiting[0]
            frame_bytes += member.frame_bytes
            if members and frame_bytes > LARGE_GROUP_BYTES:
                break
            # In both lists for a moment, never in none: if a signal handler raises, all of them fail.
            members.append(member)
            waiting.popleft()
        self._recent_group_size = max(len(members), self._recent_group_size // 2)
        self._group = group = FlatGroup.of(self._writer, members, self)
        if group is None:
            self._start(lambda: self._writer.write(members))
        else:
            group.start()

    def end_group(self, group: object) -> None:
        """Begin the next group: ``group`` was acknowledged."""
        if group is self._group:
            self._group = None
            self._members = []
            self._step()

    def hand_over(self, write: Callable[[], Coroutine[Any, Any, list[Member]]]) -> None:
        """Go on with the group in flight by the coroutine of ``write``, which returns whom to regroup."""
        group, self._group = self._group, None  # before: the job may end, and begin the next group
        try:
            self._start(write)
        except BaseException:
            self._group = group
            raise

    def _start(self, write: Callable[[], Coroutine[Any, Any, list[Member]]]) -> None:
        """Write the group of the members in flight by a job; then begin the next."""
        members = self._members
        self._writing = True
        try:
            job = persist(lambda: self._file_io.start(self._run(write)))
        except MemoryError:
            self._writing = False  # it did not begin
            raise

        def ended(_: object) -> None:
            error = job.exception()
            if error is not None and self._members is members:
                self.interrupt(error)  # it was struck before its first line

        if job.done():
            ended(job)
        else:
            job.add_immediate_callback(ended)

    async def _run(self, write: Callable[[], Coroutine[Any, Any, list[Member]]]) -> None:
        try:
            try:
                for member in reversed(await write()):
                    self._waiting.appendleft(member)
            except Exception as error:  # noqa: BLE001 - every member gets it
                self._fail(self._members, error)
            self._members = []
            self._writing = False
            self._step()
        except GeneratorExit:
            raise  # the store was dropped, not closed, with all its callers
        except BaseException as error:
            self.interrupt(error)
            raise

    def _fail(self, members: Iterable[Member], error: BaseException) -> None:
        if isinstance(error, BlobStoreError):
            # Its traceback has functions that refer to it: a cycle, and from CPython 3.12 on with their
            # callers, one of which may have a caller's frames.
            error.__traceback__ = None
        for member in members:
            member.end.reject(one_each(error))
