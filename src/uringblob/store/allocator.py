"""Slots for frames: the log's own space comes first.

The log must be able to go on when the disk is full, or the deletion that frees room could not be
recorded.  So frames get slots only while the log space (:mod:`uringblob.store.index.log_space`) is large
enough for all blobs there will be.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from uringblob.errors import NO_SPACE_ERRNOS, BlobStoreIOError
from uringblob.store.format import SlotRun
from uringblob.store.growth import FileGrowth
from uringblob.store.index.free_map import RUN_SLOTS_MAX
from uringblob.store.index.slot_states import SlotState
from uringblob.store.index.slots import SlotTable
from uringblob.store.io.file_io import FileIO
from uringblob.store.log.in_turns import confirm_in_turns


class Reclaimer(Protocol):
    """Frees the slots that the last group superseded."""

    def commit_empty_group(self) -> Awaitable[None]:
        """Make one more group durable, after which they may be reused."""


class SlotAllocator:
    """Allocates slots for frames; without enough free ones it reclaims some, or grows the file."""

    def __init__(self, file_io: FileIO, slots: SlotTable, growth: FileGrowth, reclaimer: Reclaimer) -> None:
        self._file_io = file_io
        self._slots = slots
        self._growth = growth
        self._reclaimer = reclaimer

    def allocate_ready(self, count: int, meta_cells: int = 0) -> SlotRun | None:
        """Allocate one run of ``count`` slots, if there is one and nothing has to be done for it first.

        ``meta_cells``: of the log, for the blobs' metadata; they are counted from now on.
        """
        file_io, slots, log_space = self._file_io, self._slots, self._growth.log_space
        if (
            file_io.poison_cause is not None
            or file_io.repairs.due
            or (
                (
                    slots.named + count > log_space.suffices_up_to
                    or slots.meta_cells + meta_cells > log_space.suffices_with_meta
                )
                and not self._growth.log_space_suffices(count, meta_cells)
            )
        ):
            return None
        run = slots.allocate_run(count, SlotState.WRITING)
        if run is not None:
            slots.meta_cells += meta_cells
        return run

    async def allocate_frames(self, count: int, meta_cells: int = 0) -> list[SlotRun]:
        """Allocate ``count`` slots, as one run where that can be; for ``meta_cells`` see above.

        :raises BlobStoreIOError: ENOSPC, EDQUOT or EFBIG; nothing was allocated.
        """
        try:
            return await self._allocate_or_reclaim(count, meta_cells)
        except BlobStoreIOError as error:
            slots, page_size = self._slots, self._growth.page_size
            why = []
            if slots.held:
                why.append(
                    f"Open snapshots hold {slots.held * page_size} bytes of the file ({slots.held} frames that were "
                    "replaced or deleted since): close them"
                )
            if slots.kept:
                why.append(
                    f"Older readers in other processes keep {slots.kept * page_size} bytes of it "
                    f"({slots.kept} slots; stats().readers names them): refresh or close them"
                )
            if error.errno not in NO_SPACE_ERRNOS or not why:
                raise
            text = ". ".join([str(error.strerror), *why])
            raise BlobStoreIOError(error.errno, text, guid=error.guid, offset=error.offset) from error

    async def _allocate_or_reclaim(self, count: int, meta_cells: int) -> list[SlotRun]:
        if self._slots.kept:  # a reader may have gone on, or died, since the last group
            await confirm_in_turns(self._file_io.checksum_budget, self._slots, self._slots.confirmed)
        if self._reclaiming_is_cheaper(count):
            await self._reclaim()
        try:
            return await self._allocate_trusted(count, meta_cells)
        except BlobStoreIOError as error:
            if error.errno not in NO_SPACE_ERRNOS or not await self._reclaim():
                raise
        return await self._allocate_trusted(count, meta_cells)

    def note_meta(self, slot: int, cells: int) -> None:
        """Note that ``cells`` of what was counted when slots were allocated are of ``slot``."""
        self._slots.note_meta(slot, cells)

    def free(self, run: SlotRun, state: SlotState) -> None:
        """Move the slots of frames that no record names to ``state``: ``FREE``, or ``BAD``."""
        self._slots.move_run(run, state)

    def _reclaiming_is_cheaper(self, count: int) -> bool:
        """Whether a small batch would grow the file although the last group has freed enough for it."""
        slots = self._slots
        free = slots.count(SlotState.FREE)
        return (
            free < count <= free + slots.awaiting_group
            and self._growth.is_small(count)
            and not self._growth.is_cheap(count - free, count)
        )

    async def _reclaim(self) -> bool:
        """Free what the last group superseded; False if there is nothing, or no room even for a group."""
        if not self._slots.awaiting_group:
            return False
        try:
            await self._reclaimer.commit_empty_group()
        except BlobStoreIOError as error:
            if error.errno not in NO_SPACE_ERRNOS:
                raise
            return False
        return True

    async def _allocate_trusted(self, count: int, meta_cells: int) -> list[SlotRun]:
        """Allocate slots; raise once the store is poisoned, or while a repair finds no room.

        A slot may be free because a group failed, and the medium may hold that group.
        """
        while True:
            await self._file_io.ready()
            runs = await self._growth.lock.run(self._try_allocate, count, meta_cells)
            if self._file_io.takes_changes:
                self._slots.meta_cells += meta_cells
                return runs
            for run in runs:
                self.free(run, SlotState.FREE)

    async def _try_allocate(self, count: int, meta_cells: int) -> list[SlotRun]:
        slots, growth = self._slots, self._growth
        await growth.extend_log_space(count, meta_cells)
        # While the file grows, others allocate: look again after every step.
        while (run := slots.allocate_run(count, SlotState.WRITING)) is None:
            missing = max(0, count - slots.count(SlotState.FREE))
            if not missing and (count > RUN_SLOTS_MAX or not growth.is_cheap(count, count)):
                return slots.allocate_runs(count, SlotState.WRITING)
            try:
                await growth.grow_for_frames(count, missing)
            except BlobStoreIOError:
                if slots.count(SlotState.FREE) < count:
                    raise
                return slots.allocate_runs(count, SlotState.WRITING)
        return [run]
