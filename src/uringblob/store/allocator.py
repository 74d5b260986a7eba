"""Who gets room in the file: the log's own space first, then frames.

The log must be able to go on when the disk is full, or the delete that would free room could not be
recorded.  So frames get slots only while the log space (:mod:`uringblob.store.index.log_space`) is large
enough for the blobs there would be then.

**How long the file is.**  A frame is overwritten into a fresh slot, and the old one is free when a
later group is durable: the file must hold what is in it and what two groups replace.  It grows
beyond that only for the sake of contiguous room, while what frames have is within a sixteenth of
what is live (:meth:`SlotAllocator._growth_is_cheap`); otherwise a batch goes into the pieces there are.  So
a store whose live size is constant stays within a quarter of it, and the log space.

Growth is allocation, not just length, where the file system can (fallocate): lack of room shows
when a slot is handed out, before anything is written.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence

from uringblob.engines import transfers
from uringblob.errors import NO_SPACE_ERRNOS, BlobStoreIOError
from uringblob.store.format import EXTENTS_MAX, SlotRun
from uringblob.store.index.free_map import RUN_SLOTS_MAX
from uringblob.store.index.log_space import LogSpace
from uringblob.store.index.slots import SlotState, SlotTable
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Lock

#: The file grows by a sixteenth of its length, within these.
GROWTH_BYTES_MIN = 64 * 1024
GROWTH_BYTES_MAX = 64 * 1024 * 1024


class SlotAllocator:
    """Hands out slots, growing the file when there are none.

    ``blobs`` says how many blobs are visible, ``record_extents`` makes both superblocks list these
    extents of log space, ``confirm`` writes an empty group, after which slots freed by the last one
    may be reused.
    """

    def __init__(
        self,
        medium: FileIO,
        slots: SlotTable,
        log_space: LogSpace,
        page_size: int,
        *,
        blobs: Callable[[], int],
        record_extents: Callable[[Sequence[SlotRun]], Awaitable[None]],
        confirm: Callable[[], Awaitable[None]],
    ) -> None:
        self._medium = medium
        self._slots = slots
        self._log_space = log_space
        self._page_size = page_size
        self._blobs = blobs
        self._record_extents = record_extents
        self._confirm = confirm
        self._growing = Lock()

    def __repr__(self) -> str:
        return f"<Space {self._log_space!r} {self._slots!r}>"

    # --- frames --------------------------------------------------------------------------

    def allocate_ready(self, count: int) -> SlotRun | None:
        """Hand out one run of ``count`` slots if there is one and nothing has to be done for it first."""
        if not self._medium.takes_changes or not self._log_space_suffices(count):
            return None
        return self._slots.allocate_run(count, SlotState.WRITING)

    async def allocate_frames(self, count: int) -> list[SlotRun]:
        """Hand out ``count`` slots for new frames, as one run where that can be.

        :raises BlobStoreIOError: ENOSPC, EDQUOT or EFBIG; nothing was handed out.
        """
        if self._confirming_is_cheaper(count):
            await self._confirm_waiting()
        try:
            return await self._allocate_trusted(count)
        except BlobStoreIOError as error:
            if error.errno not in NO_SPACE_ERRNOS or not await self._confirm_waiting():
                raise
        return await self._allocate_trusted(count)

    def _confirming_is_cheaper(self, count: int) -> bool:
        """A small batch would make the file grow although the last group has freed enough for it."""
        slots = self._slots
        free = slots.count(SlotState.FREE)
        return (
            free < count <= free + slots.awaiting_group
            and 4 * count <= self._blobs()
            and not self._growth_is_cheap(count - free, count)
        )

    async def _confirm_waiting(self) -> bool:
        """Slots freed by the last group wait for the next one: write it now."""
        if not self._slots.awaiting_group:
            return False
        try:
            await self._confirm()
        except BlobStoreIOError as error:
            if error.errno not in NO_SPACE_ERRNOS:
                raise
            return False  # there is no room even for that
        return True

    async def _allocate_trusted(self, count: int) -> list[SlotRun]:
        """Hand out nothing once the store is poisoned, or while a repair is due.

        A slot may have become free because a group failed; the medium may hold that group, and so
        name the slot.
        """
        while True:
            await self._medium.ready()
            runs = await self._try_allocate_frames(count)
            if self._medium.takes_changes:
                return runs
            for run in runs:
                self.free(run, SlotState.FREE)

    async def _try_allocate_frames(self, count: int) -> list[SlotRun]:
        slots = self._slots
        async with self._growing:
            await self._extend_log_space(count)
            # While the file grows, others take slots: look again after every step.
            while (run := slots.allocate_run(count, SlotState.WRITING)) is None:
                missing = max(0, count - slots.count(SlotState.FREE))
                if not missing and (count > RUN_SLOTS_MAX or not self._growth_is_cheap(count, count)):
                    return slots.allocate_runs(count, SlotState.WRITING)
                try:
                    await self._grow_for_frames(count, missing)
                except BlobStoreIOError:
                    if slots.count(SlotState.FREE) < count:
                        raise
                    return slots.allocate_runs(count, SlotState.WRITING)
            return [run]

    def free(self, run: SlotRun, state: SlotState) -> None:
        """Frames that no record names: their slots are ``FREE`` again, or ``BAD``."""
        self._slots.move_run(run, state)

    # --- the log's own space -------------------------------------------------------------

    def _log_space_suffices(self, more_records: int) -> bool:
        log_space = self._log_space
        return log_space.capacity >= log_space.wanted(self._slots.named + more_records)

    async def complete_log_space(self) -> None:
        """Keep as much for the log as the blobs need, if there is room; a full disk is no error here."""
        async with self._growing:
            try:
                await self._extend_log_space(0)
            except BlobStoreIOError as error:
                if error.errno not in NO_SPACE_ERRNOS:
                    raise

    async def _extend_log_space(self, more_records: int) -> None:
        """Give logs as many slots as so many more records need.

        An extent is used only when both superblocks list it: a log whose segments are free slots to
        the next opener would be overwritten.
        """
        while not self._log_space_suffices(more_records):
            extent = await self._allocate_extent(self._log_space.wanted(self._slots.named + more_records))
            await self._medium.repairs.make(functools.partial(self._record, extent))

    async def _record(self, extent: SlotRun) -> None:
        """One superblock may list ``extent`` already, so it is log space, or will be when both do."""
        await self._record_extents(self._log_space.with_extent(extent))
        self._log_space.add(extent)

    async def _allocate_extent(self, wanted: int) -> SlotRun:
        """Take free slots for log space: in one extent and an eighth more than needed, where that can be."""
        granule = self._log_space.granule
        if len(self._log_space.extents) >= EXTENTS_MAX:
            raise BlobStoreIOError(
                errno.ENOSPC,
                f"{self._medium.path}: the log needs more room, and its superblocks list {EXTENTS_MAX} parts"
                " already. Copy the blobs to a new store",
            )
        missing = wanted - self._log_space.capacity
        best = min(missing + wanted // 8, max(1, RUN_SLOTS_MAX // granule))
        granules = best
        while (run := self._slots.allocate_run(granules * granule, SlotState.LOG)) is None:
            if granules > 1:
                granules = -(-granules // 2)
                continue
            await self._grow({best * granule, missing * granule, granule})
            granules = best
        return run

    # --- growth --------------------------------------------------------------------------

    def _growth_is_cheap(self, slots: int, count: int) -> bool:
        """Tell whether the file may grow by ``slots`` for comfort's sake, ``count`` frames being asked for."""
        table = self._slots
        frames = table.limit - table.first - table.count(SlotState.LOG)
        blobs = self._blobs()
        comfort = blobs + blobs // 16 + GROWTH_BYTES_MIN // self._page_size
        return frames + slots <= comfort + table.count(SlotState.WRITING) + count

    async def _grow_for_frames(self, count: int, missing: int) -> None:
        """Grow by a run of ``count`` slots, or more, where that is cheap; else by the ``missing`` ones."""
        page_size = self._page_size
        most = min(max(self._blobs() // 16, GROWTH_BYTES_MIN // page_size), GROWTH_BYTES_MAX // page_size)
        steps = {step for step in (max(count, most), count) if self._growth_is_cheap(step, count)}
        if missing:
            steps |= {missing, max(missing, GROWTH_BYTES_MIN // page_size)}
        await self._grow(steps)

    async def _grow(self, steps: Iterable[int]) -> None:
        """Grow the file by the largest of ``steps``, in slots, for which there is room."""
        left = sorted(set(steps))
        while True:
            limit = self._slots.limit + left.pop()
            what = f"growing {self._medium.path} to {limit * self._page_size} bytes"
            try:
                await transfers.grow(self._medium.engine, limit * self._page_size, what)
            except BlobStoreIOError as error:
                if error.errno not in NO_SPACE_ERRNOS or not left:
                    raise
            else:
                self._slots.extend(limit)
                return
