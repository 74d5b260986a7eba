"""The store's heart: what each call decides, what it awaits from the engine, and what it then does.

Everything here runs on one loop's thread.  Changes run as jobs, from their first step to their
last (see :mod:`uringblob.store.io.job`); reads run in the caller's own task, because all they leave
behind is a hold on a slot.

The order that everything hangs on: a frame goes to a *fresh* slot; only when it is wholly written
is it published (``write_blob``) or logged (``commit``); the slot it replaces is used again only
when the record that replaces it is durable, is not the last one, and its readers are done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.iobuf import IoBuffer
from uringblob.engines import transfers
from uringblob.errors import BlobCorrupt, BlobNotFound, BlobStoreIOError, StoreReadOnly
from uringblob.guid import BlobGuid
from uringblob.owner import StoreOwner
from uringblob.store.allocator import SlotAllocator
from uringblob.store.caller_reads import CallerRead, CallerReads
from uringblob.store.file import StoreFile
from uringblob.store.format import CHECKSUM_BITS, entry_checksum
from uringblob.store.frame_writes import Batch
from uringblob.store.identity import FileIdentity
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.log_space import LogSpace
from uringblob.store.index.shards import PARTS, Mapped
from uringblob.store.io.checksum_budget import CHANGE, GUIDS_AT_ONCE, JOB, NAME, STEP_BYTES
from uringblob.store.io.file_io import ErrorContext, FileIO
from uringblob.store.io.job import Job, wait_all
from uringblob.store.io.pending_write import PendingWrite
from uringblob.store.log.group_commit import GroupQueue
from uringblob.store.log.maintenance import LogMaintenance
from uringblob.store.log.superblocks import Superblocks

#: Names that are listed in one step.
LISTED_AT_ONCE = 2048
#: A commit below this is checksummed first, so that its frames and its log block share a submission.
COMMIT_OVERLAP_BYTES_MIN = 1024 * 1024


class Core(StoreOwner):
    """One open store.  ``read_only`` cores have no log to write to."""

    def __init__(
        self,
        file: StoreFile,
        file_io: FileIO,
        index: BlobIndex,
        *,
        page_size: int,
        verify: bool,
        superblocks: Superblocks,
        log_space: LogSpace,
    ) -> None:
        self.file = file
        self.file_io = file_io
        self.index = index
        self.page_size = page_size
        self.superblocks = superblocks
        self.notes: list[str] = []
        self.verifies = verify  #: whether each frame's checksum is checked when it is read
        self.identity = FileIdentity(file, file_io, index.slots, superblocks)
        self.queue = GroupQueue(file_io, index, page_size, before_group=self._before_group)
        self.log_space = log_space
        self.allocator = SlotAllocator(
            file_io,
            index.slots,
            log_space,
            page_size,
            blobs=index.__len__,
            record_extents=superblocks.record_extents,
            confirm=self.queue.commit_empty_group,
        )
        self.maintenance = self.queue.maintenance = LogMaintenance(
            file_io, index, log_space, self.queue, superblocks, self.allocator.complete_log_space
        )
        self.visitors = CallerReads(index.slots, file_io.loop)
        self.last_sizes = (0, 0)
        self.commits = self.batches_linked = self.batches_scattered = self.bounces = 0

    def _before_group(self) -> None:
        self.identity.check(self.queue.log)

    # --- reading -------------------------------------------------------------------------

    async def read(self, guid: bytes, dst: IoBuffer) -> None:
        """Fill ``dst`` with the frame that is visible now.

        The hot path: what :meth:`fill` does for every frame is written out for the common one,
        because each coroutine between the caller and the engine is stepped through twice a read.
        """
        entry = self.index.find(guid)
        if entry is None:
            raise self.not_found(guid)
        slot = entry >> CHECKSUM_BITS
        slots, engine = self.index.slots, self.file_io.engine
        if dst.address % engine.memory_align or slots.beyond_end(slot):
            await self.fill(guid, slot, 0, dst)
        else:
            slots.pin(slot)
            try:
                got = await engine.read(slot * self.page_size, (dst,))
                if got != dst.size:
                    await self.fill(guid, slot, 0, dst, got)
            finally:
                slots.unpin(slot)
        if dst.size <= STEP_BYTES:
            self.check_frame(guid, entry, dst)
        else:
            await self.check_in_turns(guid, entry, dst)

    def read_here(self, guid: bytes, dst: IoBuffer) -> int:
        """Read in the calling thread; return the frame's size, or a number to go on with.

        Any thread.  :meth:`read_after` finishes what does not go as it should.
        """
        visit = CallerRead(self.visitors, self.index, self.file_io.engine, guid, dst)
        del dst  # its view would be kept by the traceback of whatever a signal handler raises
        return visit.see_through(verify=self.verifies)

    async def read_after(self, guid: bytes, dst: IoBuffer, answer: int) -> None:
        """Fill ``dst`` after :meth:`read_here` gave ``answer``: finish it, or raise what it means."""
        entry = self._entry(guid)
        await self.fill(guid, entry >> CHECKSUM_BITS, 0, dst, answer if answer < 0 else None)
        await self.check_in_turns(guid, entry, dst)

    def check_frame(self, guid: bytes, entry: int, frame: IoBuffer) -> None:
        """Raise ``BlobCorrupt`` if ``frame`` is not what was written, where this store looks."""
        if self.verifies and frame_checksum(frame.view) != entry_checksum(entry):
            raise self.corrupt(guid, entry, "its checksum does not match")

    async def check_in_turns(self, guid: bytes, entry: int, frame: IoBuffer) -> None:
        """Do what :meth:`check_frame` does, at the store's pace."""
        if self.verifies and await self.file_io.checksum_budget.checksum(frame.view) != entry_checksum(entry):
            raise self.corrupt(guid, entry, "its checksum does not match")

    def checksum(self, guid: bytes) -> int:
        """Return the checksum of the frame that is visible now; in any thread."""
        return entry_checksum(self._entry(guid))

    def _entry(self, guid: bytes) -> int:
        entry = self.index.find(guid)
        if entry is None:
            raise self.not_found(guid)
        return entry

    def not_found(self, guid: bytes) -> BlobNotFound:
        """Return the error that says that there is no such blob."""
        return BlobNotFound(
            guid,
            f"no blob {BlobGuid(guid)} in {self.file.path}: it was never written, or was deleted; "
            "list_blobs() names those there",
        )

    async def list_names(self, found: Callable[[list[bytes]], object]) -> None:
        """Hand the guids of all blobs that are visible now to ``found``, some at a time."""
        manifest, budget = self.index, self.file_io.checksum_budget
        if len(manifest) + manifest.pending_count <= LISTED_AT_ONCE and not manifest.applying:
            found(manifest.guids())
            return
        async with self.queue.names_still:
            moment = manifest.begin_moment()
            try:
                # As many parts as have a few names; a part of the largest stores has some thousands.
                step = max(1, LISTED_AT_ONCE // 2 * PARTS // (len(manifest) + manifest.pending_count + 1))
                for first in range(0, PARTS, step):
                    names = manifest.names(first, min(first + step, PARTS), moment)
                    for start in range(0, len(names), LISTED_AT_ONCE):
                        part = names[start : start + LISTED_AT_ONCE]
                        await budget.acquire(len(part) * NAME)
                        found(part)
            finally:
                manifest.end_moment(moment)

    async def read_entry(self, guid: bytes, entry: int, dst: IoBuffer) -> None:
        """Fill ``dst`` with the frame of a packed entry, unchecked."""
        await self.fill(guid, entry >> CHECKSUM_BITS, 0, dst)

    async def read_range(self, guid: bytes, offset: int, dst: IoBuffer) -> None:
        """Fill ``dst`` with a part of the frame; its checksum cannot be checked."""
        await self.fill(guid, self._entry(guid) >> CHECKSUM_BITS, offset, dst)

    async def fill(
        self, guid: bytes, slot: int, offset: int, dst: IoBuffer, answer: int | None = None
    ) -> None:
        """Fill ``dst`` wholly; ``answer`` is what the engine said to the first request, if it was made."""
        slots = self.index.slots
        if slots.beyond_end(slot):
            raise self._corrupt(guid, slot, "the file ended before it when the store was opened")
        engine = self.file_io.engine
        if dst.address % engine.memory_align:
            await self._fill_bounced(guid, slot, offset, dst)
            return
        slots.pin(slot)
        try:
            await self._fill_aligned(guid, slot, offset, dst, answer)
        finally:
            slots.unpin(slot)

    async def _fill_bounced(self, guid: bytes, slot: int, offset: int, dst: IoBuffer) -> None:
        """Fill memory that the engine cannot move."""
        bounces, pool = self.file_io.bounces, self.file_io.engine.pool
        self.index.slots.pin(slot)  # now, because a bounce frame may be long in coming
        try:
            lease = await bounces.acquire()
            try:
                self.bounces += 1
                target = lease._frame(pool).part(0, dst.size)
                await self._fill_aligned(guid, slot, offset, target)
                await self.file_io.checksum_budget.acquire(JOB)
                await self.file_io.checksum_budget.copy(dst.view, target.view)
            except GeneratorExit:
                raise  # dropped, not ended: nobody is resumed, and the kernel may have the frame
            except BaseException:
                bounces.release(lease)
                raise
            bounces.release(lease)
        finally:
            self.index.slots.unpin(slot)

    async def _fill_aligned(
        self, guid: bytes, slot: int, offset: int, dst: IoBuffer, answer: int | None = None
    ) -> None:
        at = slot * self.page_size + offset
        try:
            where = ErrorContext("reading blob", self.file.path, at, guid)
            got = await transfers.read_whole(self.file_io.engine, at, [dst], where, answer)
        except BlobStoreIOError as error:
            error.guid = BlobGuid(guid)
            raise
        if got != dst.size:
            raise self._corrupt(guid, slot, f"the file ends after {got} of its bytes")

    def corrupt(self, guid: bytes, entry: int, why: str) -> BlobCorrupt:
        """Return the error that says why the frame of a packed entry is not the one written."""
        return self._corrupt(guid, entry >> CHECKSUM_BITS, why)

    def _corrupt(self, guid: bytes, slot: int, why: str) -> BlobCorrupt:
        offset = slot * self.page_size
        return BlobCorrupt(
            f"{self.file.path}: blob {BlobGuid(guid)} (offset {offset}): {why}. "
            "Write it again or restore it from a copy; all other blobs stay readable",
            guid,
            offset,
        )

    # --- changing ------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Raise if no change may be made: read-only, or poisoned."""
        if self.file.read_only:
            raise StoreReadOnly(f"{self.file.path} was opened with read_only=True: open it without")
        self.file_io.check_not_poisoned()

    async def write(self, writes: Mapped[IoBuffer], *, data_sync: bool) -> None:
        """Write frames and make them visible; with ``data_sync`` their bytes are durable, too."""
        if not writes:
            self.check_writable()
            return
        batch = await self._prepare(writes)
        try:
            if data_sync:
                linked = await batch.checksum_while(batch.land_synced)
                self.batches_linked += linked
                self.batches_scattered += not linked
            else:
                await batch.checksum_while(batch.land)
        except BaseException as error:
            batch.give_back(error)
            raise
        self.bounces += batch.bounces
        entries = batch.entries
        for start in range(0, len(entries), GUIDS_AT_ONCE):
            if start and not self.file_io.checksum_budget.try_acquire(GUIDS_AT_ONCE * CHANGE):
                await self.file_io.checksum_budget.acquire(GUIDS_AT_ONCE * CHANGE)
            part = entries if len(entries) <= GUIDS_AT_ONCE else entries[start : start + GUIDS_AT_ONCE]
            self.index.publish(part, synced=data_sync)

    async def delete(self, guid: bytes) -> None:
        """Make ``guid`` invisible; durable with the next flush."""
        self.check_writable()
        self.index.publish_deletion(guid)

    async def commit(self, writes: Mapped[IoBuffer], deletes: Sequence[bytes]) -> None:
        """Make all of it durable at once, then visible at once."""
        if not writes:
            self.check_writable()
            if await self._knows_any(deletes):
                await self.queue.join_commit([], deletes, landed=None, frame_bytes=0)
            self.commits += 1
            return
        size_bytes = len(writes) * self.page_size
        small = size_bytes < COMMIT_OVERLAP_BYTES_MIN
        budget = self.file_io.checksum_budget
        if small and not budget.try_acquire(size_bytes):
            await budget.acquire(
                size_bytes
            )  # before anything else of it, so that the first of many write at once
        batch = await self._prepare(writes)
        landed: PendingWrite | Job[None] | None = None
        try:
            if small:
                batch.checksum()
                landed = batch.land()
            else:
                landed = batch.land()
                await batch.checksum_later()
            await self.queue.join_commit(batch.entries, deletes, landed=landed, frame_bytes=batch.size_bytes)
        except GeneratorExit:
            raise  # the store was dropped, not closed: nothing may be awaited any more
        except BaseException as error:
            # Whatever failed, the kernel may still be reading the caller's frames.
            if landed is not None:
                await wait_all([landed])
            batch.give_back(error)
            raise
        self.bounces += batch.bounces
        self.commits += 1

    async def _knows_any(self, guids: Sequence[bytes]) -> bool:
        for number, guid in enumerate(guids, 1):
            if self.index.exists_in_any_layer(guid):
                return True
            if number % GUIDS_AT_ONCE == 0 and not self.file_io.checksum_budget.try_acquire(
                GUIDS_AT_ONCE * NAME
            ):
                await self.file_io.checksum_budget.acquire(GUIDS_AT_ONCE * NAME)
        return False

    async def _prepare(self, writes: Mapped[IoBuffer]) -> Batch:
        self.check_writable()
        batch = Batch(self.file_io, self.allocator, self.page_size)
        await batch.take_slots(writes)
        return batch

    async def flush(self) -> None:
        """Make everything that is visible now durable."""
        if self.file.read_only:
            return
        self.file_io.check_not_poisoned()
        if self.index.has_pending:
            await self.queue.join_flush()

    @property
    def needs_flush(self) -> bool:
        """Whether anything that returned, or failed half-way, is not durable."""
        if self.file.read_only:
            return False
        return self.index.has_pending or self.file_io.poison_cause is not None

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
