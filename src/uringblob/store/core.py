"""One open store: what each call decides, what it awaits from the engine, and what it then does.

Everything here runs in one loop's thread, but for the reads in their callers' threads.  A change runs as a
job (see :mod:`uringblob.store.io.job`); a read runs in the caller's task, because all it leaves behind is
a pinned slot.

The order that keeps the store consistent: a frame goes to a *fresh* slot; only when it is wholly written
is it published (``write_blob``) or logged (``commit``); the slot it replaces is reused only when the record
that replaces it is durable, is not the last one, and its readers are done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from uringblob import tuning
from uringblob.api.changes import Changes
from uringblob.buffers.iobuf import IoBuffer
from uringblob.completion import persist
from uringblob.errors import BlobStoreError, StoreReadOnly
from uringblob.owner import StoreOwner
from uringblob.store.allocator import SlotAllocator
from uringblob.store.caller_reads import CallerReads
from uringblob.store.file import StoreFile
from uringblob.store.frame_reads import FrameReads
from uringblob.store.frame_writes import Batch
from uringblob.store.growth import FileGrowth
from uringblob.store.identity import FileIdentity
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.changes import Conditions
from uringblob.store.index.log_space import LogSpace
from uringblob.store.index.moments import Moment
from uringblob.store.index.shards import PARTS, Mapped
from uringblob.store.io.checksum_budget import GUIDS_AT_ONCE
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Job, Lock, wait_all
from uringblob.store.io.pending_write import PendingWrite
from uringblob.store.log.commit import Commit
from uringblob.store.log.group_commit import GroupQueue
from uringblob.store.log.group_writer import GroupWriter
from uringblob.store.log.in_turns import each_in_turns
from uringblob.store.log.maintenance import LogMaintenance
from uringblob.store.log.superblocks import Superblocks
from uringblob.store.log.writer import ActiveLog, Log


class Follower(Protocol):
    """Notes what changes."""

    def take(self) -> Changes | None:
        """Return what was noted since the last call, or ``None``."""


class View(Protocol):
    """How a read-only store moves on."""

    async def refresh(self) -> bool:
        """Move to the newest durable state; return whether it is another one."""

    def follower(self) -> Follower:
        """Return what notes the changes from now on."""

    async def check_metadata(self) -> list[BlobStoreError]:
        """Check the metadata as it is now, which another process may be writing."""


class Core(StoreOwner):
    """One open store.  ``read_only`` cores have no log to write to."""

    #: Of a read-only store.
    view: View | None = None

    def __init__(
        self,
        file: StoreFile,
        file_io: FileIO,
        index: BlobIndex,
        log: Log,
        *,
        verify: bool,
        superblocks: Superblocks,
        log_space: LogSpace,
    ) -> None:
        self.file = file
        self.file_io = file_io
        self.index = index
        self.page_size = log.page_size
        self.superblocks = superblocks
        self.notes: list[str] = []
        self.identity = FileIdentity(file, file_io, index.slots, superblocks)
        self.log_space = log_space
        # Each is built of those before it.
        self._active_log = ActiveLog(log, file.locks.announce)
        self.growth = FileGrowth(file_io, index.slots, log_space, log.page_size, index, superblocks)
        self.maintenance = LogMaintenance(
            file_io, index, log_space, self._active_log, superblocks, self.growth.complete_log_space
        )
        self.groups = GroupWriter(
            file_io, index, self._active_log, self.maintenance, before_group=self.identity.check
        )
        self.queue = GroupQueue(self.groups)
        self.allocator = SlotAllocator(file_io, index.slots, self.growth, self.queue)
        self.reads = FrameReads(file_io, index, log.page_size, verifies=verify)
        self.caller_reads = CallerReads(index.slots, file_io.loop)
        self.vacuuming = Lock()
        self.last_sizes = (0, 0)
        self._blocks_from = self._blocking_began = 0.0
        self.batches_linked = self.batches_scattered = 0

    @property
    def log(self) -> Log:
        """The log in use."""
        return self._active_log.log

    # --- reading -------------------------------------------------------------------------

    async def list_names(self, found: Callable[[list[bytes]], object]) -> None:
        """Pass the guids of all blobs that are visible now to ``found``, some at a time."""
        index, count = self.index, len(self.index) + self.index.pending_count
        if count <= tuning.LISTED_AT_ONCE and not index.applying:
            found(index.guids())
            return
        await self.groups.names_still.run(self._list_at_new_moment, found)

    async def _list_at_new_moment(self, found: Callable[[list[bytes]], object]) -> None:
        moment = self.index.moments.begin(self.index, holds=False)
        try:
            await self._list_names(moment, found)
        finally:
            self.index.moments.end_moment(moment)

    async def list_names_at(self, moment: Moment, found: Callable[[list[bytes]], object]) -> None:
        """Do the same with those of ``moment``."""
        await self.groups.names_still.run(self._list_names, moment, found)

    async def _list_names(self, moment: Moment, found: Callable[[list[bytes]], object]) -> None:
        # As many shards as hold half of LISTED_AT_ONCE names, but at least one.
        count = len(self.index) + self.index.pending_count + len(moment.entries)
        step = max(1, tuning.LISTED_AT_ONCE // 2 * PARTS // (count + 1))
        for first in range(0, PARTS, step):
            names = self.index.names(first, min(first + step, PARTS), moment)
            for start in range(0, len(names), tuning.LISTED_AT_ONCE):
                part = names[start : start + tuning.LISTED_AT_ONCE]
                await self.file_io.checksum_budget.acquire(len(part) * tuning.NAME_COST_BYTES)
                found(part)

    # --- snapshots -----------------------------------------------------------------------

    async def begin_snapshot(self) -> Moment:
        """Begin a moment that holds its slots until :meth:`end_snapshot`; waits for a group being applied."""
        if not self.index.applying:
            return self.index.moments.begin(self.index, holds=True)

        async def begin() -> Moment:
            return self.index.moments.begin(self.index, holds=True)

        return await self.groups.names_still.run(begin)

    async def end_snapshot(self, moment: Moment) -> None:
        """End ``moment``, and let go of its slots."""
        budget, entries = self.file_io.checksum_budget, moment.entries
        self.index.moments.end_moment(moment)
        await each_in_turns(budget, self.index.slots.release, moment.held_slots())
        await each_in_turns(budget, dict.clear, entries.parts)

    # --- changing ------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Raise if no change may be made: read-only, or poisoned."""
        if self.file.read_only:
            raise StoreReadOnly(f"{self.file.path} was opened with read_only=True: open it without")
        self.file_io.check_not_poisoned()

    async def write(self, writes: Mapped[IoBuffer], metas: Mapped[bytes] | None, *, data_sync: bool) -> None:
        """Write frames and make them visible; with ``data_sync`` their bytes are durable, too."""
        if not writes:
            self.check_writable()
            return
        batch = await self._prepare(writes, metas)
        overlap = batch.size_bytes >= tuning.WRITE_OVERLAP_BYTES_MIN
        try:
            if data_sync:
                linked = await (await batch.checksum_and_start(batch.start_synced_write, overlap=overlap))
                self.batches_linked += linked
                self.batches_scattered += not linked
            else:
                await (await batch.checksum_and_start(batch.start_write, overlap=overlap))
        except BaseException as error:
            batch.free(error)
            raise
        entries = batch.entries
        for start in range(0, len(entries), GUIDS_AT_ONCE):
            if start:
                await self.file_io.checksum_budget.acquire(GUIDS_AT_ONCE * tuning.CHANGE_COST_BYTES)
            self.index.publish(entries[start : start + GUIDS_AT_ONCE], synced=data_sync)

    async def delete(self, guid: bytes) -> None:
        """Make ``guid`` invisible; durable with the next flush."""
        self.check_writable()
        self.index.publish_deletion(guid)

    def small_commit_bytes(self, writes: Mapped[IoBuffer], deletes: Sequence[bytes]) -> int:
        """Return the budget that :meth:`start_commit` needs; 0 if this is no small commit."""
        size_bytes = len(writes) * self.page_size
        return (
            0 if size_bytes >= tuning.COMMIT_OVERLAP_BYTES_MIN or len(deletes) > GUIDS_AT_ONCE else size_bytes
        )

    def start_commit(
        self, writes: Mapped[IoBuffer], metas: Mapped[bytes] | None, deletes: Sequence[bytes]
    ) -> Commit | None:
        """Begin a small commit that has its budget; ``None``: something stands in its way, :meth:`commit` it."""
        if self.file.read_only or self.file_io.poison_cause is not None:
            self.check_writable()
        batch = Batch(self.file_io, self.allocator, self.page_size, metas)
        if not batch.allocate_ready(writes):
            return None
        pending: PendingWrite | None = None
        commit: Commit | None = None
        try:
            batch.checksum()
            pending = batch.start_one(batch.pieces[0], batch.size_bytes)
            commit = Commit(self.file_io, self.index, batch, deletes, pending)
            self.queue.join(commit)
        except BaseException as error:
            if commit is not None and isinstance(error, Exception):
                commit.reject(error)  # it ends when the kernel has let go of the caller's frames
                return commit
            if pending is None:
                batch.free(error)
            else:
                self._free_later(batch, pending, error)
            raise
        return commit

    @property
    def may_block(self) -> bool:
        """Whether a commit may block the loop: nothing else is under way, and the device flushes quickly."""
        return self.queue.idle and not self.file_io.engine.in_flight and time.monotonic() >= self._blocks_from

    def begin_blocking(self) -> None:
        """Have the engine block in what the next commit asks for: threads are done with it at once."""
        self._blocking_began = time.monotonic()
        self.file_io.engine.blocking = True

    def finish_blocking(self, commit: Commit) -> None:
        """Make ``commit`` durable while the loop stands still; what does not go as it should is left to it."""
        self.file_io.engine.run_until(lambda: commit.done() or not self.queue.flat)
        if (now := time.monotonic()) - self._blocking_began > tuning.BLOCKED_S_MAX:
            self._blocks_from = now + tuning.UNBLOCKED_S

    def _free_later(self, batch: Batch, pending: PendingWrite, error: BaseException) -> None:
        async def free() -> None:
            await wait_all([pending])  # the kernel may still read the caller's frames
            batch.free(error)

        persist(lambda: self.file_io.start(free()))

    async def commit(
        self,
        writes: Mapped[IoBuffer],
        metas: Mapped[bytes] | None,
        deletes: Sequence[bytes],
        conditions: Conditions = (),
        *,
        budget: bool = True,
    ) -> None:
        """Make all of it durable at once, then visible at once, if ``conditions`` hold.

        ``budget``: it has none yet.
        """
        if not writes:
            self.check_writable()
            if conditions or await self._any_exists(deletes):
                await self.queue.join_commit([], deletes, written=None, frame_bytes=0, conditions=conditions)
            else:
                self.groups.commits += 1
            return
        size_bytes = len(writes) * self.page_size
        overlap = size_bytes >= tuning.COMMIT_OVERLAP_BYTES_MIN
        if budget and not overlap and not self.file_io.checksum_budget.try_acquire(size_bytes):
            # Before slots are allocated: the first of many commits writes while the others wait for budget.
            await self.file_io.checksum_budget.acquire(size_bytes)
        batch = await self._prepare(writes, metas)
        pending: PendingWrite | Job[None] | None = None
        try:
            pending = await batch.checksum_and_start(batch.start_write, overlap=overlap)
            await self.queue.join_commit(
                batch.entries,
                deletes,
                written=pending,
                frame_bytes=batch.size_bytes,
                conditions=conditions,
            )
        except GeneratorExit:
            raise  # the store was dropped: nothing may be awaited
        except BaseException as error:
            if pending is not None:
                await wait_all([pending])  # the kernel may still read the caller's frames
            batch.free(error)
            raise

    async def _any_exists(self, guids: Sequence[bytes]) -> bool:
        for number, guid in enumerate(guids, 1):
            if self.index.exists_in_any_layer(guid):
                return True
            if number % GUIDS_AT_ONCE == 0:
                await self.file_io.checksum_budget.acquire(GUIDS_AT_ONCE * tuning.NAME_COST_BYTES)
        return False

    async def _prepare(self, writes: Mapped[IoBuffer], metas: Mapped[bytes] | None) -> Batch:
        self.check_writable()
        batch = Batch(self.file_io, self.allocator, self.page_size, metas)
        await batch.allocate(writes)
        return batch

    async def flush(self) -> None:
        """Make everything that is visible now durable."""
        if self.file.read_only:
            return
        self.file_io.check_not_poisoned()
        if self.index.pending_count:
            await self.queue.join_flush()

    @property
    def needs_flush(self) -> bool:
        """Whether anything that returned, or failed half-way, is not durable."""
        if self.file.read_only:
            return False
        return self.index.pending_count > 0 or self.file_io.poison_cause is not None

    # --- the end -------------------------------------------------------------------------

    def free(self) -> None:
        """Free everything now, without a flush: no loop is there to wait with."""
        idle = not self.file_io.engine.in_flight
        self.file_io.engine.abandon()
        if idle:
            self.file.close()
        else:
            self.file.abandon()  # not unlocked: what is in flight may still write

    def abandon(self) -> None:
        """Free this process's copies without waiting, writing or unlocking."""
        self.file_io.engine.abandon()
        self.file.abandon()
