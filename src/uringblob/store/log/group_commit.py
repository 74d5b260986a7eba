"""Group commit: one group at a time, everyone who waits shares the next one.

The order that makes a commit durable with one flush (docs/format.md, rules 1, 2 and 5):

1. frames go to fresh slots, the group's blocks to fresh log space, together;
2. when *all* of them are wholly written, one fdatasync;
3. when that has returned: publish, acknowledge, and only now begin the next group.

While a group is being written and flushed, the frames of the next commits are written already,
and their records wait here; they make the next group.

If a part of a group fails, the member at fault fails and the others are put into the next group (see
:mod:`uringblob.store.log.group`).  A group for which the log has no room waits for a compaction, whose
switch goes before it.
"""

from __future__ import annotations

import collections
import contextlib
import errno
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from uringblob.completion import Completion
from uringblob.errors import BlobStoreError, BlobStoreIOError, one_each
from uringblob.store.format import blocks_for
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.changes import Change
from uringblob.store.index.shards import Mapped, mapping_for
from uringblob.store.io.checksum_budget import CHANGE, GUIDS_AT_ONCE
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Job, Lock, wait_all
from uringblob.store.io.pending_write import PendingWrite
from uringblob.store.log.group import LARGE_GROUP_BYTES, Group, Member
from uringblob.store.log.writer import Log

#: Compactions that one group waits for: the first may have begun before, and leave too little.
COMPACTIONS_MAX = 2
#: Members that hear in one loop iteration that their group is durable, and the bytes of their frames.
ACKNOWLEDGED_AT_ONCE = 64
ACKNOWLEDGED_BYTES_AT_ONCE = 2 * 1024 * 1024
#: Members of one group: as many are counted, and their frames looked for, in a millisecond.
MEMBERS_MAX = 2048
#: A group of so many changes is applied in one step.
APPLIED_AT_ONCE = 256


class LogKeeper(Protocol):
    """Who keeps the log short enough for the next group."""

    def log_fits(self, blocks: int) -> bool:
        """Tell whether a group of ``blocks`` blocks may be written."""

    async def wait_unpinned(self) -> None:
        """Wait until a compaction may begin."""

    def start_compaction(self) -> Job[None]:
        """Begin a compaction, unless one is under way; return it."""

    def after_group(self) -> None:
        """A group is durable."""


class GroupQueue:
    """The committer: forms groups out of waiting members, in order, one at a time."""

    def __init__(
        self, medium: FileIO, index: BlobIndex, page_size: int, *, before_group: Callable[[], None]
    ) -> None:
        self._medium = medium
        self._index = index
        self.page_size = page_size
        self._before_group = before_group
        self._waiting: collections.deque[Member] = collections.deque()
        self._urgent: collections.deque[Member] = collections.deque()  # turns that come before any group
        self._room_wanted: Completion[None] | None = None  # a group waits for a compaction's turn
        self._running: Job[None] | None = None
        self._recent_group_size = 0  # how many callers shared a group of late
        self.log: Log
        self.maintenance: LogKeeper
        self.groups = 0
        #: Held while names are listed, or a group is applied, in more than one step: neither sees the other.
        self.names_still = Lock()

    def __repr__(self) -> str:
        state = "idle" if self.idle else "writing"
        return f"<GroupQueue {state} waiting={len(self._waiting)} groups={self.groups}>"

    @property
    def idle(self) -> bool:
        """No group is in flight and none is waiting."""
        return self._running is None or self._running.done()

    # --- joining -------------------------------------------------------------------------

    def _completion(self) -> Completion[None]:
        return Completion(loop=self._medium.loop)

    def join_flush(self) -> Completion[None]:
        """Make every change pending when the group is formed durable."""
        pending = self._index.pending_count
        return self._join(Member(self._completion(), self._index.pending_changes, size=pending, flushes=True))

    def join_commit(
        self,
        entries: Sequence[tuple[bytes, int]],
        deletes: Sequence[bytes],
        *,
        landed: PendingWrite | Job[None] | None,
        frame_bytes: int,
    ) -> Completion[None]:
        """Make these entries and deletions durable together, and then visible."""

        def build_changes() -> Iterable[tuple[bytes, Change]]:
            return self._index.commit_changes(entries, deletes)

        size = len(entries) + len(deletes)
        member = Member(self._completion(), build_changes, size=size, landed=landed, frame_bytes=frame_bytes)
        return self._join(member)

    def commit_empty_group(self) -> Completion[None]:
        """Write a group even if it is empty: then the one before it is no longer the last."""
        return self._join(Member(self._completion(), tuple, forced=True))

    def run_exclusive(self, turn: Callable[[], Awaitable[None]], *, first: bool = False) -> Completion[None]:
        """Run ``turn`` with no group in flight: in this queue's order, or before the next group."""
        member = Member(self._completion(), tuple, turn=turn)
        if not first:
            return self._join(member)
        self._urgent.append(member)
        if self._room_wanted is not None and not self._room_wanted.done():
            self._room_wanted.resolve(None)
        return self._begun(member)

    def _join(self, member: Member) -> Completion[None]:
        self._waiting.append(member)
        try:
            return self._begun(member)
        except BaseException:
            # The caller takes its slots back: no later group may log them.
            if member in self._waiting:
                self._waiting.remove(member)
            raise

    def _begun(self, member: Member) -> Completion[None]:
        if self.idle:
            self._running = self._medium.start(self._run())
        return member.done

    # --- the committer -------------------------------------------------------------------

    async def _run(self) -> None:
        while self._waiting or self._urgent:
            members: list[Member] = []
            try:
                await self._let_others_join()
                self._take_members(members)
                if members[0].turn is not None:
                    await members[0].turn()
                    members[0].done.resolve(None)
                else:
                    await self._write_group(members)
            except Exception as error:  # noqa: BLE001 - every member gets it; nobody is left waiting
                self._fail(members, error)
            except GeneratorExit:
                raise  # the store was dropped, not closed, and everybody who waits with it
            except BaseException as error:
                # A signal handler raised in here, and this job ends: so does everybody's wait.
                self._fail(
                    [*members, *self._urgent, *self._waiting],
                    RuntimeError(f"a signal handler raised {error!r}"),
                )
                self._urgent.clear()
                self._waiting.clear()
                raise

    async def _let_others_join(self) -> None:
        """Callers who shared a group come back together: give them this tick, their turns at
        checksumming, and if some are still missing, the first's frames.

        Without it 64 committers fall into groups of 1 and 63, and each of the two waits for the
        other's flush, again and again.  A lone committer never waits here; and when all are there,
        the group's blocks are written while the device is busy with the frames.
        """
        if self._urgent or len(self._waiting) >= self._recent_group_size:
            return
        await self._medium.next_tick()
        await self._medium.checksum_budget.acquire(0)
        first = self._waiting[0].landed
        if len(self._waiting) < self._recent_group_size and first is not None and not first.done():
            await wait_all([first])

    def _fail(self, members: list[Member], error: Exception) -> None:
        for member in members:
            member.done.reject(one_each(error))

    def _take_members(self, members: list[Member]) -> None:
        """Move who waits into ``members``, as far as they make one group, or a single turn."""
        if self._urgent:
            members.append(self._urgent.popleft())
            return
        frame_bytes = 0
        while self._waiting:
            member = self._waiting[0]
            frame_bytes += member.frame_bytes
            if members and (members[0].turn or member.turn or frame_bytes > LARGE_GROUP_BYTES):
                break
            if len(members) >= MEMBERS_MAX:
                break
            # In both lists for a moment, never in none: should a signal handler raise, all must hear of it.
            members.append(member)
            self._waiting.popleft()
        self._recent_group_size = max(len(members), self._recent_group_size // 2)

    async def _write_group(self, members: list[Member]) -> None:
        await self._medium.ready()
        self._before_group()
        group = await self._form_group(members)
        changes = group.changes
        try:
            idle = not changes and not any(member.forced for member in members)
            failed = {} if idle else await group.write()
        except BaseException as error:
            self._index.abort_group(changes)
            if group.begun:
                self._distrust(error)
            raise
        if failed:
            self._index.abort_group(changes)
            self._regroup(members, failed)
            return
        try:
            if idle:
                self._index.end_group()
            else:
                await self._apply(group)
            await self._acknowledge_in_turns(members)
        except BaseException as error:
            self._distrust(error)
            raise
        if not idle:
            # Upkeep that there is no memory to begin is begun after the next group.
            with contextlib.suppress(MemoryError):
                self.maintenance.after_group()

    def _distrust(self, error: BaseException) -> None:
        """Poison the store after what no engine raises: its group may be on the medium, and it may not."""
        if isinstance(error, Exception) and not isinstance(error, BlobStoreError):
            self._medium.poison(error)

    async def _form_group(self, members: list[Member]) -> Group:
        """Collect what the members change, once the log has room for it."""
        compactions = 0
        while True:
            changes: Mapped[Change] = mapping_for(sum(member.size for member in members))
            group = Group(self.log, self._medium, self.page_size, members, changes)
            self._index.begin_group(changes)
            try:
                await group.build_changes(self._index)
                forced = any(member.forced for member in members)
                if not (changes or forced) or self.maintenance.log_fits(blocks_for(len(changes))):
                    return group
            except BaseException:
                self._index.abort_group(changes)
                raise
            self._index.abort_group(changes)  # what is pending may change while it waits
            compactions += 1
            await self._make_room(compactions)

    async def _make_room(self, times: int) -> None:
        """The log has no room for the next group: let a compaction come to its switch, and run that."""
        if times > COMPACTIONS_MAX:
            raise BlobStoreIOError(
                errno.ENOSPC,
                f"{self._medium.path}: the log has no room for this change, also after a compaction; "
                "change fewer blobs at once, or give the disk more room",
            )
        await self.maintenance.wait_unpinned()
        wanted = self._room_wanted = self._completion()
        compaction = self.maintenance.start_compaction()
        compaction.add_done_callback(lambda _: None if wanted.done() else wanted.resolve(None))
        if self._urgent:
            wanted.resolve(None)  # it joined before
        await wanted
        self._room_wanted = None
        if not self._urgent:
            await compaction  # it ended without its turn, so it raises why
            return
        member = self._urgent[0]  # until it has ended: a signal handler that raises must fail it, too
        assert member.turn is not None
        try:
            await member.turn()
        except Exception as error:  # noqa: BLE001 - the compaction raises it, below
            member.done.reject(error)
        else:
            member.done.resolve(None)
        self._urgent.remove(member)
        await compaction

    async def _apply(self, group: Group) -> None:
        """The group is durable: make it visible, and free what it replaced."""
        index, changes = self._index, group.changes
        try:
            if len(changes) <= APPLIED_AT_ONCE:
                index.finish_group(changes, group.seq)
            else:
                for number, change in enumerate(changes.values()):
                    if number % GUIDS_AT_ONCE == 0:
                        await self._turn_at_changes()
                    index.mark_slot_live(change)
                async with self.names_still:
                    index.show_group(changes)
                    for number, (guid, change) in enumerate(changes.items()):
                        if number % GUIDS_AT_ONCE == 0:
                            await self._turn_at_changes()
                        index.apply_change(guid, change, group.seq)
                    index.end_group()
            while index.slots.confirm(group.seq - 1, GUIDS_AT_ONCE):
                await self._turn_at_changes()
            for start in range(0, len(group.superseded), GUIDS_AT_ONCE):
                if start:
                    await self._turn_at_changes()
                index.drop_unlogged(group.superseded[start : start + GUIDS_AT_ONCE])
        except Exception as error:
            self._medium.poison(error)  # the log has it, and the map only a part of it
            raise
        self.groups += 1

    async def _turn_at_changes(self) -> None:
        budget = self._medium.checksum_budget
        if not budget.try_acquire(GUIDS_AT_ONCE * CHANGE):
            await budget.acquire(GUIDS_AT_ONCE * CHANGE)

    async def _acknowledge_in_turns(self, members: list[Member]) -> None:
        """Let the first of many begin their next commit while the others hear of this one.

        64 who hear of it in one iteration hand their next frames of 512 KiB to the device 0.4 ms
        later, and it has nothing to do until then.  Small frames are written so quickly that the
        iterations would cost more (a quarter of the commits a second, with 4 KiB).
        """
        acknowledged = acknowledged_bytes = 0
        for member in members:
            if acknowledged >= ACKNOWLEDGED_AT_ONCE or acknowledged_bytes >= ACKNOWLEDGED_BYTES_AT_ONCE:
                await self._medium.next_tick()
                acknowledged = acknowledged_bytes = 0
            member.done.resolve(None)
            acknowledged += 1
            acknowledged_bytes += member.frame_bytes

    def _regroup(self, members: list[Member], failed: dict[Member, BaseException]) -> None:
        for member in reversed(members):
            if member in failed:
                member.done.reject(failed[member])
            else:
                self._waiting.appendleft(member)
