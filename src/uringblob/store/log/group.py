"""One group on its way to the medium, and its callers' parts (docs/format.md, rules 1, 2, 5 and 15).

Frames go to fresh slots and the group's blocks to fresh log space, together; when *all* of them are
wholly written, one fdatasync.  If a part fails, the blocks are zeroed and flushed before anything else
happens, and the members at fault are named; without room for that, all of them fail, and it is done
before the next change (see :mod:`uringblob.store.io.repairs`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from uringblob.completion import Completion
from uringblob.errors import BlobStoreIOError
from uringblob.store.format import FLAG_FRAMES_SYNCED, BlockType, blocks_for, delete_record, set_record
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.changes import Change
from uringblob.store.index.shards import Mapped
from uringblob.store.io.checksum_budget import CHANGE, GUIDS_AT_ONCE
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Job, wait_all
from uringblob.store.io.pending_write import PendingWrite
from uringblob.store.log.writer import Log, Stretch

#: Unflushed frames beyond which a group is flushed before it is logged (rule 15).
LARGE_GROUP_BYTES = 64 * 1024 * 1024


class Member:
    """One caller's part of a group.

    ``build_changes`` yields its ``size`` changes when the group is formed (and again after a failed group);
    ``flushes`` says that they are all that is pending then.
    ``landed``, awaited, says that its frames are wholly written; ``frame_bytes`` is what of them no
    flush has covered.  ``done`` resolves when all of it is durable.
    """

    def __init__(
        self,
        done: Completion[None],
        build_changes: Callable[[], Iterable[tuple[bytes, Change]]],
        *,
        size: int = 0,
        flushes: bool = False,
        landed: PendingWrite | Job[None] | None = None,
        frame_bytes: int = 0,
        forced: bool = False,
        turn: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.done = done
        self.build_changes = build_changes
        self.size = size
        self.flushes = flushes
        self.landed = landed
        self.frame_bytes = frame_bytes
        self.forced = forced  #: write a group even if there is no record to put into it
        self.turn = turn  #: not a group at all: run this with no group in flight


class Group:
    """One group on its way to the medium."""

    def __init__(
        self, log: Log, medium: FileIO, page_size: int, members: list[Member], changes: Mapped[Change]
    ) -> None:
        self._log = log
        self._medium = medium
        self._members = members
        self._unsynced = sum(member.frame_bytes for member in members)
        self._page_size = page_size
        self.changes = changes
        self.superseded: list[Change] = []  #: overruled by others in this group: no record names their frames
        self.seq = log.seq + 1
        self.begun = False  #: whether the medium may hold any of it

    async def build_changes(self, index: BlobIndex) -> None:
        """Merge the members' changes in order, commits first; the last one to name a guid wins."""
        budget, number = self._medium.checksum_budget, 0
        commits = [member for member in self._members if not member.flushes]
        # All flushes bring the same.
        flushes = [member for member in self._members if member.flushes][:1]
        for member in (*commits, *flushes):
            for guid, change in member.build_changes():
                number += 1
                if number % GUIDS_AT_ONCE == 0 and not budget.try_acquire(GUIDS_AT_ONCE * CHANGE):
                    await budget.acquire(GUIDS_AT_ONCE * CHANGE)
                superseded_change = index.join_group(self.changes, guid, change)
                if superseded_change is not None:
                    self.superseded.append(superseded_change)
                if change.pending is not None and not change.pending.synced:
                    self._unsynced += self._page_size

    async def write(self) -> dict[Member, BaseException]:
        """Make the group durable; or wipe it and return the members at fault with their errors.

        Raises if it is neither durable nor wiped by fault of a member: then the store is poisoned,
        or the log had no room, and all members share the error.
        """
        blocks = blocks_for(len(self.changes))
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
            stretches = self._log.encode_group(BlockType.GROUP, self.seq, list(records), flags)
        else:
            stretches = await self._log.encode_in_turns(BlockType.GROUP, self.seq, records, blocks, flags)
        self.begun = True
        written = self._medium.start(self._log.write(stretches))
        failed = await self._unlanded()
        log_errors = await wait_all([written])
        if log_errors:
            await self._log.undo_failed(log_errors[0], stretches)
            raise log_errors[0]
        if failed:
            return await self._wipe(stretches, failed)
        await self._medium.sync(f"commit of group {self.seq}")
        self._log.accept(self.seq, stretches)
        return {}

    async def _sync_first(self) -> tuple[bool, dict[Member, BaseException]]:
        """Flush a large group's frames before its blocks; tell whether all frames are flushed."""
        if self._unsynced <= LARGE_GROUP_BYTES:
            return self._unsynced == 0, {}
        failed = await self._unlanded()
        if not failed:
            await self._medium.sync(f"frames of group {self.seq}")
        return True, failed

    async def _unlanded(self) -> dict[Member, BaseException]:
        """Wait for every member's frames; return the members whose frames failed."""
        rest: list[tuple[Member, PendingWrite | Job[None]]] = []
        for member in reversed(self._members):  # when the last one's have landed, mostly all have
            landed = member.landed
            if isinstance(landed, PendingWrite):
                if not landed.answer.done():
                    await wait_all([landed.answer])
                if landed.whole:
                    landed = member.landed = None  # it holds the caller's buffers, who may release them soon
                else:
                    landed.finish_short()  # all of them together
            if landed is not None:
                rest.append((member, landed))
        failed: dict[Member, BaseException] = {}
        for member, landed in rest:
            errors = await wait_all([landed])
            if errors:
                failed[member] = errors[0]
            else:
                member.landed = None
        return failed

    async def _wipe(
        self, stretches: list[Stretch], failed: dict[Member, BaseException]
    ) -> dict[Member, BaseException]:
        """Wipe the group; return the members that fail, with their errors."""
        if await self._log.wipe(stretches):
            return failed
        # A crash may bring it back, whole if its missing frames were there already: nobody can be told
        # that he was refused, and nobody may join another group before this one is gone.
        errors = {member: failed.get(member) or self._medium.repairs.refusal() for member in self._members}
        for error in errors.values():
            if isinstance(error, BlobStoreIOError):
                error.applied = None
        return errors
