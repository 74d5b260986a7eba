"""Many reads as one call: requested together, each with an outcome of its own.

Each read has a sink and no coroutine; the call waits once, for all of them, and then goes over those that
were not whole, or not what was written.  Runs in the caller's task, as a single read does: a cancelled one
is resumed when no request is in flight any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Sequence

from uringblob import tuning
from uringblob.buffers.iobuf import IoBuffer
from uringblob.errors import BlobStoreError
from uringblob.store.format import CHECKSUM_BITS, CHECKSUM_MASK
from uringblob.store.frame_reads import FrameRead, FrameReads
from uringblob.store.io.job import Job
from uringblob.wait import Wait

#: A read that is a job of its own, or a large one into memory that the kernel must pin first, takes as long as so
#: many others.
SLOW_COST = 16
#: One read of a call: its guid and the frame to fill.
Read = tuple[bytes, IoBuffer]


class _OneRead:
    """The sink of one read of a batch."""

    __slots__ = ("_batch", "_position", "keep", "unchecked")

    light = False

    def __init__(self, batch: ReadBatch, position: int) -> None:
        self._batch = batch
        self._position = position
        self.keep: object = None
        self.unchecked = False  #: the engine does not compare the frame's checksum

    def complete(self, result: int, mismatch: int = 0) -> None:
        """See :class:`~uringblob.completion.Sink`."""
        self.keep = None
        batch, position = self._batch, self._position
        if position in batch.in_flight:
            if result != batch.whole_size or mismatch or self.unchecked:
                batch.unfinished[position] = result
            batch.in_flight.discard(position)
        if not batch.in_flight and batch.all_requested:
            batch.complete(0)

    def reject(self, _error: BaseException, /) -> None:
        """Have it read again, alone: a lasting fault of ours is raised there."""
        self.complete(0)


class ReadBatch(Wait):
    """The reads of one call; until each completes its slot is pinned and its frame belongs to the kernel."""

    __slots__ = ()

    def __init__(self, shared: FrameReads, reads: Sequence[Read]) -> None:
        super().__init__(loop=shared.loop)
        self._shared = shared
        self._reads = reads
        self._entries: dict[int, int] = {}  # packed entries of what was requested, by position
        self._slots: list[int] = []  # those pinned
        self._bounced: list[tuple[int, Job[None]]] = []
        self._unpinned = 0
        #: What the result of a read is of which nothing is left to do; frames to be checked in steps have none.
        self.whole_size = shared.page_size if shared.checks_at_once else -1
        self.all_requested = False
        self.in_flight: set[int] = set()
        self.unfinished: dict[int, int] = {}  #: results by position
        self.outcomes: list[BlobStoreError | None] = [None] * len(reads)

    def request(self, position: int) -> int:
        """Request reads from ``position`` on; return the next position.

        They count at most ``tuning.READS_AT_ONCE``, a slow one as :data:`SLOW_COST`.
        """
        shared, reads, locate = self._shared, self._reads, self._shared.locate
        checks, align, page_size = shared.checks_whole, shared.align, shared.page_size
        room = tuning.READS_AT_ONCE
        while position < len(reads) and room > 0:
            guid, frame = reads[position]
            try:
                entry = locate(guid)
            except BlobStoreError as error:
                self.outcomes[position] = error.with_traceback(None)
            else:
                if frame.address % align:
                    read = FrameRead(shared, guid, entry, frame)
                    self._bounced.append((position, shared.file_io.start(read.finish())))
                    room -= SLOW_COST - 1
                else:
                    if frame.buf_index < 0 and page_size >= tuning.URING_LARGE_BYTES:
                        room -= SLOW_COST - 1
                    slot = entry >> CHECKSUM_BITS
                    sink = _OneRead(self, position)
                    want = entry & CHECKSUM_MASK if checks else None
                    try:
                        self.in_flight.add(position)
                        shared.slots.pin(slot)
                        self._slots.append(slot)
                        self._entries[position] = entry
                        if not shared.engine.start_read(slot * page_size, frame, want, sink):
                            sink.unchecked = checks
                            shared.engine.read(slot * page_size, (frame,)).forward(sink)
                    except BaseException:
                        # Not requested: its end would be awaited for ever.  (Or a signal handler raised when it
                        # was: then the call waits for all that is in flight, see let_go.)
                        self.in_flight.discard(position)
                        raise
            position += 1
            room -= 1
        return position

    def end_requests(self) -> None:
        """Note that every read was requested."""
        self.all_requested = True
        if not self.in_flight:
            self.complete(0)

    def unpin(self, at_most: int = sys.maxsize) -> bool:
        """Unpin ``at_most`` slots; return whether there are more."""
        pinned, slots = self._slots, self._shared.slots
        stop = min(len(pinned), self._unpinned + at_most)
        while self._unpinned < stop:
            self._unpinned += 1
            slots.unpin(pinned[self._unpinned - 1])
        return stop < len(pinned)

    def end(self) -> None:
        """Let go of the slots, and of the frames: a thread may still have a sink for a moment."""
        self.unpin()
        self._reads = ()

    async def finish_all(self) -> None:
        """Finish what was not whole, and note each read's ``BlobStoreError``; raise any other at the end."""
        unexpected: Exception | None = None
        shared, budget = self._shared, self._shared.file_io.checksum_budget
        for position, result in self.unfinished.items():
            guid, frame = self._reads[position]
            read = FrameRead(shared, guid, self._entries[position], frame)
            unexpected = await self._note(position, read.finish(result)) or unexpected
        for position, job in self._bounced:
            unexpected = await self._note(position, job) or unexpected
        while self.unpin(tuning.READS_AT_ONCE):
            await budget.acquire(tuning.READS_AT_ONCE * tuning.CHANGE_COST_BYTES)
        if unexpected is not None:
            raise unexpected

    async def _note(self, position: int, read: Awaitable[None]) -> Exception | None:
        try:
            await read
        except BlobStoreError as error:
            self.outcomes[position] = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - raised when the other reads have ended
            return error
        return None

    async def wait_all(self) -> None:
        """Wait until no request is in flight, bounced ones included; the caller raises an error already."""
        self.all_requested = True
        waits: list[Awaitable[None]] = [self] if self.in_flight else []
        for wait in (*waits, *(job for _, job in self._bounced)):
            # A second cancellation would come with the first one's traceback, and so with the frames.
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await wait


async def read_batch(shared: FrameReads, reads: Sequence[Read]) -> list[BlobStoreError | None]:
    """Fill every frame with the blob that is visible now; return each position's error, or None.

    Returns or raises when no request is in flight any more; until then every slot is pinned.  More than
    ``tuning.READS_AT_ONCE`` are planned and requested in steps.
    """
    batch, position = ReadBatch(shared, reads), 0
    try:
        while position < len(reads):
            if position:
                await shared.file_io.checksum_budget.acquire_after(
                    tuning.READS_AT_ONCE * tuning.CHANGE_COST_BYTES
                )
            position = batch.request(position)
        batch.end_requests()
        await batch
        await batch.finish_all()
    except GeneratorExit:
        raise  # dropped: nothing may be awaited
    except BaseException:
        reads = ()
        await batch.wait_all()
        raise
    finally:
        batch.end()
    return batch.outcomes
