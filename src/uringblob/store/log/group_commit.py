"""Group commit: one group at a time, which all who wait for it share.

:mod:`uringblob.store.log.group` makes a group durable by one flush; the next one begins only when it is
published and acknowledged.  Meanwhile the frames of the next commits are written, and their records wait
here.  If a part of a group fails, the member at fault fails and the others join the next group.  A group
for which the log has no room waits for a compaction.
"""

from __future__ import annotations

import collections
import contextlib
import errno
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from uringblob import tuning
from uringblob.completion import Completion
from uringblob.errors import BlobStoreError, BlobStoreIOError, one_each
from uringblob.store.format import blocks_for
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.changes import Change
from uringblob.store.index.shards import Mapped, Shards
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Job, Lock, wait_all
from uringblob.store.io.pending_write import PendingWrite
from uringblob.store.log.group import LARGE_GROUP_BYTES, Group, Waiter
from uringblob.store.log.in_turns import confirm_in_turns, each_in_turns
from uringblob.store.log.maintenance import LogMaintenance
from uringblob.store.log.writer import ActiveLog, Log

#: Compactions that one group waits for: the first may have begun before, and leave too little room.
COMPACTIONS_MAX = 2


class GroupQueue:
    """Forms groups out of waiting members, in order, and writes one at a time."""

    def __init__(
        self,
        file_io: FileIO,
        index: BlobIndex,
        active: ActiveLog,
        maintenance: LogMaintenance,
        *,
        before_group: Callable[[Log], None],
    ) -> None:
        """``before_group`` raises if no group may be written to the log."""
        self._file_io = file_io
        self._index = index
        self._active = active
        self._maintenance = maintenance
        self._before_group = before_group
        self._waiting: collections.deque[Waiter] = collections.deque()
        self._running: Job[None] | None = None
        self._recent_group_size = 0  # callers who shared a group of late
        self.groups = 0
        #: Held while names are listed, or a group is applied, in more than one step: neither sees the other.
        self.names_still = Lock()

    @property
    def idle(self) -> bool:
        """Whether no group is in flight or waiting."""
        return self._running is None or self._running.done()

    async def wait_idle(self) -> None:
        """Wait until no group is in flight or waiting; errors are those of their members."""
        if self._running is not None:
            await wait_all([self._running])

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
    ) -> Completion[None]:
        """Make these entries and deletions durable together, and then visible."""

        def build_changes() -> Iterable[tuple[bytes, Change]]:
            return self._index.commit_changes(entries, deletes)

        size = len(entries) + len(deletes)
        return self._join(build_changes, size=size, written=written, frame_bytes=frame_bytes)

    def commit_empty_group(self) -> Completion[None]:
        """Write a group even if it is empty: then the one before it is no longer the last."""
        return self._join(tuple, forced=True)

    def _join(
        self, build_changes: Callable[[], Iterable[tuple[bytes, Change]]], **fields: Any
    ) -> Completion[None]:
        member = Waiter(Completion(loop=self._file_io.loop), build_changes, **fields)
        self._waiting.append(member)
        try:
            if self.idle:
                self._running = self._file_io.start(self._run())
        except BaseException:
            # The caller frees its slots: no later group may log them.
            if member in self._waiting:
                self._waiting.remove(member)
            raise
        return member.done

    # --- the committer -------------------------------------------------------------------

    async def _run(self) -> None:
        while self._waiting:
            members: list[Waiter] = []
            try:
                await self._let_others_join()
                self._take_members(members)
                await self._write_group(members)
            except Exception as error:  # noqa: BLE001 - every member gets it
                self._fail(members, error)
            except GeneratorExit:
                raise  # the store was dropped, not closed, with all its callers
            except BaseException as error:
                # A signal handler raised in here.  This job ends, so every wait for it ends, too.
                self._fail([*members, *self._waiting], RuntimeError(f"a signal handler raised {error!r}"))
                self._waiting.clear()
                raise

    async def _let_others_join(self) -> None:
        """Wait for the last group's callers, which resume together, to submit their next commits.

        At most for this tick, for their checksums, and for the first one's frames.  Otherwise 64 committers
        fall into groups of 1 and 63 that wait for each other's flush.  A lone committer never waits here; and
        when all are there, the group's blocks are written while the device is busy with the frames.
        """
        if len(self._waiting) >= self._recent_group_size:
            return
        await self._file_io.next_tick()
        await self._file_io.checksum_budget.acquire(0)
        first = self._waiting[0].written
        if len(self._waiting) < self._recent_group_size and first is not None and not first.done():
            await wait_all([first])

    def _fail(self, members: list[Waiter], error: Exception) -> None:
        for member in members:
            member.done.reject(one_each(error))

    def _take_members(self, members: list[Waiter]) -> None:
        """Move waiting members into ``members``, as far as they make one group."""
        frame_bytes = 0
        while self._waiting and len(members) < tuning.GROUP_MEMBERS_MAX:
            member = self._waiting[0]
            frame_bytes += member.frame_bytes
            if members and frame_bytes > LARGE_GROUP_BYTES:
                break
            # In both lists for a moment, never in none: if a signal handler raises, all of them fail.
            members.append(member)
            self._waiting.popleft()
        self._recent_group_size = max(len(members), self._recent_group_size // 2)

    async def _write_group(self, members: list[Waiter]) -> None:
        compactions = 0
        while not await self._try_write_group(members):
            if compactions == COMPACTIONS_MAX:
                raise BlobStoreIOError(
                    errno.ENOSPC,
                    f"{self._file_io.path}: the log has no room for this change, also after a compaction; "
                    "change fewer blobs at once, or give the disk more room",
                )
            compactions += 1
            await self._maintenance.wait_unpinned()
            await self._maintenance.start_compaction()

    async def _try_write_group(self, members: list[Waiter]) -> bool:
        """Write a group of ``members`` and acknowledge it; False if the log has no room for it."""
        async with self._active.exclusive:
            await self._file_io.ready()
            self._before_group(self._active.log)
            group = await self._form_group(members)
            if group is None:
                return False
            failed = await self._make_durable(group)
            if failed:
                self._regroup(members, failed)
                return True
            try:
                await self._apply(group)
                await self._acknowledge_in_turns(members)
            except Exception as error:
                self._file_io.poison(error)  # the log has it, and the index perhaps a part of it only
                raise
            if not group.is_empty:
                # Without memory, maintenance begins after the next group.
                with contextlib.suppress(MemoryError):
                    self._maintenance.after_group()
        return True

    async def _form_group(self, members: list[Waiter]) -> Group | None:
        """Build the changes of ``members``; ``None`` if the log has no room for them."""
        group = Group(self._active.log, self._file_io, members)
        self._index.begin_group(group.changes)
        try:
            await group.build_changes(self._index)
        except Exception:
            await self._abort(group.changes)
            raise
        if group.is_empty or self._maintenance.log_fits(blocks_for(len(group.changes))):
            return group
        await self._abort(group.changes)  # what is pending may change before the next attempt
        return None

    async def _make_durable(self, group: Group) -> dict[Waiter, BaseException]:
        """Write ``group``; return the members at fault, if it was wiped."""
        failed: dict[Waiter, BaseException] = {}
        try:
            if not group.is_empty:
                failed = await group.write()
        except Exception as error:
            if group.begun and not isinstance(error, BlobStoreError):
                self._file_io.poison(error)  # no memory, say: the medium may hold the group, or not
            await self._abort(group.changes)
            raise
        if failed:
            await self._abort(group.changes)
        return failed

    async def _abort(self, changes: Mapped[Change]) -> None:
        index = self._index
        await each_in_turns(
            self._file_io.checksum_budget, lambda item: index.abort_change(*item), changes.items()
        )
        index.end_group()

    async def _apply(self, group: Group) -> None:
        """Make the durable ``group`` visible, and free what it replaced."""
        index, budget, changes, seq = self._index, self._file_io.checksum_budget, group.changes, group.seq
        if group.is_empty:
            index.end_group()
            return
        if len(changes) <= tuning.APPLIED_AT_ONCE:
            index.finish_group(changes, seq)
        else:
            await each_in_turns(budget, index.mark_slot_live, changes.values())
            async with self.names_still:
                index.show_group(changes)
                await each_in_turns(budget, lambda item: index.apply_change(*item, seq), changes.items())
                index.end_group()
        await confirm_in_turns(budget, index.slots, seq - 1)
        await each_in_turns(budget, index.free_superseded, group.superseded)
        self.groups += 1
        if isinstance(changes, Shards):
            await each_in_turns(budget, dict.clear, changes.parts)  # 100,000 changes take 5 ms to free

    async def _acknowledge_in_turns(self, members: list[Waiter]) -> None:
        """Acknowledge a few members per loop iteration, so that the first ones begin their next commit.

        64 of them, acknowledged at once, submit their next frames of 512 KiB 0.4 ms later, and the device
        idles.  Small frames are written so quickly that more iterations cost more (a quarter of the commits
        a second, with 4 KiB).
        """
        acknowledged = acknowledged_bytes = 0
        for member in members:
            if (
                acknowledged >= tuning.ACKNOWLEDGED_AT_ONCE
                or acknowledged_bytes >= tuning.ACKNOWLEDGED_BYTES_AT_ONCE
            ):
                await self._file_io.next_tick()
                acknowledged = acknowledged_bytes = 0
            member.done.resolve(None)
            acknowledged += 1
            acknowledged_bytes += member.frame_bytes

    def _regroup(self, members: list[Waiter], failed: dict[Waiter, BaseException]) -> None:
        for member in reversed(members):
            if member in failed:
                member.done.reject(failed[member])
            else:
                self._waiting.appendleft(member)
