"""The store's heart: what each call decides, what it awaits from the engine, and what it then does.

Everything here runs on one loop's thread.  Changes run as jobs, from their first step to their
last (see :mod:`uringblob.store.job`); reads run in the caller's own task, because all they leave
behind is a hold on a slot.

The order that everything hangs on: a frame goes to a *fresh* slot; only when it is wholly written
is it published (``write_blob``) or logged (``commit``); the slot it replaces is used again only
when the record that replaces it is durable, is not the last one, and its readers are done.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from uringblob import transfers
from uringblob.errors import BlobCorrupt, BlobNotFound, BlobStoreError, BlobStoreIOError, StoreReadOnly
from uringblob.frames import Frame
from uringblob.guid import BlobGuid
from uringblob.store.batch import Batch
from uringblob.store.compaction import Compaction
from uringblob.store.format import CHECKSUM_BITS, blocks_for, entry_checksum, frame_checksum
from uringblob.store.groups import GroupQueue
from uringblob.store.job import Job, settle
from uringblob.store.manifest import Manifest
from uringblob.store.medium import Medium
from uringblob.store.space import Space
from uringblob.store.store_file import StoreFile
from uringblob.store.superblocks import Superblocks
from uringblob.views import BlobBuffer

logger = logging.getLogger("uringblob")

#: Log blocks behind the snapshot at which compaction begins, if that is more than twice the snapshot.
COMPACTION_BLOCKS_MIN = 1024


class Core:
    """One open store.  ``read_only`` cores have no log to write to."""

    def __init__(
        self,
        file: StoreFile,
        medium: Medium,
        manifest: Manifest,
        *,
        page_size: int,
        verify: bool,
        superblocks: Superblocks,
    ) -> None:
        self.file = file
        self.medium = medium
        self.manifest = manifest
        self.page_size = page_size
        self.superblocks = superblocks
        self.notes: list[str] = []
        self._verify = verify
        self.compaction_blocks_min = COMPACTION_BLOCKS_MIN
        self.queue = GroupQueue(medium, manifest, page_size, after_group=self._after_group)
        self.space = Space(
            medium,
            manifest.slots,
            page_size,
            records=lambda: manifest.durable_count() + manifest.pending_count,
            confirm=self.queue.join_confirm,
            compact=self._compact_for_room,
        )
        self._compacting: Job[None] | None = None
        self._refilling: Job[None] | None = None
        self._compaction_holds = 0
        self._compaction: Compaction | None = None
        self.closing = False
        self.last_sizes = (0, 0)
        self.commits = self.compactions = self.batches_linked = self.batches_scattered = self.bounces = 0

    # --- reading -------------------------------------------------------------------------

    async def read(self, guid: bytes, dst: Frame) -> None:
        """Fill ``dst`` with the frame that is visible now."""
        entry = self.manifest.find(guid)
        if entry is None:
            raise BlobNotFound(guid, f"no blob {BlobGuid(guid)} in {self.file.path}")
        await self._fill(guid, entry >> CHECKSUM_BITS, 0, dst)
        if self._verify and frame_checksum(dst.view) != entry_checksum(entry):
            raise self.corrupt(guid, entry, "its checksum does not match")

    async def read_entry(self, guid: bytes, entry: int, dst: Frame) -> None:
        """Fill ``dst`` with the frame of a packed entry, unchecked."""
        await self._fill(guid, entry >> CHECKSUM_BITS, 0, dst)

    async def read_range(self, guid: bytes, offset: int, dst: Frame) -> None:
        """Fill ``dst`` with a part of the frame; its checksum cannot be checked."""
        entry = self.manifest.find(guid)
        if entry is None:
            raise BlobNotFound(guid, f"no blob {BlobGuid(guid)} in {self.file.path}")
        await self._fill(guid, entry >> CHECKSUM_BITS, offset, dst)

    async def _fill(self, guid: bytes, slot: int, offset: int, dst: Frame) -> None:
        slots = self.manifest.slots
        if slots.beyond_end(slot):
            raise self._corrupt(guid, slot, "the file ended before it when the store was opened")
        engine = self.medium.engine
        target, lease = dst, None
        if dst.address % engine.memory_align:
            lease = engine.pool.lease()
            target = lease._frame(engine.pool).part(0, dst.size)
            self.bounces += 1
        at = slot * self.page_size + offset
        slots.hold(slot)
        try:
            got = await transfers.read_whole(engine, at, [target], self.medium.where("reading a blob", at))
        except BlobStoreIOError as error:
            error.guid = BlobGuid(guid)
            raise
        finally:
            slots.unhold(slot)
        if got != dst.size:
            raise self._corrupt(guid, slot, f"the file ends after {got} of its bytes")
        if lease is not None:
            dst.view[:] = target.view

    def corrupt(self, guid: bytes, entry: int, why: str) -> BlobCorrupt:
        """Return the error that says why the frame of a packed entry is not the one written."""
        return self._corrupt(guid, entry >> CHECKSUM_BITS, why)

    def _corrupt(self, guid: bytes, slot: int, why: str) -> BlobCorrupt:
        return BlobCorrupt(
            f"{self.file.path}: blob {BlobGuid(guid)} (offset {slot * self.page_size}): {why}. "
            "Write it again or restore it from a copy; all other blobs stay readable",
            guid,
        )

    # --- changing ------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Raise if no change may be made: read-only, or poisoned."""
        if self.file.read_only:
            raise StoreReadOnly(f"{self.file.path} was opened with read_only=True: open it without")
        self.medium.check_trusted()

    async def write(self, writes: Mapping[bytes, BlobBuffer], *, data_sync: bool) -> None:
        """Write frames and make them visible; with ``data_sync`` their bytes are durable, too."""
        if not writes:
            return
        batch = await self._prepare(writes)
        try:
            if data_sync:
                linked = await batch.land_synced()
                self.batches_linked += linked
                self.batches_scattered += not linked
            else:
                await batch.land()
        except BaseException:
            batch.give_back()
            raise
        self.bounces += batch.bounces
        for guid, entry in batch.entries:
            self.manifest.publish(guid, entry, synced=data_sync)

    async def delete(self, guid: bytes) -> None:
        """Make ``guid`` invisible; durable with the next flush."""
        self.check_writable()
        self.manifest.publish_deletion(guid)

    async def commit(self, writes: Mapping[bytes, BlobBuffer], deletes: Sequence[bytes]) -> None:
        """Make all of it durable at once, then visible at once."""
        if not writes:
            self.check_writable()
            if any(self.manifest.knows(guid) for guid in deletes):
                await self.queue.join_commit([], deletes, landed=None, frame_bytes=0)
            self.commits += 1
            return
        batch = await self._prepare(writes)
        landed = Job(batch.land(), self.medium.loop)
        try:
            await self.queue.join_commit(batch.entries, deletes, landed=landed, frame_bytes=batch.size_bytes)
        except BaseException:
            # Whatever failed, the kernel may still be reading the caller's frames.
            await settle([landed])
            batch.give_back()
            raise
        self.bounces += batch.bounces
        self.commits += 1

    async def _prepare(self, writes: Mapping[bytes, BlobBuffer]) -> Batch:
        self.check_writable()
        batch = Batch(self.medium, self.space, self.page_size)
        await batch.prepare(writes)
        return batch

    async def flush(self) -> None:
        """Make everything that is visible now durable."""
        if self.file.read_only:
            return
        self.medium.check_trusted()
        if self.manifest.has_pending:
            await self.queue.join_flush()

    @property
    def needs_flush(self) -> bool:
        """Whether anything that returned, or failed half-way, is not durable."""
        if self.file.read_only:
            return False
        return self.manifest.has_pending or self.medium.poison_cause is not None

    # --- compaction ----------------------------------------------------------------------

    def _after_group(self) -> None:
        log = self.queue.log
        enough = max(self.compaction_blocks_min, 2 * blocks_for(self.manifest.durable_count()))
        if self._compaction_holds or self.closing:
            return
        if log.group_blocks >= enough:
            self.start_compaction()
        elif self.space.short and (self._refilling is None or self._refilling.done()):
            self._refilling = Job(self._refill_or_compact(), self.medium.loop)
            self._refilling.add_done_callback(lambda job: job.exception())

    async def _refill_or_compact(self) -> None:
        """The log took from its reserve: replace it, on a full disk by making the log shorter."""
        await self.space.refill()
        if self.space.short and not self._compaction_holds and not self.closing:
            await self._compact_for_room()

    async def _compact_for_room(self) -> bool:
        """Compact if that frees at least one segment; tell whether it did."""
        log = self.queue.log
        blocks = blocks_for(self.manifest.durable_count()) + 1
        fewest = -(-blocks // (log.blocks_of(log.tail) - 1))
        if len(log.segments) <= fewest or self._compaction_holds:
            return False
        try:
            await self.start_compaction()
        except BlobStoreError:
            return False  # it was logged; the caller has an error of its own to raise
        return True

    def start_compaction(self) -> Job[None]:
        """Begin rewriting the log as a snapshot, unless that is under way already."""
        if self._compacting is None or self._compacting.done():
            self._compacting = Job(self._compact(), self.medium.loop)
            self._compacting.add_done_callback(lambda job: job.exception())
        return self._compacting

    async def _compact(self) -> None:
        self._compaction = Compaction(self.medium, self.manifest, self.space, self.queue, self.superblocks)
        try:
            await self._compaction.run()
        except BlobStoreError as error:
            # Nobody asked for it, so nobody gets the error: the old log goes on.
            logger.warning("%s: compaction of the log was given up: %s", self.file.path, error)
            # Not with every group from now on.
            self.queue.log.group_blocks = 0
            raise
        self.compactions += 1

    def hold_compaction(self) -> None:
        """Keep the log where it is, for whoever reads it."""
        self._compaction_holds += 1

    def unhold_compaction(self) -> None:
        """One reader of the log is done."""
        self._compaction_holds -= 1

    async def wait_compaction(self, *, stop: bool) -> None:
        """Wait for a compaction under way; with ``stop`` it gives up at its next step."""
        if self._compacting is not None and not self._compacting.done():
            if stop and self._compaction is not None:
                self._compaction.stop()
            await settle([self._compacting])

    # --- the end -------------------------------------------------------------------------

    async def close(self, *, flush: bool) -> None:
        """Flush, seal, and free everything whatever happens; then raise the flush's error."""
        error: BaseException | None = None
        try:
            if not self.file.read_only:
                await self._wait_background()
                if flush:
                    await self.flush()
                await self._seal()
        except Exception as failure:  # noqa: BLE001 - raised below, when everything is freed
            error = failure
        finally:
            try:
                await self.medium.engine.close()
            finally:
                self.medium.engine.pool.retire()
                self.file.close()
        if error is not None:
            raise error

    async def _wait_background(self) -> None:
        if self._refilling is not None:
            await settle([self._refilling])
        await self.wait_compaction(stop=True)

    async def _seal(self) -> None:
        if not self.queue.idle:
            await self.queue.join_turn(self._nothing)
        await self.queue.log.wait_quiet()
        if self.medium.poison_cause is None:
            await self.superblocks.seal(self.queue.log.seq)

    async def _nothing(self) -> None:
        """A turn of the queue that only waits for the groups before it."""

    def abandon(self) -> None:
        """Free this process's copies without waiting, writing or unlocking."""
        self.medium.engine.abandon()
        self.file.abandon()
