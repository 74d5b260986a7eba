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
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, cast

from uringblob import tuning
from uringblob.completion import Completion, call_surely, persist
from uringblob.errors import BlobStoreError, BlobStoreIOError, one_each
from uringblob.store.format import blocks_for
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.changes import Change
from uringblob.store.index.shards import Mapped, Shards
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Job, Lock
from uringblob.store.io.pending_write import PendingWrite
from uringblob.store.log.commit import Commit
from uringblob.store.log.flat_group import FlatGroup
from uringblob.store.log.group import LARGE_GROUP_BYTES, Group, Member, Waiter
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
        self._waiting: collections.deque[Member] = collections.deque()
        #: Whether a group is in flight, or the next one waits for others to join.
        self._busy = False
        self._idle: Completion[None] | None = None
        self._stepping = self._step_due = False
        #: What the next group waits for, so that others may join it; ``None``: for nothing.
        self._joining: object = None
        self._flat: FlatGroup | None = None
        self._writing = False  # a coroutine writes the group in flight
        self._members: list[Member] = []  # of the group in flight
        self._recent_group_size = 0  # callers who shared a group of late
        self.groups = self.commits = 0
        #: Held while names are listed, or a group is applied, in more than one step: neither sees the other.
        self.names_still = Lock()

    @property
    def idle(self) -> bool:
        """Whether no group is in flight or waiting."""
        return not self._busy

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
        self.join(member)
        return member.done

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
                self._interrupt(error)
            raise

    # --- from group to group -------------------------------------------------------------

    def _step(self) -> None:
        """Begin the next group, or note that there is none; a group that ends inside this has it repeated.

        What this raises goes to :meth:`_interrupt`, once.
        """
        self._step_due = True
        if self._stepping:
            return
        try:
            self._stepping = True
            while self._step_due:
                self._step_due = False
                self._begin()
        finally:
            self._stepping = False

    def _begin(self) -> None:
        if not self._waiting:
            self._become_idle()
        elif self._joining is None and len(self._waiting) < self._recent_group_size:
            self._let_others_join()
        else:
            self._joining = None
            self._write_next()

    def _become_idle(self) -> None:
        self._busy = False
        if self._idle is not None:
            idle, self._idle = self._idle, None
            idle.resolve(None)

    def _interrupt(self, error: BaseException) -> None:
        """Fail every member: a signal handler raised in here, or there was no memory to go on."""
        members, flat = [*self._members, *self._waiting], self._flat
        self._members = []
        self._waiting.clear()
        self._stepping = False
        self._joining = None
        if not isinstance(error, Exception):
            self._file_io.interrupted(error)
            error = RuntimeError(f"a signal handler raised {error!r}")
        elif self._writing or (flat is not None and flat.begun):
            self._file_io.poison(error)  # the medium may hold the group, and the index a part of it
        if flat is not None:
            flat.drop()
            self._flat = None
            self._active.exclusive.release()
        self._become_idle()
        self._fail(members, error)

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
            self._interrupt(error)
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

    def _write_next(self) -> None:
        self._members = members = []
        self._take_members(members)
        group = self._flat_group(members)
        if group is None:
            self._start(lambda: self._write_group(members))
            return
        try:
            self._index.begin_group(group.changes)
            group.join(self._index)
            group.start()
        except Exception as error:  # noqa: BLE001 - every member gets it
            group.end(durable=False, error=error)

    # --- a group by callbacks ------------------------------------------------------------

    def _flat_group(self, members: list[Member]) -> FlatGroup | None:
        """Return a group of small commits that nothing stands in the way of; it holds the log."""
        for member in members:
            if member.__class__ is not Commit:
                return None
        active = self._active
        if (
            not self._file_io.takes_changes
            or active.log.room < 1
            or not self._maintenance.log_fits(1)
            or active.exclusive.locked()
        ):
            return None
        try:
            active.exclusive.try_acquire()
            commits = cast("list[Commit]", members)
            group = FlatGroup(active.log, self._file_io, commits, self._flat_ended, self._interrupt)
            if group.fits_a_block:
                self._before_group(active.log)
                self._flat = group
                return group
        except Exception:  # noqa: BLE001 - the coroutine raises it, too, to every member
            pass
        except BaseException:
            self._flat = None
            active.exclusive.release()
            raise
        active.exclusive.release()
        return None

    def _flat_ended(self, error: Exception | None, *, durable: bool) -> None:
        group = self._flat
        assert group is not None
        if durable:
            self._apply_small(group)
            self._acknowledge(collections.deque(group.commits), group)
        else:
            self._start(lambda: self._finish_flat(group, error))

    def _apply_small(self, group: FlatGroup) -> None:
        index = self._index
        index.finish_group(group.changes, group.seq)
        index.slots.confirm(group.seq - 1, tuning.APPLIED_AT_ONCE)  # the rest with the next group
        for change in group.superseded:
            index.free_superseded(change)
        self.groups += 1

    def _acknowledge(self, members: collections.deque[Commit], group: FlatGroup) -> None:
        """Acknowledge a few members, and the others in the next iteration; then begin the next group."""
        acknowledged_bytes = 0
        for _ in range(tuning.ACKNOWLEDGED_AT_ONCE):
            if not members or acknowledged_bytes >= tuning.ACKNOWLEDGED_BYTES_AT_ONCE:
                break
            member = members[0]
            member.resolve()
            acknowledged_bytes += member.frame_bytes
            members.popleft()  # last: resolving twice does nothing
            self.commits += 1
        if members:
            call_surely(self._file_io.loop, self._acknowledge_more, members, group)
        else:
            self._release()

    def _acknowledge_more(self, members: collections.deque[Commit], group: FlatGroup) -> None:
        if self._flat is not group:
            return  # the second call of call_surely
        try:
            self._acknowledge(members, group)
        except BaseException as error:
            self._interrupt(error)
            raise

    def _release(self) -> None:
        """Let go of the log, and begin the next group."""
        self._members = []
        self._active.exclusive.release()
        self._flat = None
        try:
            self._maintenance.after_group()
        except MemoryError:
            pass  # it begins after the next group
        self._step()

    async def _finish_flat(self, group: FlatGroup, error: Exception | None) -> None:
        """Go on with ``group`` where its callbacks could not."""
        members = self._members
        try:
            self._flat = None  # its lock is this coroutine's from here on
            if error is not None and group.is_empty:
                await self._abort(group.changes)
                raise error  # nothing was merged: it is no empty group that succeeded
            failed = await self._make_durable(group, group.finish if error is None else _raising(error))
            await self._conclude(group, members, failed)
        finally:
            self._active.exclusive.release()

    # --- a group by a coroutine ----------------------------------------------------------

    def _start(self, write: Callable[[], Coroutine[Any, Any, None]]) -> None:
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
                self._interrupt(error)  # it was struck before its first line

        if job.done():
            ended(job)
        else:
            job.add_immediate_callback(ended)

    async def _run(self, write: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            try:
                await write()
            except Exception as error:  # noqa: BLE001 - every member gets it
                self._fail(self._members, error)
            self._members = []
            self._writing = False
            self._step()
        except GeneratorExit:
            raise  # the store was dropped, not closed, with all its callers
        except BaseException as error:
            self._interrupt(error)
            raise

    def _fail(self, members: Iterable[Member], error: BaseException) -> None:
        for member in members:
            member.done.reject(one_each(error))

    def _take_members(self, members: list[Member]) -> None:
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

    async def _write_group(self, members: list[Member]) -> None:
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

    async def _try_write_group(self, members: list[Member]) -> bool:
        """Write a group of ``members`` and acknowledge it; False if the log has no room for it."""
        async with self._active.exclusive:
            await self._file_io.ready()
            self._before_group(self._active.log)
            group = await self._form_group(members)
            if group is None:
                return False
            failed = await self._make_durable(group, group.write)
            await self._conclude(group, members, failed)
        return True

    async def _conclude(
        self, group: Group, members: list[Member], failed: dict[Member, BaseException]
    ) -> None:
        """Apply and acknowledge a durable group, or have the members not at fault join the next one."""
        if failed:
            self._regroup(members, failed)
            return
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

    async def _form_group(self, members: list[Member]) -> Group | None:
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

    async def _make_durable(
        self, group: Group, write: Callable[[], Awaitable[dict[Member, BaseException]]]
    ) -> dict[Member, BaseException]:
        """Write ``group``; return the members at fault, if it was wiped."""
        failed: dict[Member, BaseException] = {}
        try:
            if not group.is_empty:
                failed = await write()
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

    async def _acknowledge_in_turns(self, members: list[Member]) -> None:
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
            self.commits += not (member.flushes or member.forced)
            acknowledged += 1
            acknowledged_bytes += member.frame_bytes

    def _regroup(self, members: list[Member], failed: dict[Member, BaseException]) -> None:
        for member in reversed(members):
            if member in failed:
                member.done.reject(failed[member])
            else:
                self._waiting.appendleft(member)


def _raising(error: Exception) -> Callable[[], Awaitable[dict[Member, BaseException]]]:
    async def fail() -> dict[Member, BaseException]:
        raise error

    return fail
