"""What the store does between its users' changes: lengthen the log's chain, and compact the log.

It runs in the background, and its errors are logged.  A group for which the log space has no room
waits for a compaction; what a compaction takes is never given to a group (:meth:`LogMaintenance.log_fits`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable

from uringblob import tuning
from uringblob.completion import Completion
from uringblob.errors import BlobStoreError
from uringblob.logs import logger
from uringblob.store.format import RECORDS_PER_BLOCK, VERSION, blocks_for
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.log_space import LogSpace
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Job, wait_all
from uringblob.store.log.compaction import Compaction, CompactionStopped
from uringblob.store.log.superblocks import Superblocks
from uringblob.store.log.writer import ActiveLog


@dataclasses.dataclass(eq=False, repr=False)
class LogMaintenance:
    """Decides when the log is compacted and its chain lengthened.  Belongs to the loop's thread."""

    _file_io: FileIO
    _index: BlobIndex
    _log_space: LogSpace
    _active: ActiveLog
    _superblocks: Superblocks
    _complete_log_space: Callable[[], Awaitable[None]]
    compaction_blocks_min: int = dataclasses.field(default_factory=lambda: tuning.COMPACTION_BLOCKS_MIN)
    compactions: int = 0
    _compaction: Compaction | None = None
    _compacting: Job[None] | None = None
    _pins: int = 0
    _unpinned: Completion[None] | None = None
    _ended: bool = False

    @property
    def compacting(self) -> bool:
        """Whether a compaction is under way."""
        return self._compacting is not None and not self._compacting.done()

    def after_group(self) -> None:
        """Begin a compaction, or lengthen the chain, if the log needs it after a group."""
        if self._pins or self._ended:
            return
        log, space = self._active.log, self._log_space
        blocks = log.group_blocks
        slots = self._index.slots
        if blocks >= self.compaction_blocks_min and blocks >= 2 * blocks_for(
            self._index.durable_count(), slots.live_meta_cells
        ):
            self.start_compaction()
        elif log.room < log.low_room:
            compaction = space.segment_granules + space.for_compaction(slots.named, slots.meta_cells)
            # An eighth is for the groups that come while a compaction is under way.
            if space.free_granules - compaction >= space.capacity // 8 and not self.compacting:
                log.extend()
            elif log.room <= log.blocks_of(log.tail) // 8:
                self.start_compaction()

    def log_fits(self, blocks: int) -> bool:
        """Whether a group of ``blocks`` may be written: there is room for it and for what must follow.

        That is a compaction of the whole index; while one is under way, its CARRY with this group, and then
        another compaction.
        """
        log, space, slots = self._active.log, self._log_space, self._index.slots
        named, meta_cells = slots.named, slots.meta_cells
        if self._superblocks.current.version < VERSION:
            return False  # the compaction that upgrades the store comes before its first group
        idle = self._compacting is None or self._compacting.done()
        if (
            idle
            and blocks < log.room
            and named <= space.compacts_up_to
            and meta_cells <= space.compacts_with_meta
        ):
            return True  # as the last answer was, and nothing has become less
        free = space.free_granules - log.granules_for(blocks)
        if idle:
            fits = free >= space.for_compaction(named, meta_cells)
            if fits and blocks < log.room:
                space.compacts_up_to, space.compacts_with_meta = named, meta_cells
            return fits
        delta, delta_meta_cells = len(self._index.delta()), self._index.delta_meta_cells
        carried = blocks_for(delta) + blocks
        if meta_cells or delta_meta_cells:
            # Records pack less densely with metadata among them, also those of earlier groups.
            carried = blocks_for(delta + blocks * RECORDS_PER_BLOCK, max(1, delta_meta_cells))
        free -= space.granules_for(carried) + space.segment_granules
        old = sum(segment.slots for segment in log.chain) // space.granule
        return free >= 0 and free + old >= space.for_compaction(named, meta_cells)

    # --- compaction ----------------------------------------------------------------------

    def start_compaction(self) -> Job[None]:
        """Begin to rewrite the log as a snapshot, unless that is under way; return the job."""
        if self._compacting is None or self._compacting.done():
            self._compacting = self._file_io.start(self._compact())
            self._compacting.add_done_callback(lambda job: job.exception())
        return self._compacting

    async def _compact(self) -> None:
        self._compaction = Compaction(
            self._file_io, self._index, self._log_space, self._active, self._superblocks
        )
        try:
            await self._complete_log_space()  # a failed compaction may have forfeited some
            await self._compaction.run()
        except CompactionStopped:
            raise  # by a close: nothing failed
        except BlobStoreError as error:
            path, number = self._file_io.path, getattr(error, "errno", None) or 0
            logger.warning(
                "%s: compaction of the log was given up: %s",
                path,
                error,
                extra={"event": "compaction_failed", "path": path, "errno": number},
            )
            # Not again with the next group.
            self._active.log.group_blocks = 0
            raise
        self.compactions += 1

    async def wait(self) -> None:
        """Wait for a compaction under way; its error is not this caller's."""
        if self._compacting is not None:
            await wait_all([self._compacting])

    async def end(self) -> None:
        """Start no more maintenance; stop a compaction if it can still be given up, and wait for it."""
        self._ended = True
        if self._compaction is not None:
            self._compaction.stop()
        await self.wait()

    # --- readers of the log --------------------------------------------------------------

    def pin(self) -> None:
        """Begin no compaction until as many calls of :meth:`unpin`: the log is being read."""
        self._pins += 1

    def unpin(self) -> None:
        """Take one pin away."""
        self._pins -= 1
        if not self._pins and self._unpinned is not None:
            unpinned, self._unpinned = self._unpinned, None
            unpinned.resolve(None)

    async def wait_unpinned(self) -> None:
        """Wait until the log is not pinned, or a compaction is under way, for which its reader waits."""
        while self._pins and not self.compacting:
            if self._unpinned is None:
                self._unpinned = Completion(loop=self._file_io.loop)
            await self._unpinned
