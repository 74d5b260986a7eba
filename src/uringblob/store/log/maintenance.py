"""What the store does for itself, between its users' changes: lengthen the log's chain, and shorten the log.

It is done in the background, and its errors are logged.  A group for which the log space has no
room waits for it (:meth:`LogMaintenance.log_fits`): what a compaction takes is never given to a group.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from uringblob.completion import Completion
from uringblob.errors import BlobStoreError
from uringblob.logs import logger
from uringblob.store.format import VERSION, blocks_for
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.log_space import LogSpace
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Job, wait_all
from uringblob.store.log.compaction import Compaction, CompactionStopped
from uringblob.store.log.group_commit import GroupQueue
from uringblob.store.log.superblocks import Superblocks

#: Log blocks behind the snapshot at which compaction begins, if that is more than twice the snapshot.
COMPACTION_BLOCKS_MIN = 1024


class LogMaintenance:
    """When the log is compacted and its chain lengthened.  Belongs to the loop's thread."""

    def __init__(
        self,
        medium: FileIO,
        index: BlobIndex,
        log_space: LogSpace,
        queue: GroupQueue,
        superblocks: Superblocks,
        complete_log_space: Callable[[], Awaitable[None]],
    ) -> None:
        self._medium = medium
        self._index = index
        self._log_space = log_space
        self._queue = queue
        self._superblocks = superblocks
        self._complete_log_space = complete_log_space
        self.compaction_blocks_min = COMPACTION_BLOCKS_MIN
        self.compactions = 0
        self._compaction: Compaction | None = None
        self._compacting: Job[None] | None = None
        self._pins = 0
        self._unpinned: Completion[None] | None = None
        self._ended = False

    def __repr__(self) -> str:
        return (
            f"<LogMaintenance {'compacting' if self.compacting else 'idle'} compactions={self.compactions}"
            f" pins={self._pins}>"
        )

    @property
    def compacting(self) -> bool:
        """A compaction is under way."""
        return self._compacting is not None and not self._compacting.done()

    def after_group(self) -> None:
        """A group is durable: see whether the log is long, or its chain short."""
        log = self._queue.log
        if self._pins or self._ended:
            return
        enough = max(self.compaction_blocks_min, 2 * blocks_for(self._index.durable_count()))
        if log.group_blocks >= enough:
            self.start_compaction()
        elif log.runs_low:
            space = self._log_space
            left = (
                space.free_granules - space.segment_granules - space.for_compaction(self._index.slots.named)
            )
            # An eighth is for the groups that come while a compaction is under way.
            if left >= space.capacity // 8 and not self.compacting:
                log.prepare_room()
            elif log.room <= log.blocks_of(log.tail) // 8:
                self.start_compaction()

    # --- room ----------------------------------------------------------------------------

    def log_fits(self, blocks: int) -> bool:
        """Tell whether a group of ``blocks`` may be written: there is room for it and for what must follow.

        What must follow is a compaction of all there will be then, or the end of the one under way,
        with this group in its carry, and another one after it.
        """
        log, space, named = self._queue.log, self._log_space, self._index.slots.named
        if self._superblocks.current.version < VERSION:
            return False  # its first group waits for the compaction that upgrades it
        free = space.free_granules - log.granules_for(blocks)
        if not self.compacting:
            return free >= space.for_compaction(named)
        carried = blocks_for(len(self._index.delta())) + blocks
        free -= space.granules_for(carried) + space.segment_granules
        old = sum(segment.slots for segment in log.chain) // space.granule
        return free >= 0 and free + old >= space.for_compaction(named)

    async def wait_unpinned(self) -> None:
        """Wait until no reader of the log keeps it where it is, or a compaction is under way.

        That one has begun before, and a reader waits for its end.
        """
        while self._pins and not self.compacting:
            if self._unpinned is None:
                self._unpinned = Completion(loop=self._medium.loop)
            await self._unpinned

    # --- compaction ----------------------------------------------------------------------

    def start_compaction(self) -> Job[None]:
        """Begin rewriting the log as a snapshot, unless that is under way already."""
        if self._compacting is None or self._compacting.done():
            self._compacting = self._medium.start(self._compact())
            self._compacting.add_done_callback(lambda job: job.exception())
        return self._compacting

    async def _compact(self) -> None:
        self._compaction = Compaction(
            self._medium, self._index, self._log_space, self._queue, self._superblocks
        )
        try:
            await self._complete_log_space()  # what a failed compaction forfeited is made up for
            await self._compaction.run()
        except CompactionStopped:
            raise  # by a close: nothing failed
        except BlobStoreError as error:
            logger.warning(
                "%s: compaction of the log was given up: %s",
                self._medium.path,
                error,
                extra={
                    "event": "compaction_failed",
                    "path": self._medium.path,
                    "errno": getattr(error, "errno", None) or 0,
                },
            )
            # Not with every group from now on.
            self._queue.log.group_blocks = 0
            raise
        self.compactions += 1

    # --- standing still ------------------------------------------------------------------

    def pin(self) -> None:
        """Keep the log where it is, for whoever reads it."""
        self._pins += 1

    def unpin(self) -> None:
        """One reader of the log is done."""
        self._pins -= 1
        if not self._pins and self._unpinned is not None:
            unheld, self._unpinned = self._unpinned, None
            unheld.resolve(None)

    async def wait(self) -> None:
        """Wait for a compaction under way; its error is not this caller's."""
        if self._compacting is not None and not self._compacting.done():
            await wait_all([self._compacting])

    async def end(self) -> None:
        """Begin nothing any more, and give up what can be given up."""
        self._ended = True
        if self._compaction is not None:
            self._compaction.stop()
        await self.wait()
