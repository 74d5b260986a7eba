"""Reading one frame: a plan, the engine's request, and what its answer means.

Every read is a :class:`FrameRead`.  Its constructor is the plan, without an await: the blob's slot, the
place in the file, and whether the engine can fill this memory.  Who makes the request differs: the
caller's task (:meth:`FrameReads.read`), a batch (:mod:`uringblob.store.multi_read`) or the caller's
thread (:mod:`uringblob.store.caller_reads`).  :meth:`FrameRead.finish` takes the answer: it reads what is
missing, and compares the checksum.
"""

from __future__ import annotations

from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.iobuf import IoBuffer
from uringblob.engines import transfers
from uringblob.errors import BlobCorrupt, BlobNotFound, BlobStoreIOError
from uringblob.guid import BlobGuid
from uringblob.store.format import CHECKSUM_BITS, entry_checksum
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.io.checksum_budget import JOB, STEP_BYTES
from uringblob.store.io.file_io import ErrorContext, FileIO


class FrameReads:
    """What all reads of one store share.  ``verifies``: each frame's checksum is compared."""

    def __init__(self, file_io: FileIO, index: BlobIndex, page_size: int, *, verifies: bool) -> None:
        self.file_io = file_io
        self.engine = file_io.engine
        self.index = index
        self.slots = index.slots
        self.page_size = page_size
        self.verifies = verifies

    async def read(self, guid: bytes, dst: IoBuffer) -> None:
        """Fill ``dst`` with the frame that is visible now, in the caller's task.

        The hot path: it does what :meth:`FrameRead.finish` does, but the common case needs no further
        coroutine, each of which would be stepped through twice a read.
        """
        read = FrameRead(self, guid, dst)
        if read.bounced:
            await read.finish()
            return
        slots, slot = self.slots, read.slot
        slots.pin(slot)
        try:
            got = await self.engine.read(read.offset, (dst,))
            if got != dst.size:
                await read.fill(got)
        finally:
            slots.unpin(slot)
        if self.verifies:
            if dst.size <= STEP_BYTES:
                read.check()
            else:
                await read.check_in_steps()

    def entry(self, guid: bytes) -> int:
        """Return the packed entry that is visible now; in any thread.

        :raises BlobNotFound: there is none.
        """
        entry = self.index.find(guid)
        if entry is None:
            raise BlobNotFound(
                guid,
                f"no blob {BlobGuid(guid)} in {self.file_io.path}: it was never written, or was deleted; "
                "list_blobs() names those there",
            )
        return entry


class FrameRead:
    """One planned read of ``dst.size`` bytes from ``offset`` in the file, into ``dst``.

    ``entry`` is the blob's, ``slot`` where it lies; ``bounced`` says that the engine cannot fill ``dst``.
    The request itself needs the slot pinned, or registered with ``CallerReads``.
    """

    __slots__ = ("_reads", "bounced", "dst", "entry", "guid", "offset", "slot")

    def __init__(self, reads: FrameReads, guid: bytes, dst: IoBuffer, offset_in_frame: int = 0) -> None:
        """Plan it; in any thread.

        :raises BlobNotFound: there is no such blob.
        :raises BlobCorrupt: the file was too short for it already when the store was opened.
        """
        self._reads = reads
        self.guid = guid
        self.dst = dst
        self.entry = entry = reads.entry(guid)
        self.slot = slot = entry >> CHECKSUM_BITS
        self.offset = slot * reads.page_size + offset_in_frame
        self.bounced = dst.address % reads.engine.memory_align != 0
        if reads.slots.beyond_end(slot):
            raise self._corrupt("the file ended before it when the store was opened")

    async def finish(self, answer: int | None = None) -> None:
        """Fill ``dst`` and compare the checksum; ``answer`` is the engine's, if the request was made."""
        if answer != self.dst.size:
            await self.fill(answer)
        if self._reads.verifies:
            await self.check_in_steps()

    async def fill(self, answer: int | None = None) -> None:
        """Fill ``dst`` wholly; ``answer`` is the engine's to the first request, if it was made."""
        slots = self._reads.slots
        slots.pin(self.slot)
        try:
            if self.bounced:
                await self._fill_bounced()
            else:
                await self._fill(self.dst, answer)
        finally:
            slots.unpin(self.slot)

    async def _fill_bounced(self) -> None:
        file_io = self._reads.file_io
        lease = await file_io.bounces.acquire()
        with file_io.bounces.releasing([lease]):
            target = lease._frame(file_io.engine.pool).part(0, self.dst.size)
            await self._fill(target)
            await file_io.checksum_budget.acquire(JOB)
            await file_io.checksum_budget.copy(self.dst.view, target.view)

    async def _fill(self, target: IoBuffer, answer: int | None = None) -> None:
        file_io = self._reads.file_io
        context = ErrorContext("reading blob", file_io.path, self.offset, self.guid)
        try:
            got = await transfers.read_whole(file_io.engine, self.offset, [target], context, answer)
        except BlobStoreIOError as error:
            error.guid = BlobGuid(self.guid)
            raise
        if got != target.size:
            raise self._corrupt(f"the file ends after {got} of its bytes")

    def matches(self) -> bool:
        """Whether ``dst`` holds what was written."""
        return frame_checksum(self.dst.view) == entry_checksum(self.entry)

    def check(self) -> None:
        """Raise ``BlobCorrupt`` if ``dst`` does not hold what was written."""
        if not self.matches():
            raise self._corrupt("its checksum does not match")

    async def check_in_steps(self) -> None:
        """Do what :meth:`check` does, within the checksum budget."""
        if await self._reads.file_io.checksum_budget.checksum(self.dst.view) != entry_checksum(self.entry):
            raise self._corrupt("its checksum does not match")

    def _corrupt(self, why: str) -> BlobCorrupt:
        offset = self.slot * self._reads.page_size
        return BlobCorrupt(
            f"{self._reads.file_io.path}: blob {BlobGuid(self.guid)} (offset {offset}): {why}. "
            "Write it again or restore it from a copy; all other blobs stay readable",
            self.guid,
            offset,
        )
