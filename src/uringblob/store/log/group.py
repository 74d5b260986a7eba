"""One group and its members (docs/maintainers/format.md, rules 1, 2, 5 and 15).

Frames go to fresh slots and the group's blocks to fresh log space, together; when *all* of them are
wholly written, one fdatasync.  If a part fails, the blocks are zeroed and flushed before anything else
happens, and the members at fault fail; without room for that all of them fail, and it is done before
the next change (see :mod:`uringblob.store.io.repairs`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Union

from uringblob.completion import Completion
from uringblob.errors import BlobStoreIOError, ConditionFailed
from uringblob.store.format import (
    CHECKSUM_MASK,
    FLAG_FRAMES_SYNCED,
    BlockType,
    EntryWithMeta,
    blocks_for,
    delete_record,
    meta_cells,
    packed,
    set_record,
)
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.changes import Change, Conditions
from uringblob.store.index.shards import FEW, Mapped, Shards, mapping_for
from uringblob.store.io.checksum_budget import GUIDS_AT_ONCE
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Job, wait_all
from uringblob.store.io.pending_write import PendingWrite
from uringblob.store.log.commit import Commit
from uringblob.store.log.in_turns import acquire_changes
from uringblob.store.log.writer import BlockRun, Log

#: Unflushed frames beyond which a group is flushed before it is logged (rule 15).
LARGE_GROUP_BYTES = 64 * 1024 * 1024


@dataclasses.dataclass(eq=False)
class Waiter:
    """One caller's part of a group, for whose end a job waits.

    ``build_changes`` yields its ``size`` changes when the group is formed, and again after a failed
    group; ``flushes``: they are all pending changes.  ``written``, awaited, ends when its frames are
    wholly written; ``frame_bytes``: how many of their bytes no flush has covered.  ``forced``: write a
    group even without a record.  ``conditions`` are checked where it joins a group.  ``end`` resolves when
    all of it is durable.
    """

    end: Completion[None]
    build_changes: Callable[[], Iterable[tuple[bytes, Change]]]
    size: int = 0
    flushes: bool = False
    written: PendingWrite | Job[None] | None = None
    frame_bytes: int = 0
    forced: bool = False
    conditions: Conditions = ()


#: One caller's part of a group.
Member = Union[Waiter, Commit]
#: A change that joined a group, behind the one that it superseded there.
_Joined = tuple[Change | None, Change]


class Group:
    """One group, from its members' changes to a durable record."""

    def __init__(self, log: Log, file_io: FileIO, members: list[Member]) -> None:
        self._log = log
        self._file_io = file_io
        self._members = members
        self._unsynced = self.size = 0
        for member in members:
            self._unsynced += member.frame_bytes
            self.size += member.size
        self.changes: Mapped[Change] = {} if self.size <= FEW else Shards()
        self.meta_cells = 0  #: of the log, for the changes' metadata, and that of those they superseded
        self.superseded: list[Change] = []  #: by others in this group: no record names their frames
        self.seq = log.seq + 1
        self.begun = False  #: whether the medium may hold any of it
        #: Members of which a condition does not hold; they take no part, and fail when the rest is durable.
        self.refused: dict[Member, ConditionFailed] = {}

    @property
    def blocks(self) -> int:
        """How many blocks it takes."""
        return blocks_for(len(self.changes), self.meta_cells)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.changes and not any(member.forced for member in self._members)

    async def build_changes(self, index: BlobIndex) -> None:
        """Merge the members' changes in order, commits first; the last one to name a guid wins."""
        number = 0
        commits = [member for member in self._members if not member.flushes]
        # All flushes bring the same changes.
        flushes = [member for member in self._members if member.flushes][:1]
        for member in (*commits, *flushes):
            joined: Mapped[_Joined] | None = mapping_for(member.size) if member.conditions else None
            superseded = len(self.superseded)
            for guid, change in member.build_changes():
                number += 1
                if number % GUIDS_AT_ONCE == 0:
                    await acquire_changes(self._file_io.checksum_budget)
                if isinstance(change.entry, EntryWithMeta):
                    self.meta_cells += meta_cells(change.entry.meta)
                superseded_change = index.join_group(self.changes, guid, change)
                if superseded_change is not None:
                    self.superseded.append(superseded_change)
                if change.pending is not None and not change.pending.synced:
                    self._unsynced += self._log.page_size
                if joined is not None:
                    joined[guid] = superseded_change, change
            if joined is not None and not await self._conditions_hold(index, member, joined):
                await self._leave_out(member, joined)
                del self.superseded[superseded:]

    async def _conditions_hold(self, index: BlobIndex, member: Member, joined: Mapped[_Joined]) -> bool:
        """Check the conditions of ``member``, whose changes have ``joined``, against what was there before.

        Its changes join first: from then on what else is written or deleted counts as later than this group.
        """
        for number, (guid, expected) in enumerate(member.conditions, 1):
            if number % GUIDS_AT_ONCE == 0:
                await acquire_changes(self._file_io.checksum_budget)
            before, own = joined.get(guid) or (self.changes.get(guid), None)
            entry = index.find_in_group(guid, before, own)
            found = None if entry is None else entry & CHECKSUM_MASK
            if found != expected:
                self.refused[member] = ConditionFailed(guid, expected, found, self._file_io.path)
                return False
        return True

    async def _leave_out(self, member: Member, joined: Mapped[_Joined]) -> None:
        """Go on without ``member``, whose changes have ``joined``."""
        self._members = [other for other in self._members if other is not member]
        self._unsynced -= member.frame_bytes
        for number, (guid, (before, _)) in enumerate(joined.items(), 1):
            if number % GUIDS_AT_ONCE == 0:
                await acquire_changes(self._file_io.checksum_budget)
            if before is None:
                del self.changes[guid]
            else:
                self.changes[guid] = before

    async def write(self) -> dict[Member, BaseException]:
        """Make the group durable; or wipe it and return the members at fault with their errors.

        :raises BlobStoreIOError: by no member's fault; the store is poisoned, or the log had no room.
        """
        blocks = self.blocks
        await self._log.ensure_room(blocks)
        synced, failed = await self._sync_first()
        if failed:
            return failed
        records = (
            delete_record(guid) if change.entry is None else set_record(guid, change.entry)
            for guid, change in self.changes.items()
        )
        flags = FLAG_FRAMES_SYNCED if synced else 0
        if blocks == 1:
            runs = [self._log.encode_small_group(BlockType.GROUP, self.seq, list(records), flags)]
        else:
            parts = packed(records)
            runs = await self._log.encode_group(BlockType.GROUP, self.seq, parts, blocks, flags=flags)
        self.begun = True
        return await self._finish(runs, self._file_io.start(self._log.write(runs)))

    async def _finish(
        self, runs: list[BlockRun], writing: PendingWrite | Job[None], synced: int | None = None
    ) -> dict[Member, BaseException]:
        """Wait for the blocks' write and the members', and make them durable, or wipe the group.

        ``synced`` is the sync's result, if it was made.
        """
        failed = await self._failed_members()
        log_errors = await wait_all([writing])
        if log_errors:
            await self._log.undo_failed(log_errors[0], runs)
            raise log_errors[0]
        if failed:
            return await self._wipe(runs, failed)
        what = f"commit of group {self.seq}"
        if synced is None:
            await self._file_io.sync(what)
        elif synced < 0:
            raise self._file_io.sync_failure(what, synced)
        else:
            await self._file_io.confirm_sync(what)
        self._log.accept(self.seq, runs)
        return {}

    async def _sync_first(self) -> tuple[bool, dict[Member, BaseException]]:
        """Flush a large group's frames before its blocks; return whether all frames are flushed."""
        if self._unsynced <= LARGE_GROUP_BYTES:
            return self._unsynced == 0, {}
        failed = await self._failed_members()
        if not failed:
            await self._file_io.sync(f"frames of group {self.seq}")
        return True, failed

    async def _failed_members(self) -> dict[Member, BaseException]:
        """Wait for every member's frames; return the members whose frames failed."""
        rest: list[tuple[Member, PendingWrite | Job[None]]] = []
        for member in reversed(self._members):  # mostly all are written when the last one's are
            written = member.written
            if isinstance(written, PendingWrite):
                if written.result is None:
                    await written.request()
                if written.whole:
                    written = member.written = None  # it holds the caller's buffers
                else:
                    written.finish_short()  # all short writes are finished concurrently
            if written is not None:
                rest.append((member, written))
        failed: dict[Member, BaseException] = {}
        for member, written in rest:
            errors = await wait_all([written])
            if errors:
                failed[member] = errors[0]
            else:
                member.written = None
        return failed

    async def _wipe(
        self, runs: list[BlockRun], failed: dict[Member, BaseException]
    ) -> dict[Member, BaseException]:
        """Wipe the group; return the members that fail, with their errors."""
        if await self._log.wipe(runs):
            return failed
        # After a crash recovery may find the group, whole if the missing frames reached the medium.  So the
        # outcome of every member is unknown, and none may join another group before the wipe.
        errors = {member: failed.get(member) or self._file_io.repairs.refusal() for member in self._members}
        for error in errors.values():
            if isinstance(error, BlobStoreIOError):
                error.applied = None
        return errors
