"""Reading one frame: a plan, the engine's request, and what its result means.

:meth:`FrameReads.plan` decides without an await: the blob's slot, the place in the file, and whether the
engine can fill this memory.  Who makes the request differs: the caller's task (:meth:`FrameReads.start`), a
batch (:mod:`uringblob.store.multi_read`) or the caller's thread (:mod:`uringblob.store.caller_reads`).
:meth:`FrameRead.finish` takes the result: it reads what is missing, and compares the checksum.
"""

from __future__ import annotations

from typing import Protocol

from uringblob import tuning
from uringblob.api.blob_stat import BlobStat
from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.iobuf import IoBuffer
from uringblob.engines import transfers
from uringblob.errors import BlobCorrupt, BlobNotFound, BlobStoreError, BlobStoreIOError
from uringblob.guid import BlobGuid
from uringblob.store.format import CHECKSUM_BITS, CHECKSUM_MASK, entry_meta
from uringblob.store.index.slots import SlotTable
from uringblob.store.io.file_io import ErrorContext, FileIO
from uringblob.wait import Wait


class Shown(Protocol):
    """What readers see: the index, or a moment of it."""

    slots: SlotTable

    def find(self, guid: bytes) -> int | None:
        """Return the packed entry of ``guid``, or ``None``; in any thread."""


class FrameReads:
    """What all reads of one store, or of one snapshot, share.  ``verifies``: checksums are compared."""

    def __init__(self, file_io: FileIO, index: Shown, page_size: int, *, verifies: bool) -> None:
        self.file_io = file_io
        self.engine = file_io.engine
        self.align = file_io.engine.memory_align
        self.index = index
        self.slots = index.slots
        self.page_size = page_size
        self.loop = file_io.loop
        self.verifies = verifies
        #: Frames that are larger are checksummed in steps, and not where they are reaped.
        self.checks_whole = verifies and page_size <= tuning.STEP_BYTES
        self.checks_at_once = self.checks_whole or not verifies

    def start(self, guid: bytes, dst: IoBuffer, wait: FrameWait) -> bool:
        """Ask the engine for the frame that is visible now; false: :meth:`plan` the read.

        The slot is pinned until :meth:`end`.  Raises what :meth:`locate` raises.
        """
        entry = self.index.find(guid)
        if entry is None or self.slots.beyond:
            entry = self.locate(guid)
        slot = entry >> CHECKSUM_BITS
        want = entry & CHECKSUM_MASK if self.checks_whole else None
        if dst.address % self.align or not self.engine.start_read(slot * self.page_size, dst, want, wait):
            return False
        wait.entry = entry
        pins = self.slots._pins
        count = pins.get(slot, 0)
        # A signal handler can raise after a call only, so not between these two.
        pins[slot] = count + 1
        wait.pinned = True
        return True

    def end(self, wait: FrameWait) -> bool:
        """Unpin the slot; return whether the frame is whole and the one that was written.

        May be repeated where a signal handler raised.
        """
        slots, slot = self.slots, wait.entry >> CHECKSUM_BITS
        if wait.pinned:
            count = slots._pins[slot] - 1
            if count:
                slots._pins[slot] = count
            else:
                del slots._pins[slot]
            wait.pinned = False
        if slot in slots._awaiting_readers:
            slots.try_free(slot)
        return wait.got == self.page_size and not wait.mismatch and self.checks_at_once

    def plan(self, guid: bytes, dst: IoBuffer, offset_in_frame: int = 0) -> FrameRead:
        """Plan a read; in any thread.  Raises what :meth:`locate` raises."""
        return FrameRead(self, guid, self.locate(guid), dst, offset_in_frame)

    async def read(self, guid: bytes, dst: IoBuffer, answer: int | None = None) -> None:
        """Fill ``dst`` with the frame; ``answer`` is the request's result, if it was made."""
        await self.plan(guid, dst).finish(answer)

    async def read_range(self, guid: bytes, offset: int, dst: IoBuffer) -> None:
        """Fill ``dst`` with a part of the frame; its checksum cannot be checked."""
        await self.plan(guid, dst, offset).fill()

    def locate(self, guid: bytes) -> int:
        """Return the packed entry that is visible now; in any thread.

        :raises BlobNotFound: there is no such blob.
        :raises BlobCorrupt: the file was too short for it already when the store was opened.
        """
        entry = self.index.find(guid)
        if entry is None:
            raise self.not_found(guid)
        if entry >> CHECKSUM_BITS in self.slots.beyond:
            raise self.corrupt(guid, entry, "the file ended before it when the store was opened")
        return entry

    def checksum(self, guid: bytes) -> int:
        """Return the checksum of the frame that is visible now; in any thread."""
        entry = self.index.find(guid)
        if entry is None:
            raise self.not_found(guid)
        return entry & CHECKSUM_MASK

    def stat(self, guid: bytes) -> BlobStat:
        """Return what is known of the blob that is visible now; in any thread."""
        entry = self.index.find(guid)
        if entry is None:
            raise self.not_found(guid)
        return BlobStat(self.page_size, entry & CHECKSUM_MASK, entry_meta(entry))

    def not_found(self, guid: bytes) -> BlobStoreError:
        """Return the error for a blob that does not exist."""
        return BlobNotFound(
            guid,
            f"no blob {BlobGuid(guid)} in {self.file_io.path}: it was never written, or was deleted; "
            "list_blobs() names those there",
        )

    def corrupt(self, guid: bytes, entry: int, why: str) -> BlobCorrupt:
        """Return the error for a frame that is not the one written."""
        offset = (entry >> CHECKSUM_BITS) * self.page_size
        return BlobCorrupt(
            f"{self.file_io.path}: blob {BlobGuid(guid)} (offset {offset}): {why}. "
            "Write it again or restore it from a copy; all other blobs stay readable",
            guid,
            offset,
        )


class FrameWait(Wait):
    """A task's wait for the frame of ``entry``, which is being read; 0: it was not asked for."""

    __slots__ = ()

    entry = 0
    pinned = False


class FrameRead:
    """One planned read of ``dst.size`` bytes from ``offset`` in the file, into ``dst``.

    ``entry`` is the blob's, ``slot`` where it lies; ``bounced`` says that the engine cannot fill ``dst``.
    The request itself needs the slot pinned, or registered with ``CallerReads``.
    """

    __slots__ = ("bounced", "dst", "entry", "guid", "offset", "reads", "slot")

    def __init__(
        self, reads: FrameReads, guid: bytes, entry: int, dst: IoBuffer, offset_in_frame: int = 0
    ) -> None:
        self.reads = reads
        self.guid = guid
        self.dst = dst
        self.entry = entry
        self.slot = slot = entry >> CHECKSUM_BITS
        self.offset = slot * reads.page_size + offset_in_frame
        self.bounced = dst.address % reads.align != 0

    async def finish(self, answer: int | None = None) -> None:
        """Fill ``dst`` and compare the checksum; ``answer`` is the request's result, if it was made."""
        if answer != self.dst.size:
            await self.fill(answer)
        if self.reads.verifies:
            await self.check_in_steps()

    async def fill(self, answer: int | None = None) -> None:
        """Fill ``dst`` wholly; ``answer`` is the first request's result, if it was made."""
        slots = self.reads.slots
        slots.pin(self.slot)
        try:
            if self.bounced:
                await self._fill_bounced()
            else:
                await self._fill(self.dst, answer)
        finally:
            slots.unpin(self.slot)

    async def _fill_bounced(self) -> None:
        file_io = self.reads.file_io
        lease = await file_io.bounces.acquire()
        with file_io.bounces.releasing([lease]):
            target = lease._frame(file_io.engine.pool).part(0, self.dst.size)
            await self._fill(target)
            await file_io.checksum_budget.acquire(tuning.JOB_COST_BYTES)
            await file_io.checksum_budget.copy(self.dst.view, target.view)

    async def _fill(self, target: IoBuffer, answer: int | None = None) -> None:
        file_io = self.reads.file_io
        context = ErrorContext("reading blob", file_io.path, self.offset, self.guid)
        try:
            got = await transfers.read_whole(file_io.engine, self.offset, target, context, answer)
        except BlobStoreIOError as error:
            error.guid = BlobGuid(self.guid)
            raise
        if got != target.size:
            why = f"the file ends after {got} of its bytes"
            raise self.reads.corrupt(self.guid, self.entry, why)

    def matches(self) -> bool:
        """Whether ``dst`` holds what was written."""
        return frame_checksum(self.dst.view) == self.entry & CHECKSUM_MASK

    async def check_in_steps(self) -> None:
        """Raise ``BlobCorrupt`` if ``dst`` does not hold what was written; within the checksum budget."""
        if await self.reads.file_io.checksum_budget.checksum(self.dst.view) != self.entry & CHECKSUM_MASK:
            raise self.mismatch()

    def mismatch(self) -> BlobCorrupt:
        """Return the error for a frame that is not the one written."""
        return self.reads.corrupt(self.guid, self.entry, "its checksum does not match")
