"""``vacuum()``: what the file does not need goes back to the file system, step by step.

Frames at the file's end are copied to the lowest free slots, and a group like any other records where they
are now; so snapshots and readers keep what they use, and the old slot passes the fences of any slot
(rule 8).  Where anything else has changed the blob by the time the group is formed, the copy is dropped.
Log space that the blobs do not need becomes free slots when neither superblock lists it (rule 13).  Then
the end is cut, as far as it is unused, and other free slots become holes.

Each step is a job of its own: between two of them the store may be closed, or the call cancelled.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Awaitable, Callable

from uringblob import tuning
from uringblob.api.vacuum_stats import VacuumStats
from uringblob.errors import NO_SPACE_ERRNOS, BlobCorrupt, BlobStoreError, BlobStoreIOError
from uringblob.guid import BlobGuid
from uringblob.logs import logger
from uringblob.store.core import Core
from uringblob.store.format import (
    CHECKSUM_MASK,
    EXTENTS_MAX,
    VERSION,
    entry_meta,
    entry_slot,
    pack_entry,
)
from uringblob.store.frame_reads import FrameRead
from uringblob.store.frame_writes import Batch
from uringblob.store.index import shards
from uringblob.store.index.slot_states import SlotState

#: Attempts to bring the log into the log space that stays: the first one may only make it short.
_COMPACTIONS_MAX = 2


class _NoLowerSlot(Exception):
    """No free slot lies below the frame: it stays where it is."""


class Vacuum:
    """One call of ``vacuum()``."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._slots = core.index.slots
        self._moved = self._bytes_freed = 0
        self._bad: list[tuple[BlobGuid, BlobStoreError]] = []
        self._full: BlobStoreIOError | None = None
        #: What is left to do, in order; each is called again as long as it returns true.
        self._stages: collections.deque[Callable[[], Awaitable[bool]]] = collections.deque(
            [
                self._settle,
                self._cut,
                self._shrink_log,
                self._plan,
                self._move,
                self._settle,
                self._cut,
                self._punch,
            ]
        )
        self._goal = self._low = (
            0  # frames from here on are to be moved; those from ``_low`` on were looked up
        )
        self._found: collections.deque[tuple[bytes, int]] = collections.deque()
        self._punched_to = 0

    def stats(self) -> VacuumStats:
        """Return what was done so far."""
        return VacuumStats(self._moved, self._bytes_freed, not self._stages, tuple(self._bad))

    async def step(self) -> bool:
        """Do a little; false if nothing is left to do.

        :raises BlobStoreIOError: the system refused, or there was no room to move frames, and the rest is done.
        """
        return await self._core.vacuuming.run(self._step)

    async def _step(self) -> bool:
        self._core.check_writable()
        await self._core.file_io.ready()
        while self._stages:
            if await self._stages[0]():
                return True
            self._stages.popleft()
        if self._full is not None:
            raise self._full
        return False

    # --- what is not needed any more -----------------------------------------------------

    async def _settle(self) -> bool:
        """Free what waits for a flush, or for one more group."""
        await self._core.flush()
        if self._slots.awaiting_group:
            await self._core.queue.commit_empty_group()
        return False

    async def _cut(self) -> bool:
        cut = await self._core.growth.lock.run(self._core.growth.cut)
        self._bytes_freed += cut
        return cut > 0

    async def _punch(self) -> bool:
        """Make holes of free slots; only where a write says at once that there is no room, and not a flush."""
        if not self._core.file_io.engine.direct_io:
            return False
        before = self._allocated_bytes()
        run = await self._core.growth.lock.run(self._core.growth.punch, self._punched_to)
        if run is None:
            return False
        self._bytes_freed += max(0, before - self._allocated_bytes())
        self._punched_to = run.end
        return True

    def _allocated_bytes(self) -> int:
        fd = self._core.file.fd
        return os.fstat(fd).st_blocks * 512 if fd >= 0 else 0

    # --- log space -----------------------------------------------------------------------

    async def _shrink_log(self) -> bool:
        """Give back what exceeds the need by more than the eighth that growth adds."""
        core, space = self._core, self._core.log_space
        if core.superblocks.current.version < VERSION:
            return False  # its next group upgrades it
        for _ in range(_COMPACTIONS_MAX):
            await core.maintenance.wait()  # a compaction under way counts on what is there
            first = self._log_space_end()
            withdrawn, stays = space.withdraw(first), all(segment.end <= first for segment in core.log.chain)
            if stays and not withdrawn:
                return False
            fits = self._compaction_fits()
            if fits and stays:
                break
            if not fits:
                space.restore(withdrawn)  # first a shorter log
                withdrawn = []
            try:
                await core.maintenance.wait_unpinned()
                await core.maintenance.start_compaction()
            finally:
                space.restore(withdrawn)
        else:
            withdrawn = space.withdraw(self._log_space_end())
            fits = self._compaction_fits()
        if not fits or len(space.without(withdrawn)) > EXTENTS_MAX:
            space.restore(withdrawn)
        elif withdrawn:
            await core.growth.lock.run(core.growth.give_up_log_space, withdrawn)
        return False

    def _log_space_end(self) -> int:
        """Return the slot from which on log space is not needed."""
        space, slots = self._core.log_space, self._slots
        # While frames are moved they have two slots.
        return space.excess_from(space.wanted(slots.named + tuning.VACUUM_FRAMES_AT_ONCE, slots.meta_cells))

    def _compaction_fits(self) -> bool:
        space, slots = self._core.log_space, self._slots
        return space.free_granules >= space.segment_granules + space.for_compaction(
            slots.named, slots.meta_cells
        )

    # --- moving frames -------------------------------------------------------------------

    async def _plan(self) -> bool:
        """See where the file would end without free slots."""
        slots = self._slots
        unused = sum(map(slots.count, (SlotState.FREE, SlotState.HOLE)))
        self._low, self._goal = slots.limit, max(slots.first, slots.limit - unused)
        return False

    async def _move(self) -> bool:
        """Move some frames from the end down; false if there is nothing more to move, or nowhere to."""
        if not self._found:
            if self._low <= self._goal:
                return False
            await self._find()
        at_most = min(tuning.VACUUM_FRAMES_AT_ONCE, tuning.VACUUM_BYTES_AT_ONCE // self._core.page_size)
        try:
            going_on = await self._move_some(max(1, at_most))
        except BlobStoreIOError as error:
            if error.errno not in NO_SPACE_ERRNOS:
                raise
            self._full = error  # raised when what can be given back without moving was
            return False
        unused = self._slots.limit - self._slots.unused_from()
        if unused * self._core.page_size >= tuning.VACUUM_CUT_BYTES:
            await self._cut()
        return going_on

    async def _find(self) -> None:
        """Look up the blobs of the next live slots below, the highest first."""
        index, high = self._core.index, self._low
        self._low = low = self._slots.live_from(self._goal, high, tuning.VACUUM_FRAMES_FOUND)
        found: list[tuple[bytes, int]] = []
        for part in range(shards.PARTS):
            found += index.durable_between(part, low, high)
            await self._core.file_io.checksum_budget.acquire(
                (len(index) // shards.PARTS + 1) * tuning.NAME_COST_BYTES // 8
            )
        found.sort(key=lambda item: item[1], reverse=True)
        self._found.extend(found)

    async def _move_some(self, at_most: int) -> bool:
        """Copy frames, and record them in one group; false if no lower slot is free."""
        core, going_on = self._core, True
        batches: list[Batch] = []
        moves: list[tuple[bytes, int, int]] = []
        try:
            while self._found and len(moves) < at_most:
                guid, entry = self._found.popleft()
                if not self._may_move(guid, entry):
                    continue
                try:
                    batch = await self._copy(guid, entry)
                except _NoLowerSlot:
                    self._found.clear()
                    going_on = False
                    break
                if batch is not None:
                    batches.append(batch)
                    moves.append((guid, entry, batch.entries[0][1]))
            if moves:
                await core.queue.join_moves(moves, len(moves) * core.page_size)
        except BaseException as error:
            for batch, (_, _, new) in zip(batches, moves, strict=True):
                if self._slots.state(entry_slot(new)) == SlotState.WRITING:
                    batch.free(error)
            raise
        self._moved += sum(core.index.find_durable(guid) is new for guid, _, new in moves)
        return going_on

    def _may_move(self, guid: bytes, entry: int) -> bool:
        """Whether the blob is where it was found, and its old slot will be free soon."""
        index, slots = self._core.index, self._slots
        return (
            index.find_durable(guid) is entry
            and index.find(guid) is entry
            and entry_slot(entry) not in slots.beyond
            and not index.is_shown(guid, entry)
        )

    async def _copy(self, guid: bytes, entry: int) -> Batch | None:
        """Copy a frame to the lowest free slot; ``None``: it is bad, and stays where it is.

        :raises _NoLowerSlot: there is none below it.
        """
        core, file_io = self._core, self._core.file_io
        lease = await file_io.bounces.acquire()
        with file_io.bounces.releasing([lease]):
            frame = lease._frame(file_io.engine.pool)
            read = FrameRead(core.reads, guid, entry, frame)
            try:
                await read.fill()
                await file_io.checksum_budget.acquire(tuning.JOB_COST_BYTES)
                await read.check_in_steps()
            except (BlobCorrupt, BlobStoreIOError) as error:
                self._note_bad(guid, error)
                return None
            meta = entry_meta(entry)
            batch = Batch(file_io, core.allocator, core.page_size, {guid: meta} if meta else None)
            while not batch.allocate_ready({guid: frame}) or batch.pieces[0].run.slot > read.slot:
                batch.free(_NoLowerSlot())
                if not await core.growth.lock.run(core.growth.fill_hole, read.slot, 1):
                    raise _NoLowerSlot
            piece = batch.pieces[0]
            batch.entries.append((guid, pack_entry(piece.run.slot, entry & CHECKSUM_MASK, meta)))
            try:
                await batch.start_one(piece, core.page_size)
            except BaseException as error:
                batch.free(error)
                raise
        return batch

    def _note_bad(self, guid: bytes, error: BlobStoreError) -> None:
        name, path = BlobGuid(guid), self._core.file_io.path
        self._bad.append((name, error.with_traceback(None)))
        logger.warning(
            "%s: a vacuum left the frame of blob %s where it is: %s",
            path,
            name,
            error,
            extra={"event": "vacuum_skipped", "path": path, "guid": str(name)},
        )
