"""Growth of the file, and of the log space in it.

docs/maintainers/format.md ("How long the file is") has the bound and its reasons.  The file is allocated,
not just lengthened, where the file system can (fallocate): a lack of room shows before anything is written.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
from collections.abc import Iterable, Sequence, Sized

from uringblob import tuning
from uringblob.engines import transfers
from uringblob.errors import NO_SPACE_ERRNOS, BlobStoreIOError, check_limit
from uringblob.store.format import EXTENTS_MAX, SlotRun
from uringblob.store.index.free_map import RUN_SLOTS_MAX
from uringblob.store.index.log_space import LogSpace
from uringblob.store.index.slot_states import SlotState
from uringblob.store.index.slots import SlotTable
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Lock
from uringblob.store.log.superblocks import Superblocks


@dataclasses.dataclass(eq=False, repr=False)
class FileGrowth:
    """Grows the file and the log space.  Hold ``lock`` around ``extend_log_space`` and ``grow_for_frames``."""

    _file_io: FileIO
    _slots: SlotTable
    log_space: LogSpace
    page_size: int
    _blobs: Sized
    _superblocks: Superblocks
    #: How long the file may become, in bytes; ``None``: as long as the file system lets it.
    max_bytes: int | None = None
    lock: Lock = dataclasses.field(default_factory=Lock)
    #: Slots that one step has at most: half of what found no room, twice what did.
    _step_max: int = 1 << 62

    # --- log space -----------------------------------------------------------------------

    def log_space_suffices(self, more_records: int, more_meta_cells: int = 0) -> bool:
        """Whether logs have as much space as so many more records need, with so much more metadata."""
        log_space, records = self.log_space, self._slots.named + more_records
        cells = self._slots.meta_cells + more_meta_cells
        if records <= log_space.suffices_up_to and cells <= log_space.suffices_with_meta:
            return True
        suffices = log_space.capacity >= log_space.wanted(records, cells)
        if suffices:
            log_space.suffices_up_to, log_space.suffices_with_meta = records, cells
        return suffices

    async def complete_log_space(self) -> None:
        """Give logs the space that the blobs need, if there is room; a full disk is no error here."""
        try:
            await self.lock.run(self.extend_log_space, 0)
        except BlobStoreIOError as error:
            if error.errno not in NO_SPACE_ERRNOS:
                raise

    async def extend_log_space(self, more_records: int, more_meta_cells: int = 0) -> None:
        """Lengthen the log space until ``more_records`` more records fit, with their metadata.

        An extent is used only when both superblocks list it: an opener that reads the other one would
        give its slots to frames.
        """
        while not self.log_space_suffices(more_records, more_meta_cells):
            records, cells = self._slots.named + more_records, self._slots.meta_cells + more_meta_cells
            extent = await self._allocate_extent(self.log_space.wanted(records, cells))
            await self._file_io.repairs.make(functools.partial(self._record, extent))

    async def _record(self, extent: SlotRun) -> None:
        """List ``extent`` in both superblocks, then use it; a repair, because one may list it already."""
        await self._superblocks.record_extents(self.log_space.with_extent(extent))
        self.log_space.add(extent)

    async def _allocate_extent(self, wanted: int) -> SlotRun:
        """Allocate free slots for log space: one extent, an eighth larger than needed, if there is room."""
        granule = self.log_space.granule
        if len(self.log_space.extents) >= EXTENTS_MAX:
            raise BlobStoreIOError(
                errno.ENOSPC,
                f"{self._file_io.path}: the log needs more room, and its superblocks list {EXTENTS_MAX} parts"
                " already. Copy the blobs to a new store",
            )
        missing = wanted - self.log_space.capacity
        best = min(missing + wanted // 8, max(1, RUN_SLOTS_MAX // granule))
        while True:
            granules = best
            while granules:
                run = self._slots.allocate_run(granules * granule, SlotState.LOG)
                if run is not None:
                    return run
                # One extent of the missing granules before several shorter ones.
                granules = missing if missing < granules else granules // 2
            await self.grow({best * granule, missing * granule, granule})

    # --- the file ------------------------------------------------------------------------

    def is_cheap(self, slots: int, count: int) -> bool:
        """Whether the file, longer by ``slots``, is still at most a sixteenth larger than its contents.

        Contents are live blobs, what snapshots and readers in other processes hold, writes in progress and ``count`` more frames; a store of
        frames up to 64 KiB may have ``tuning.SPARE_BYTES`` more, a part of its fixed cost.
        """
        table = self._slots
        frames = table.limit - table.first - table.count(SlotState.LOG) - table.held - table.kept
        blobs = len(self._blobs)
        comfort = blobs + blobs // 16
        if self.page_size <= tuning.SPARE_PAGE_SIZE_MAX:
            comfort += tuning.SPARE_BYTES // self.page_size
        return frames + slots <= comfort + table.count(SlotState.WRITING) + count

    def is_small(self, count: int) -> bool:
        """Whether ``count`` frames are at most a quarter of the blobs."""
        return 4 * count <= len(self._blobs)

    async def grow_for_frames(self, count: int, missing: int) -> None:
        """Grow by a run of ``count`` slots, or more, where that is cheap; else by the ``missing`` ones."""
        least = tuning.GROWTH_BYTES_MIN // self.page_size
        most = min(max(len(self._blobs) // 16, least), tuning.GROWTH_BYTES_MAX // self.page_size)
        steps = {step for step in (max(count, most), count) if self.is_cheap(step, count)}
        if missing:
            steps |= {missing, max(missing, least)}
        await self.grow(steps, of_a_hole=most)

    async def grow(self, steps: Iterable[int], of_a_hole: int = 1) -> None:
        """Grow the file by the largest of ``steps``, in slots, for which there is room; holes come first.

        ``of_a_hole``: slots of a hole that are filled, if that is more: the file is no longer for it, and each
        time costs the file system a commit of its journal.

        It ends exactly at ``max_bytes``.  Where the file system has no room for a step, the next smaller one
        is tried, or half of it, down to the smallest.
        """
        wanted = sorted(steps)
        least, step = wanted[0], wanted[-1]
        if await self.fill_hole(self._slots.limit, max(step, of_a_hole)):
            return
        room = step if self.max_bytes is None else self.max_bytes // self.page_size - self._slots.limit
        step = max(least, min(step, self._step_max, room))
        while True:
            limit = self._slots.limit + step
            size_bytes = limit * self.page_size
            what = f"growing {self._file_io.path} to {size_bytes} bytes"
            try:
                check_limit(size_bytes, self.max_bytes, what)
                await transfers.grow(self._file_io.engine, size_bytes, what)
            except BlobStoreIOError as error:
                if error.errno not in NO_SPACE_ERRNOS or step == least:
                    raise
                step = self._step_max = max(step // 2, *(each for each in wanted if each < step))
            else:
                self._step_max = max(self._step_max, 2 * step)
                self._slots.extend(limit)
                return

    # --- giving space back ---------------------------------------------------------------

    async def cut(self) -> int:
        """Cut off what is unused at the file's end, 64 MiB at most; return how many bytes that were.

        The table is shortened first: nothing can be written behind its end.
        """
        await self._file_io.ready()
        slots, limit = self._slots, self._slots.limit
        end = max(slots.unused_from(), limit - max(1, tuning.GROWTH_BYTES_MAX // self.page_size))
        before, size_bytes = self._file_io.file_size(), end * self.page_size
        if size_bytes >= before:
            return 0
        slots.cut(end)
        try:
            await transfers.cut(
                self._file_io.engine, size_bytes, f"cutting {self._file_io.path} to {size_bytes} bytes"
            )
        except BlobStoreIOError:
            slots.extend(max(end, min(limit, self._file_io.file_size() // self.page_size)))
            raise
        return before - size_bytes

    async def punch(self, first: int) -> SlotRun | None:
        """Give the blocks of some free slots from ``first`` on back to the file system; return which.

        ``None``: there are none, or it cannot.
        """
        await self._file_io.ready()
        size, slots = self.page_size, self._slots
        least, most = -(-tuning.PUNCHED_BYTES_MIN // size), max(1, tuning.GROWTH_BYTES_MAX // size)
        run = slots.find_run(SlotState.FREE, first, slots.limit, least, max(least, most))
        if run is None:
            return None
        slots.move_run(run, SlotState.HOLE)  # first: nothing is written there any more
        what = f"punching {run.slots * size} bytes of {self._file_io.path} at offset {run.slot * size}"
        if await transfers.punch(self._file_io.engine, run.slot * size, run.slots * size, what):
            return run
        slots.move_run(run, SlotState.FREE)
        return None

    async def fill_hole(self, stop: int, most: int) -> bool:
        """Allocate blocks for up to ``most`` slots of a hole below ``stop``; false: there is no hole."""
        slots, size = self._slots, self.page_size
        while (run := slots.find_run(SlotState.HOLE, slots.first, stop, 1, most)) is not None:
            what = f"allocating {run.slots * size} bytes of {self._file_io.path} at offset {run.slot * size}"
            try:
                await transfers.allocate(self._file_io.engine, run.slot * size, run.slots * size, what)
            except BlobStoreIOError as error:
                if error.errno not in NO_SPACE_ERRNOS or run.slots == 1:
                    raise
                most = run.slots // 2
            else:
                slots.move_run(run, SlotState.FREE)
                return True
        return False

    async def give_up_log_space(self, withdrawn: Sequence[SlotRun]) -> None:
        """Let frames have what was withdrawn from the log space, when neither superblock lists it any more."""
        await self._file_io.repairs.make(functools.partial(self._give_up, withdrawn))

    async def _give_up(self, withdrawn: Sequence[SlotRun]) -> None:
        await self._superblocks.record_extents(self.log_space.without(withdrawn))
        self.log_space.give_up(withdrawn)
        for run in withdrawn:
            self._slots.move_run(run, SlotState.FREE)
