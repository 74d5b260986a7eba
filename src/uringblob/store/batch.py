"""A batch of frames on its way to fresh slots.

Any slot will do for any guid, so a batch is laid out in the order of its buffers' addresses:
frames leased one after the other become one contiguous stretch of memory and of file, which the
kernel takes as a single fixed-buffer write.

A frame's checksum is made while the frame is being written: the caller does not touch it before
the call returns, and only the log record needs it.  (Before, the device idled meanwhile: 20 to
30 µs a frame of 512 KiB, a third of the time that writing it takes.)

Memory that the engine cannot move (not 4096-aligned where I/O is direct) is copied through
bounce frames, at most :data:`BOUNCE_FRAMES` at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from uringblob import transfers
from uringblob.buffers import AlignedBlobBuf
from uringblob.checksums import frame_checksum
from uringblob.errors import NO_SPACE_ERRNOS, BlobStoreError, BlobStoreIOError
from uringblob.frames import Frame
from uringblob.guid import BlobGuid
from uringblob.store.format import Segment, pack_entry
from uringblob.store.job import Job, settle
from uringblob.store.landing import Landing
from uringblob.store.medium import Medium, Where
from uringblob.store.slots import SlotState
from uringblob.store.space import Space
from uringblob.transfers import SyncFailed

BOUNCE_FRAMES = 64

#: A batch below this is checksummed before it is written: waiting for a tick would cost more.
OVERLAP_BYTES_MIN = 64 * 1024

T = TypeVar("T")


def _address(item: tuple[bytes, Frame]) -> int:
    return item[1].address


class Piece:
    """Consecutive frames for one run of slots."""

    def __init__(
        self, run: Segment, guids: Sequence[bytes], frames: Sequence[Frame], *, bounces: bool
    ) -> None:
        self.run = run
        self.guids = guids
        self.frames = frames
        self.bounces = bounces  #: the engine cannot move these frames where they lie
        self.error: BaseException | None = None


class Batch:
    """Frames with their slots and checksums: ``entries`` is what a log would say of them."""

    def __init__(self, medium: Medium, space: Space, page_size: int) -> None:
        self._medium = medium
        self._space = space
        self._page_size = page_size
        self._align = medium.engine.memory_align
        self.pieces: list[Piece] = []
        self.entries: list[tuple[bytes, int]] = []
        self.size_bytes = 0  #: of all frames
        self.bounces = 0
        self._begun = False  # whether any write may have been asked for

    async def take_slots(self, writes: Mapping[bytes, Frame]) -> None:
        """Take slots for ``writes``; nothing is written yet.

        :raises BlobStoreIOError: there is no room; no slot was taken.
        """
        frames = list(writes.items())
        if len(frames) > 1:
            frames.sort(key=_address)
        ready = self._space.take_ready(len(frames))  # no coroutine for the common case
        done = 0
        for run in await self._space.take_frames(len(frames)) if ready is None else (ready,):
            part = frames[done : done + run.slots]
            guids, its_frames = [guid for guid, _ in part], [frame for _, frame in part]
            self.pieces.append(Piece(run, guids, its_frames, bounces=self._bounces(its_frames)))
            done += run.slots
        self.size_bytes = len(frames) * self._page_size

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
            await settle([landed])
            raise
        return await landed

    async def checksum_later(self) -> None:
        """Checksum when the requests are submitted, which is at this tick's end, and as the pace allows."""
        await self._medium.next_tick()
        pace = self._medium.pace
        for slot, guid, frame in self._places():
            if not pace.take(frame.size):
                await pace.turn(frame.size)
            self.entries.append((guid, pack_entry(slot, frame_checksum(frame.view))))

    def _places(self) -> Iterator[tuple[int, bytes, Frame]]:
        for piece in self.pieces:
            yield from zip(itertools.count(piece.run.slot), piece.guids, piece.frames)

    # --- writing -------------------------------------------------------------------------

    def land(self) -> Landing | Job[None]:
        """Begin to write every frame; awaited, the answer says that no request is in flight any more."""
        self._begun = True
        if len(self.pieces) > 1:
            return self._medium.start(self._land_pieces())
        (piece,) = self.pieces
        if piece.bounces or not transfers.one_request(len(piece.frames), self.size_bytes):
            return self._medium.start(self._land_piece(piece))
        answer = self._medium.engine.write(piece.run.slot * self._page_size, piece.frames)
        return Landing(self._medium, answer, self.size_bytes, lambda answer: self._land_piece(piece, answer))

    async def _land_pieces(self) -> None:
        jobs = []
        for piece in self.pieces:
            jobs.append(self._medium.start(self._land_piece(piece)))
            if piece.bounces:
                await settle(jobs)
        errors = await settle(jobs)
        if errors:
            raise errors[0]

    def land_synced(self) -> Job[bool]:
        """Begin to write every frame and make its bytes durable; yields true if one submission did both.

        A failed sync poisons the store.
        """
        self._begun = True
        return self._medium.start(self._land_synced())

    async def _land_synced(self) -> bool:
        linkable = len(self.pieces) == 1 and not self.pieces[0].bounces
        if not linkable:
            await self.land()
            await self._medium.sync("syncing a batch")
            return False
        piece = self.pieces[0]
        offset = piece.run.slot * self._page_size
        where = self._where(piece)
        writing = transfers.write_whole_then_sync(self._medium.engine, offset, piece.frames, where)
        try:
            return await self._medium.believe(writing, where)
        except SyncFailed:
            raise
        except BlobStoreIOError as error:
            raise self._blame(piece, error) from None

    async def _land_piece(self, piece: Piece, answer: int | None = None) -> None:
        engine, where = self._medium.engine, self._where(piece)
        offset = piece.run.slot * self._page_size
        try:
            if not piece.bounces:
                await transfers.write_whole(engine, offset, piece.frames, where, answer)
                return
            for frames, leases in self._bounced(piece):
                await transfers.write_whole(engine, offset, frames, where)
                offset += len(frames) * self._page_size
                leases.clear()
        except BlobStoreIOError as error:
            raise self._blame(piece, error) from None

    def _bounced(self, piece: Piece) -> Iterator[tuple[Sequence[Frame], list[AlignedBlobBuf]]]:
        pool = self._medium.engine.pool
        for start in range(0, len(piece.frames), BOUNCE_FRAMES):
            part = piece.frames[start : start + BOUNCE_FRAMES]
            leases = [pool.lease() for _ in part]
            frames = [lease._frame(pool) for lease in leases]
            for frame, source in zip(frames, part, strict=True):
                frame.view[:] = source.view
            self.bounces += len(part)
            yield frames, leases

    def _bounces(self, frames: Sequence[Frame]) -> bool:
        return self._align > 1 and any(frame.address % self._align for frame in frames)

    def _where(self, piece: Piece) -> Where:
        offset = piece.run.slot * self._page_size
        return Where("writing blob", self._medium.path, offset, piece.guids[0], len(piece.guids) - 1)

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
            self._space.give_back(piece.run, SlotState.BAD if bad else SlotState.FREE)
        self.pieces = []
