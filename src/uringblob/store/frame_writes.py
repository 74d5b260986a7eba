"""A batch of frames on its way to fresh slots.

Any slot will do for any guid, so a batch is laid out in the order of its buffers' addresses:
frames leased one after the other become one contiguous stretch of memory and of file, which the
kernel takes as a single fixed-buffer write.

A frame's checksum is made while the frame is being written: the caller does not touch it before
the call returns, and only the log record needs it.  (Before, the device idled meanwhile: 20 to
30 µs a frame of 512 KiB, a third of the time that writing it takes.)

Memory that the engine cannot move (not 4096-aligned where I/O is direct) is copied through
bounce frames (:mod:`uringblob.store.io.bounces`), at the store's pace.
"""

from __future__ import annotations

import collections
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.engines import transfers
from uringblob.engines.transfers import GATHER_PIECES_MAX, SyncFailed
from uringblob.errors import NO_SPACE_ERRNOS, BlobStoreError, BlobStoreIOError
from uringblob.guid import BlobGuid
from uringblob.store.allocator import SlotAllocator
from uringblob.store.format import SlotRun, pack_entry
from uringblob.store.index.shards import Mapped
from uringblob.store.index.slots import SlotState
from uringblob.store.io.checksum_budget import CHANGE, GUIDS_AT_ONCE, NAME, STEP_BYTES, ChecksumBudget
from uringblob.store.io.file_io import ErrorContext, FileIO
from uringblob.store.io.job import Job, wait_all
from uringblob.store.io.pending_write import PendingWrite

#: A batch below this is checksummed before it is written: waiting for a tick would cost more.
OVERLAP_BYTES_MIN = 64 * 1024

#: Frames that are sorted in one piece: half a millisecond.
SORTED_AT_ONCE = 1024

T = TypeVar("T")


def _address(item: tuple[bytes, IoBuffer]) -> int:
    return item[1].address


async def _sorted_in_turns(
    items: list[tuple[bytes, IoBuffer]], budget: ChecksumBudget
) -> list[tuple[bytes, IoBuffer]]:
    """Return ``items`` by address; a hundred thousand of them take 100 ms in one piece."""
    runs = []
    for start in range(0, len(items), SORTED_AT_ONCE):
        await budget.acquire(SORTED_AT_ONCE * NAME)
        runs.append(sorted(items[start : start + SORTED_AT_ONCE], key=_address))
    merged: list[tuple[bytes, IoBuffer]] = []
    for number, item in enumerate(heapq.merge(*runs, key=_address)):
        if number % GUIDS_AT_ONCE == 0 and not budget.try_acquire(GUIDS_AT_ONCE * CHANGE):
            await budget.acquire(GUIDS_AT_ONCE * CHANGE)
        merged.append(item)
    return merged


class Piece:
    """Consecutive frames for one run of slots."""

    def __init__(
        self, run: SlotRun, guids: Sequence[bytes], frames: Sequence[IoBuffer], *, bounces: bool
    ) -> None:
        self.run = run
        self.guids = guids
        self.frames = frames
        self.bounces = bounces  #: the engine cannot move these frames where they lie
        self.error: BaseException | None = None


class Batch:
    """Frames with their slots and checksums: ``entries`` is what a log would say of them."""

    def __init__(self, file_io: FileIO, space: SlotAllocator, page_size: int) -> None:
        self._file_io = file_io
        self._space = space
        self._page_size = page_size
        self._align = file_io.engine.memory_align
        self.pieces: list[Piece] = []
        self.entries: list[tuple[bytes, int]] = []
        self.size_bytes = 0  #: of all frames
        self.bounces = 0
        self._begun = False  # whether any write may have been asked for

    async def take_slots(self, writes: Mapped[IoBuffer]) -> None:
        """Take slots for ``writes``; nothing is written yet.

        :raises BlobStoreIOError: there is no room; no slot was taken.
        """
        frames = list(writes.items())
        if len(frames) > SORTED_AT_ONCE:
            frames = await _sorted_in_turns(frames, self._file_io.checksum_budget)
        elif len(frames) > 1:
            frames.sort(key=_address)
        ready = self._space.allocate_ready(len(frames))  # no coroutine for the common case
        self.size_bytes = len(frames) * self._page_size
        if ready is not None and len(frames) <= GATHER_PIECES_MAX:
            self._lay(ready, frames)
            return
        done = 0
        for run in await self._space.allocate_frames(len(frames)) if ready is None else (ready,):
            # More than one gather is more than one request anyway.
            for start in range(0, run.slots, GATHER_PIECES_MAX):
                piece = SlotRun(run.slot + start, min(run.slots - start, GATHER_PIECES_MAX))
                if done and not self._file_io.checksum_budget.try_acquire(piece.slots * CHANGE):
                    await self._file_io.checksum_budget.acquire(piece.slots * CHANGE)
                self._lay(piece, frames[done : done + piece.slots])
                done += piece.slots

    def _lay(self, run: SlotRun, part: Sequence[tuple[bytes, IoBuffer]]) -> None:
        guids, frames = [guid for guid, _ in part], [frame for _, frame in part]
        self.pieces.append(Piece(run, guids, frames, bounces=self._bounces(frames)))

    def checksum(self) -> None:
        """Checksum the frames and fill ``entries``."""
        for slot, guid, frame in self._places():
            self.entries.append((guid, pack_entry(slot, frame_checksum(frame.view))))

    async def checksum_while(self, landing: Callable[[], Awaitable[T]]) -> T:
        """Begin ``landing()``, which writes the frames, and checksum them meanwhile.

        Returns or raises when both have ended.
        """
        if self.size_bytes < OVERLAP_BYTES_MIN:
            self.checksum()
            return await landing()
        landed = landing()
        try:
            await self.checksum_later()
        except GeneratorExit:
            raise  # the store was dropped, not closed: nothing may be awaited any more
        except BaseException:
            await wait_all([landed])
            raise
        return await landed

    async def checksum_later(self) -> None:
        """Checksum when the requests are submitted, which is at this tick's end, and as the pace allows."""
        await self._file_io.next_tick()
        budget = self._file_io.checksum_budget
        for slot, guid, frame in self._places():
            if frame.size > STEP_BYTES:
                self.entries.append((guid, pack_entry(slot, await budget.checksum(frame.view))))
                continue
            if not budget.try_acquire(frame.size):
                await budget.acquire(frame.size)
            self.entries.append((guid, pack_entry(slot, frame_checksum(frame.view))))

    def _places(self) -> Iterator[tuple[int, bytes, IoBuffer]]:
        for piece in self.pieces:
            yield from zip(itertools.count(piece.run.slot), piece.guids, piece.frames)

    # --- writing -------------------------------------------------------------------------

    def land(self) -> PendingWrite | Job[None]:
        """Begin to write every frame; awaited, the answer says that no request is in flight any more."""
        self._begun = True
        if len(self.pieces) > 1:
            return self._file_io.start(self._land_pieces())
        return self._begin(self.pieces[0])

    def _begin(self, piece: Piece) -> PendingWrite | Job[None]:
        """Begin to write one piece: by one request where that will do, which costs no job of its own."""
        size_bytes = len(piece.frames) * self._page_size
        if piece.bounces or not transfers.one_request(len(piece.frames), size_bytes):
            return self._file_io.start(self._land_piece(piece))
        answer = self._file_io.engine.write(piece.run.slot * self._page_size, piece.frames)
        return PendingWrite(self._file_io, answer, size_bytes, lambda answer: self._land_piece(piece, answer))

    async def _land_pieces(self) -> None:
        under_way: list[PendingWrite | Job[None]] = []
        try:
            for number, piece in enumerate(self.pieces, 1):
                if number % GUIDS_AT_ONCE == 0 and not self._file_io.checksum_budget.try_acquire(
                    GUIDS_AT_ONCE * CHANGE
                ):
                    await self._file_io.checksum_budget.acquire(GUIDS_AT_ONCE * CHANGE)
                under_way.append(self._begin(piece))
                if piece.bounces:
                    await wait_all(under_way)
        except GeneratorExit:
            raise  # the store was dropped, not closed: nothing may be awaited any more
        except BaseException:
            await wait_all(under_way)
            raise
        errors = await wait_all(under_way)
        if errors:
            raise errors[0]

    def land_synced(self) -> Job[bool]:
        """Begin to write every frame and make its bytes durable; yields true if one submission did both.

        A failed sync poisons the store.
        """
        self._begun = True
        return self._file_io.start(self._land_synced())

    async def _land_synced(self) -> bool:
        linkable = len(self.pieces) == 1 and not self.pieces[0].bounces
        if not linkable:
            await self.land()
            await self._file_io.sync("syncing a batch")
            return False
        piece = self.pieces[0]
        offset = piece.run.slot * self._page_size
        where = self._where(piece)
        engine, frames = self._file_io.engine, piece.frames
        try:
            return await self._file_io.run_sync(
                lambda: transfers.write_whole_then_sync(engine, offset, frames, where), where
            )
        except SyncFailed:
            raise
        except BlobStoreIOError as error:
            raise self._blame(piece, error) from None

    async def _land_piece(self, piece: Piece, answer: int | None = None) -> None:
        engine, where = self._file_io.engine, self._where(piece)
        offset = piece.run.slot * self._page_size
        try:
            if not piece.bounces:
                await transfers.write_whole(engine, offset, piece.frames, where, answer)
                return
            await self._land_bounced(piece, offset, where)
        except BlobStoreIOError as error:
            raise self._blame(piece, error) from None

    async def _land_bounced(self, piece: Piece, offset: int, where: ErrorContext) -> None:
        """Write ``piece`` through bounce frames: some are filled while others are written."""
        file_io, bounces, done = self._file_io, self._file_io.bounces, 0
        writing: collections.deque[Job[None]] = collections.deque()
        try:
            while done < len(piece.frames):
                leases = [await bounces.acquire()]
                try:
                    while len(leases) < min(bounces.limit // 2, len(piece.frames) - done):
                        if not bounces.available:
                            break
                        leases.append(await bounces.acquire())
                    part = piece.frames[done : done + len(leases)]
                    frames = [lease._frame(file_io.engine.pool) for lease in leases]
                    for frame, source in zip(frames, part, strict=True):
                        await file_io.checksum_budget.copy(frame.view, source.view)
                    writing.append(file_io.start(self._write_bounced(offset, frames, leases, where)))
                except GeneratorExit:
                    raise
                except BaseException:
                    for lease in leases:
                        bounces.release(lease)
                    raise
                self.bounces += len(part)
                done += len(part)
                offset += len(part) * self._page_size
                if len(writing) > 1:
                    await writing.popleft()
            while writing:
                await writing.popleft()
        except GeneratorExit:
            raise  # the store was dropped, not closed: nothing may be awaited any more
        except BaseException:
            await wait_all(writing)
            raise

    async def _write_bounced(
        self, offset: int, frames: Sequence[IoBuffer], leases: Sequence[AlignedBlobBuf], where: ErrorContext
    ) -> None:
        try:
            await transfers.write_whole(self._file_io.engine, offset, frames, where)
        except GeneratorExit:
            raise
        except BaseException:
            self._give_bounced(leases)
            raise
        self._give_bounced(leases)

    def _give_bounced(self, leases: Sequence[AlignedBlobBuf]) -> None:
        for lease in leases:
            self._file_io.bounces.release(lease)

    def _bounces(self, frames: Sequence[IoBuffer]) -> bool:
        return self._align > 1 and any(frame.address % self._align for frame in frames)

    def _where(self, piece: Piece) -> ErrorContext:
        offset = piece.run.slot * self._page_size
        return ErrorContext("writing blob", self._file_io.path, offset, piece.guids[0], len(piece.guids) - 1)

    def _blame(self, piece: Piece, error: BlobStoreIOError) -> BlobStoreIOError:
        piece.error = error
        if len(piece.guids) == 1:
            error.guid = BlobGuid(piece.guids[0])
        return error

    # --- giving up -----------------------------------------------------------------------

    def give_back(self, why: BaseException) -> None:
        """No record names these slots and no request is in flight: let others have them.

        Slots whose write failed for another reason than room are not used again before a reopen.  Nor is
        any, once writing has begun, where ``why`` is no I/O's: without memory nobody knows what was asked.
        """
        unsure = self._begun and not isinstance(why, BlobStoreError)
        for piece in self.pieces:
            error = piece.error
            bad = unsure or (isinstance(error, BlobStoreIOError) and error.errno not in NO_SPACE_ERRNOS)
            self._space.free(piece.run, SlotState.BAD if bad else SlotState.FREE)
        self.pieces = []
