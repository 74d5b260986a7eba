"""What the store does for itself, between its users' changes: shorten the log, complete its reserve.

Nobody waits for it and nobody gets its errors; they are logged.  On a full disk a writer that
found no room asks for it (:meth:`Upkeep.compact_for_room`) before it gives up.
"""

from __future__ import annotations

from uringblob.errors import BlobStoreError
from uringblob.logs import logger
from uringblob.store.compaction import Compaction, CompactionStopped
from uringblob.store.format import blocks_for
from uringblob.store.groups import GroupQueue
from uringblob.store.job import Job, settle
from uringblob.store.manifest import Manifest
from uringblob.store.medium import Medium
from uringblob.store.space import Space
from uringblob.store.superblocks import Superblocks

#: Log blocks behind the snapshot at which compaction begins, if that is more than twice the snapshot.
COMPACTION_BLOCKS_MIN = 1024


class Upkeep:
    """When the log is compacted and its reserve refilled.  Belongs to the loop's thread."""

    def __init__(
        self, medium: Medium, manifest: Manifest, space: Space, queue: GroupQueue, superblocks: Superblocks
    ) -> None:
        self._medium = medium
        self._manifest = manifest
        self._space = space
        self._queue = queue
        self._superblocks = superblocks
        self.compaction_blocks_min = COMPACTION_BLOCKS_MIN
        self.compactions = 0
        self._compaction: Compaction | None = None
        self._compacting: Job[None] | None = None
        self._refilling: Job[None] | None = None
        self._holds = 0
        self._ended = False

    def __repr__(self) -> str:
        state = "compacting" if self._compacting is not None and not self._compacting.done() else "idle"
        return f"<Upkeep {state} compactions={self.compactions} holds={self._holds}>"

    def after_group(self) -> None:
        """A group is durable: see whether the log is long, or took from its reserve."""
        if self._holds or self._ended:
            return
        enough = max(self.compaction_blocks_min, 2 * blocks_for(self._manifest.durable_count()))
        if self._queue.log.group_blocks >= enough:
            self.start_compaction()
        elif self._space.short and (self._refilling is None or self._refilling.done()):
            self._refilling = self._medium.start(self._refill_or_compact())
            self._refilling.add_done_callback(lambda job: job.exception())

    # --- compaction ----------------------------------------------------------------------

    def start_compaction(self) -> Job[None]:
        """Begin rewriting the log as a snapshot, unless that is under way already."""
        if self._compacting is None or self._compacting.done():
            self._compacting = self._medium.start(self._compact())
            self._compacting.add_done_callback(lambda job: job.exception())
        return self._compacting

    async def _compact(self) -> None:
        self._compaction = Compaction(
            self._medium, self._manifest, self._space, self._queue, self._superblocks
        )
        try:
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

    async def compact_for_room(self) -> bool:
        """Compact if that frees at least one segment; tell whether it did."""
        # What is missing may be the segment that the log was just given: it counts when it is linked.
        await self._queue.log.wait_quiet()
        if self._compacting is not None and not self._compacting.done():
            # Until it ends it has both logs' segments, and the reserve lacks them.
            await self.wait()
            return True
        log = self._queue.log
        blocks = blocks_for(self._manifest.durable_count()) + 1
        fewest = -(-blocks // (log.blocks_of(log.tail) - 1))
        if len(log.segments) <= fewest or self._holds or self._ended:
            return False
        try:
            await self.start_compaction()
        except BlobStoreError:
            return False  # it was logged; the caller has an error of its own to raise
        return True

    async def _refill_or_compact(self) -> None:
        """The log took from its reserve: replace it, on a full disk by making the log shorter."""
        await self._space.refill()
        if self._space.short and not self._holds and not self._ended:
            await self.compact_for_room()

    # --- standing still ------------------------------------------------------------------

    def hold(self) -> None:
        """Keep the log where it is, for whoever reads it."""
        self._holds += 1

    def unhold(self) -> None:
        """One reader of the log is done."""
        self._holds -= 1

    async def wait(self) -> None:
        """Wait for a compaction under way; its error is not this caller's."""
        if self._compacting is not None and not self._compacting.done():
            await settle([self._compacting])

    async def end(self) -> None:
        """Begin nothing any more, and give up what can be given up."""
        self._ended = True
        if self._compaction is not None:
            self._compaction.stop()
        if self._refilling is not None:
            await settle([self._refilling])
        await self.wait()
