"""Writes one group of members, and acknowledges it: the coroutine that can do all of it.

If a part of a group fails, the member at fault fails and the others join the next group.  A group for which
the log has no room waits for a compaction.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Awaitable, Callable

from uringblob import tuning
from uringblob.errors import BlobStoreError, BlobStoreIOError
from uringblob.store.format import BLOCK_SIZE
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.changes import Change
from uringblob.store.index.shards import Mapped, Shards
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Lock
from uringblob.store.log.group import Group, Member
from uringblob.store.log.in_turns import confirm_in_turns, each_in_turns
from uringblob.store.log.maintenance import LogMaintenance
from uringblob.store.log.writer import ActiveLog, Log

#: Compactions that one group waits for: the first may have begun before, and leave too little room.
COMPACTIONS_MAX = 2


class GroupWriter:
    """Writes groups of one store, one at a time."""

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
        self.file_io = file_io
        self.index = index
        self.active = active
        self.maintenance = maintenance
        self.before_group = before_group
        self.groups = self.commits = 0
        #: The block of a :class:`~uringblob.store.log.flat_group.FlatGroup`, of which there is one at a time.
        self.block_buffer = file_io.take_scratch(BLOCK_SIZE)
        #: Held while names are listed, or a group is applied, in more than one step: neither sees the other.
        self.names_still = Lock()

    async def write(self, members: list[Member]) -> list[Member]:
        """Write a group of ``members``; return those that are to join the next group."""
        compactions = 0
        while (regrouped := await self.active.exclusive.run(self._try_write, members)) is None:
            if compactions == COMPACTIONS_MAX:
                raise BlobStoreIOError(
                    errno.ENOSPC,
                    f"{self.file_io.path}: the log has no room for this change, also after a compaction; "
                    "change fewer blobs at once, or give the disk more room",
                )
            compactions += 1
            await self.maintenance.wait_unpinned()
            await self.maintenance.start_compaction()
        return regrouped

    async def _try_write(self, members: list[Member]) -> list[Member] | None:
        """Write a group of ``members`` and acknowledge it; ``None`` if the log, which is held, has no room."""
        await self.file_io.ready()
        self.before_group(self.active.log)
        group = await self._form_group(members)
        return None if group is None else await self.make_durable(group, members, group.write)

    async def make_durable(
        self,
        group: Group,
        members: list[Member],
        write: Callable[[], Awaitable[dict[Member, BaseException]]],
    ) -> list[Member]:
        """Make ``group`` durable by ``write``, apply and acknowledge it; return whom to regroup.

        The log is held.
        """
        failed = await self._write_group(group, write)
        if failed:
            for member, error in failed.items():
                member.end.reject(error)
            return [member for member in members if member not in failed]
        try:
            if not group.is_empty:
                self.active.announce(group.seq)
            await self._apply(group)
            await self._acknowledge_in_turns(group, members)
        except Exception as error:
            self.file_io.poison(error)  # the log has it, and the index perhaps a part of it only
            raise
        if not group.is_empty:
            self.maintain()
        return []

    def maintain(self) -> None:
        """Begin the maintenance that is due after a group; without memory, after the next one."""
        with contextlib.suppress(MemoryError):
            self.maintenance.after_group()

    async def _form_group(self, members: list[Member]) -> Group | None:
        """Build the changes of ``members``; ``None`` if the log has no room for them."""
        group = Group(self.active.log, self.file_io, members)
        self.index.begin_group(group.changes)
        try:
            await group.build_changes(self.index)
        except Exception:
            await self._abort(group.changes)
            raise
        if group.is_empty or self.maintenance.log_fits(group.blocks):
            return group
        await self._abort(group.changes)  # what is pending may change before the next attempt
        return None

    async def _write_group(
        self, group: Group, write: Callable[[], Awaitable[dict[Member, BaseException]]]
    ) -> dict[Member, BaseException]:
        """Write ``group``; return the members at fault, if it was wiped."""
        failed: dict[Member, BaseException] = {}
        try:
            if not group.is_empty:
                failed = await write()
        except Exception as error:
            await self.abort(group, error)
            raise
        if failed:
            await self._abort(group.changes)
        return failed

    async def abort(self, group: Group, error: Exception) -> None:
        """Give ``group`` up because of ``error``."""
        if group.begun and not isinstance(error, BlobStoreError):
            self.file_io.poison(error)  # no memory, say: the medium may hold the group, or not
        await self._abort(group.changes)

    async def _abort(self, changes: Mapped[Change]) -> None:
        index = self.index
        await each_in_turns(
            self.file_io.checksum_budget, lambda item: index.abort_change(*item), changes.items()
        )
        index.end_group()

    async def _apply(self, group: Group) -> None:
        """Make the durable ``group`` visible, and free what it replaced."""
        index, budget, changes, seq = self.index, self.file_io.checksum_budget, group.changes, group.seq
        if group.is_empty:
            index.end_group()
            return
        await self.apply_changes(changes, seq)
        await confirm_in_turns(budget, index.slots, seq - 1)
        await each_in_turns(budget, index.free_superseded, group.superseded)
        self.groups += 1
        if isinstance(changes, Shards):
            await each_in_turns(budget, dict.clear, changes.parts)  # 100,000 changes take 5 ms to free

    async def apply_changes(self, changes: Mapped[Change], seq: int) -> None:
        """Make ``changes``, which are durable with group ``seq``, visible in one step."""
        index = self.index
        if len(changes) <= tuning.APPLIED_AT_ONCE:
            index.finish_group(changes, seq)
        else:
            await each_in_turns(self.file_io.checksum_budget, index.mark_slot_live, changes.values())
            await self.names_still.run(self._show_and_apply, changes, seq)

    async def _show_and_apply(self, changes: Mapped[Change], seq: int) -> None:
        index = self.index
        index.show_group(changes)
        index.seq = seq
        await each_in_turns(
            self.file_io.checksum_budget, lambda item: index.apply_change(*item, seq), changes.items()
        )
        index.end_group()

    async def _acknowledge_in_turns(self, group: Group, members: list[Member]) -> None:
        """Acknowledge, or refuse, a few members per loop iteration, so that the first ones begin their next commit.

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
                await self.file_io.next_tick()
                acknowledged = acknowledged_bytes = 0
            refusal = group.refused.get(member)
            if refusal is None:
                member.end.resolve(None)
                self.commits += not (member.flushes or member.forced)
            else:
                member.end.reject(refusal)
            acknowledged += 1
            acknowledged_bytes += member.frame_bytes
