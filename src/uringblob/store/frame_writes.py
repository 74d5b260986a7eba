"""A batch of frames and its writes to fresh slots.

Any slot will do for any guid, so a batch is laid out in the order of its buffers' addresses: frames leased
one after the other become one contiguous range of memory and of file, which one fixed-buffer write moves.

A frame is checksummed while it is written: the caller leaves it alone until the call returns, and only the
log record needs the checksum.  (With the checksum first, the device was idle for 20 to 30 µs a frame of
512 KiB, a third of the time that writing it takes.)

Memory that the engine cannot move (not 4096-aligned where I/O is direct) is copied through bounce frames
(:mod:`uringblob.store.io.bounces`).
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from uringblob import tuning
from uringblob.buffers.checksum import frame_checksum, frame_checksums
from uringblob.buffers.iobuf import GATHER_PIECES_MAX, IoBuffer
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.engines import transfers
from uringblob.engines.transfers import SyncFailed
from uringblob.errors import NO_SPACE_ERRNOS, BlobStoreError, BlobStoreIOError
from uringblob.guid import BlobGuid
from uringblob.store.allocator import SlotAllocator
from uringblob.store.format import CHECKSUM_BITS, SlotRun, meta_cells, pack_entry, with_meta
from uringblob.store.index.shards import Mapped
from uringblob.store.index.slot_states import SlotState
from uringblob.store.io.checksum_budget import GUIDS_AT_ONCE, ChecksumBudget
from uringblob.store.io.file_io import ErrorContext, FileIO
from uringblob.store.io.job import Job, wait_all
from uringblob.store.io.pending_write import PendingWrite, WaitOnError

W = TypeVar("W", bound=Awaitable[object])


def _address(item: tuple[bytes, IoBuffer]) -> int:
    return item[1].address


async def _sorted_in_steps(
    items: list[tuple[bytes, IoBuffer]], budget: ChecksumBudget
) -> list[tuple[bytes, IoBuffer]]:
    """Return ``items`` by address; a hundred thousand of them take 100 ms in one step."""
    runs = []
    for start in range(0, len(items), tuning.GUIDS_SORTED_AT_ONCE):
        await budget.acquire(tuning.GUIDS_SORTED_AT_ONCE * tuning.NAME_COST_BYTES)
        runs.append(sorted(items[start : start + tuning.GUIDS_SORTED_AT_ONCE], key=_address))
    merged: list[tuple[bytes, IoBuffer]] = []
    for number, item in enumerate(heapq.merge(*runs, key=_address)):
        if number % GUIDS_AT_ONCE == 0:
            await budget.acquire(GUIDS_AT_ONCE * tuning.CHANGE_COST_BYTES)
        merged.append(item)
    return merged


@dataclasses.dataclass(slots=True)
class Piece:
    """Consecutive frames for one run of slots.

    ``bounced``: the engine cannot move these frames from where they lie.
    """

    run: SlotRun
    guids: Sequence[bytes]
    frames: Sequence[IoBuffer]
    bounced: bool
    error: BaseException | None = None


class Batch:
    """Frames with their slots and checksums; ``entries`` is what a log record would name.

    ``metas`` is the metadata of those blobs that have some.
    """

    __slots__ = (
        "_allocator",
        "_file_io",
        "_metas",
        "_page_size",
        "_started",
        "entries",
        "meta_cells",
        "pieces",
        "size_bytes",
    )

    def __init__(
        self, file_io: FileIO, allocator: SlotAllocator, page_size: int, metas: Mapped[bytes] | None = None
    ) -> None:
        self._file_io = file_io
        self._allocator = allocator
        self._page_size = page_size
        self.pieces: list[Piece] = []
        self.entries: list[tuple[bytes, int]] = []
        self.size_bytes = 0  #: of all frames
        self._metas = metas
        self.meta_cells = 0  #: of the log, for all metadata
        self._started = False  # whether any write may have been requested

    async def allocate(self, writes: Mapped[IoBuffer]) -> None:
        """Allocate slots for ``writes``; nothing is written yet.

        :raises BlobStoreIOError: there is no room; no slot was allocated.
        """
        frames = list(writes.items())
        if len(frames) > tuning.GUIDS_SORTED_AT_ONCE:
            frames = await _sorted_in_steps(frames, self._file_io.checksum_budget)
        elif len(frames) > 1:
            frames.sort(key=_address)
        self.size_bytes = len(frames) * self._page_size
        cells = 0 if self._metas is None else await self._count_meta_cells(self._metas)
        ready = self._allocator.allocate_ready(len(frames), cells)  # no coroutine for the common case
        done = 0
        runs = (ready,) if ready is not None else await self._allocator.allocate_frames(len(frames), cells)
        for run in runs:
            # A piece is at most what one gather may hold.
            for start in range(0, run.slots, GATHER_PIECES_MAX):
                piece = SlotRun(run.slot + start, min(run.slots - start, GATHER_PIECES_MAX))
                if done:
                    await self._file_io.checksum_budget.acquire(piece.slots * tuning.CHANGE_COST_BYTES)
                self._lay_out(piece, frames[done : done + piece.slots])
                done += piece.slots

    def allocate_ready(self, frames: Mapped[IoBuffer]) -> bool:
        """Allocate one run of slots for a few frames, if one is there; the engine moves them as they lie."""
        guids: Sequence[bytes] = tuple(frames)
        places: Sequence[IoBuffer] = tuple(frames.values())
        if len(guids) > 1:
            guids, places = zip(*sorted(frames.items(), key=_address), strict=True)
        align = self._file_io.engine.memory_align
        for frame in places:
            if frame.address % align:
                return False
        cells = 0 if self._metas is None else sum(map(meta_cells, self._metas.values()))
        run = self._allocator.allocate_ready(len(guids), cells)
        if run is None:
            return False
        self.meta_cells = cells
        self.size_bytes = len(guids) * self._page_size
        piece = Piece(run, guids, places, False)
        if self._metas is None:
            self.pieces.append(piece)
        else:
            self._add_piece(piece)
        return True

    async def _count_meta_cells(self, metas: Mapped[bytes]) -> int:
        for number, meta in enumerate(metas.values(), 1):
            self.meta_cells += meta_cells(meta)
            if number % GUIDS_AT_ONCE == 0:
                await self._file_io.checksum_budget.acquire(GUIDS_AT_ONCE * tuning.NAME_COST_BYTES)
        return self.meta_cells

    def _add_piece(self, piece: Piece) -> None:
        self.pieces.append(piece)
        if self._metas is not None:
            for slot, guid in enumerate(piece.guids, piece.run.slot):
                if meta := self._metas.get(guid):
                    self._allocator.note_meta(slot, meta_cells(meta))

    def _add_meta(self, first: int) -> None:
        """Add the metadata to ``entries`` from the ``first`` on."""
        if self._metas is not None:
            for number in range(first, len(self.entries)):
                guid, entry = self.entries[number]
                self.entries[number] = guid, with_meta(entry, self._metas.get(guid) or b"")

    def checksum(self) -> None:
        """Checksum the frames into ``entries``, in one step."""
        [piece] = self.pieces
        slot = piece.run.slot
        for guid, frame in zip(piece.guids, piece.frames, strict=True):
            self.entries.append((guid, slot << CHECKSUM_BITS | frame_checksum(frame.view)))
            slot += 1
        if self._metas is not None:
            self._add_meta(0)

    def _lay_out(self, run: SlotRun, part: Sequence[tuple[bytes, IoBuffer]]) -> None:
        guids, frames = [guid for guid, _ in part], [frame for _, frame in part]
        align = self._file_io.engine.memory_align
        bounced = align > 1 and any(frame.address % align for frame in frames)
        self._add_piece(Piece(run, guids, frames, bounced))

    def _places(self) -> Iterator[tuple[int, bytes, IoBuffer]]:
        for piece in self.pieces:
            yield from zip(itertools.count(piece.run.slot), piece.guids, piece.frames)

    # --- checksums -----------------------------------------------------------------------

    async def checksum_and_start(self, start: Callable[[], W], *, overlap: bool) -> W:
        """Checksum the frames into ``entries``, and return ``start()``, which starts their write.

        With ``overlap`` the write starts first.  If this raises, no request is in flight.
        """
        if not overlap:
            for slot, guid, frame in self._places():
                self.entries.append((guid, pack_entry(slot, frame_checksum(frame.view))))
            self._add_meta(0)
            return start()
        write = start()
        async with WaitOnError((write,)):
            await self._checksum_in_steps()
        return write

    async def _checksum_in_steps(self) -> None:
        await self._file_io.next_tick()  # the requests are submitted at the end of this tick
        budget, page_size = self._file_io.checksum_budget, self._page_size
        if page_size > tuning.STEP_BYTES:
            for slot, guid, frame in self._places():
                self.entries.append((guid, pack_entry(slot, await budget.checksum(frame.view))))
                self._add_meta(len(self.entries) - 1)
            return
        places = self._places()
        at_once = min(tuning.CHECKSUMMED_BYTES_AT_ONCE, tuning.BYTES_PER_ITERATION // 2) // page_size
        while some := list(itertools.islice(places, max(1, at_once))):
            if not budget.try_acquire(len(some) * page_size):
                await budget.acquire(len(some) * page_size)
            checksums, done = frame_checksums([frame for _, _, frame in some]), len(self.entries)
            for (slot, guid, _), checksum in zip(some, checksums, strict=True):
                self.entries.append((guid, slot << CHECKSUM_BITS | checksum))
            self._add_meta(done)

    # --- writing -------------------------------------------------------------------------

    def start_write(self) -> PendingWrite | Job[None]:
        """Start to write every frame; the result, awaited, ends when no request is in flight."""
        self._started = True
        if len(self.pieces) > 1:
            return self._file_io.start(self._write_pieces())
        return self._start_piece(self.pieces[0])

    def _start_piece(self, piece: Piece) -> PendingWrite | Job[None]:
        """Start to write one piece: by one request where possible, which costs no job."""
        size_bytes = len(piece.frames) * self._page_size
        if piece.bounced or not transfers.one_request(len(piece.frames), size_bytes):
            return self._file_io.start(self._write_piece(piece))
        return self.start_one(piece, size_bytes)

    def start_one(self, piece: Piece, size_bytes: int) -> PendingWrite:
        """Start to write ``piece`` by one request."""
        self._started = True
        offset = piece.run.slot * self._page_size
        return PendingWrite(self._file_io, offset, piece.frames, size_bytes, self._write_piece, piece)

    async def _write_pieces(self) -> None:
        pending: list[PendingWrite | Job[None]] = []
        async with WaitOnError(pending):
            for number, piece in enumerate(self.pieces, 1):
                if number % GUIDS_AT_ONCE == 0:
                    await self._file_io.checksum_budget.acquire(GUIDS_AT_ONCE * tuning.CHANGE_COST_BYTES)
                pending.append(self._start_piece(piece))
                if piece.bounced:
                    await wait_all(pending)
        errors = await wait_all(pending)
        if errors:
            raise errors[0]

    def start_synced_write(self) -> Job[bool]:
        """Start to write every frame and make its bytes durable; yields true if one submission did both.

        A failed sync poisons the store.
        """
        self._started = True
        return self._file_io.start(self._write_synced())

    async def _write_synced(self) -> bool:
        if len(self.pieces) > 1 or self.pieces[0].bounced:
            await self.start_write()
            await self._file_io.sync("syncing a batch")
            return False
        piece = self.pieces[0]
        engine, offset, context = self._file_io.engine, piece.run.slot * self._page_size, self._context(piece)
        try:
            return await self._file_io.run_sync(
                lambda: transfers.write_whole_then_sync(engine, offset, piece.frames, context), context
            )
        except SyncFailed:
            raise
        except BlobStoreIOError as error:
            raise self._at_fault(piece, error) from None

    async def _write_piece(self, piece: Piece, answer: int | None = None) -> None:
        offset, context = piece.run.slot * self._page_size, self._context(piece)
        try:
            if piece.bounced:
                await self._write_bounced(piece, offset, context)
            else:
                await transfers.write_whole(self._file_io.engine, offset, piece.frames, context, answer)
        except BlobStoreIOError as error:
            raise self._at_fault(piece, error) from None

    async def _write_bounced(self, piece: Piece, offset: int, context: ErrorContext) -> None:
        """Write ``piece`` through bounce frames: some are filled while others are written."""
        file_io, bounces, done = self._file_io, self._file_io.bounces, 0
        writing: collections.deque[Job[None]] = collections.deque()
        async with WaitOnError(writing):
            while done < len(piece.frames):
                leases = [await bounces.acquire()]
                try:
                    at_most = min(bounces.limit // 2, len(piece.frames) - done)
                    while len(leases) < at_most and bounces.available:
                        leases.append(await bounces.acquire())
                    sources = piece.frames[done : done + len(leases)]
                    at = offset + done * self._page_size
                    write = file_io.start(self._copy_and_write(at, sources, leases, context))
                except GeneratorExit:
                    raise  # the store was dropped: nothing may be resumed
                except BaseException:
                    bounces.release(leases)
                    raise
                writing.append(write)
                done += len(leases)
                if len(writing) > 1:
                    await writing.popleft()
            while writing:
                await writing.popleft()

    async def _copy_and_write(
        self, offset: int, sources: Sequence[IoBuffer], leases: list[AlignedBlobBuf], context: ErrorContext
    ) -> None:
        engine, budget = self._file_io.engine, self._file_io.checksum_budget
        frames = [lease._frame(engine.pool) for lease in leases]
        with self._file_io.bounces.releasing(leases):
            for frame, source in zip(frames, sources, strict=True):
                await budget.copy(frame.view, source.view)
            await transfers.write_whole(engine, offset, frames, context)

    def _context(self, piece: Piece) -> ErrorContext:
        offset = piece.run.slot * self._page_size
        return ErrorContext("writing blob", self._file_io.path, offset, piece.guids[0], len(piece.guids) - 1)

    def _at_fault(self, piece: Piece, error: BlobStoreIOError) -> BlobStoreIOError:
        piece.error = error
        if len(piece.guids) == 1:
            error.guid = BlobGuid(piece.guids[0])
        return error

    # --- after a failure -----------------------------------------------------------------

    def free(self, why: BaseException) -> None:
        """Free the slots: no record names them, and no request is in flight.

        Slots whose write failed for another reason than room are not reused before a reopen.  Nor is any,
        once writing has started, if ``why`` is no I/O error: after a MemoryError it is unknown what was
        requested.
        """
        unsure = self._started and not isinstance(why, BlobStoreError)
        for piece in self.pieces:
            error = piece.error
            bad = unsure or (isinstance(error, BlobStoreIOError) and error.errno not in NO_SPACE_ERRNOS)
            self._allocator.free(piece.run, SlotState.BAD if bad else SlotState.FREE)
        self.pieces = []
