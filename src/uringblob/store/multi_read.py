"""Many reads as one call: requested together, each with an outcome of its own.

One job makes all requests and handles their results in turn; a job for each read took as much CPU for a
read of 4 KiB as a call of its own, this takes 0.65 to 0.8 of it.  With checksums it begins at the first
result, so that they overlap with the reads that follow; without, at the last: by then most of the others
are there, too, and a result that is there costs no await.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Sequence

from uringblob import tuning
from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.iobuf import IoBuffer
from uringblob.completion import Completion
from uringblob.errors import BlobStoreError
from uringblob.store.format import CHECKSUM_BITS, CHECKSUM_MASK
from uringblob.store.frame_reads import FrameRead, FrameReads
from uringblob.store.io.job import Job
from uringblob.store.io.pending_write import WaitOnError

#: A read that is a job of its own takes as long as so many others.
JOB_COST = 8
#: One read of a call: its guid and the frame to fill.
Read = tuple[bytes, IoBuffer]


class _Requests:
    """The requests of one call; until each completes its slot is pinned and its frame belongs to the kernel."""

    def __init__(self, shared: FrameReads, reads: Sequence[Read]) -> None:
        self._shared = shared
        self._reads = reads
        self.outcomes: list[BlobStoreError | None] = [None] * len(reads)
        #: Positions and packed entries of reads by one request each; ``answers`` has their completions.
        self.plain: list[tuple[int, int]] = []
        self.answers: list[Completion[int]] = []
        #: Positions of reads through a bounce frame; ``jobs`` has their jobs.
        self.bounced: list[int] = []
        self.jobs: list[Job[None]] = []
        self._unpinned = 0
        self._unexpected: Exception | None = None

    def start(self, position: int) -> int:
        """Request reads from ``position`` on; return the next position.

        They count at most ``tuning.READS_AT_ONCE``, a bounced one as :data:`JOB_COST`.
        """
        shared, plain = self._shared, self.plain
        places: list[tuple[int, IoBuffer]] = []
        room = tuning.READS_AT_ONCE
        while position < len(self._reads) and room > 0:
            guid, frame = self._reads[position]
            try:
                entry = shared.locate(guid)
            except BlobStoreError as error:
                self.outcomes[position] = error.with_traceback(None)
            else:
                if frame.address % shared.align:
                    read = FrameRead(shared, guid, entry, frame)
                    self.jobs.append(shared.file_io.start(read.finish()))
                    self.bounced.append(position)
                    room -= JOB_COST - 1
                else:
                    slot = entry >> CHECKSUM_BITS
                    shared.slots.pin(slot)
                    plain.append((position, entry))
                    places.append((slot * shared.page_size, frame))
            position += 1
            room -= 1
        if places:
            shared.engine.read_each(places, self.answers)
        return position

    def unpin(self, at_most: int = sys.maxsize) -> bool:
        """Unpin ``at_most`` slots; return whether there are more."""
        plain, slots = self.plain, self._shared.slots
        stop = min(len(plain), self._unpinned + at_most)
        while self._unpinned < stop:
            self._unpinned += 1
            slots.unpin(plain[self._unpinned - 1][1] >> CHECKSUM_BITS)
        return stop < len(plain)

    async def finish_all(self) -> None:
        """Note each read's ``BlobStoreError``; when all have ended, raise any other exception."""
        shared, budget = self._shared, self._shared.file_io.checksum_budget
        verifies, page_size = shared.verifies, shared.page_size
        pairs = list(zip(self.plain, self.answers, strict=True))
        for number, ((position, entry), answer) in enumerate(pairs if verifies else reversed(pairs), 1):
            got = answer.result() if answer.done() else await answer
            if got == page_size and not verifies:
                if number % tuning.READS_AT_ONCE == 0:
                    await budget.acquire(tuning.READS_AT_ONCE * tuning.NAME_COST_BYTES)
                continue
            guid, frame = self._reads[position]
            in_one_step = got == page_size <= tuning.STEP_BYTES and budget.try_acquire(page_size)
            if in_one_step and frame_checksum(frame.view) == entry & CHECKSUM_MASK:
                continue
            await self._note(position, FrameRead(shared, guid, entry, frame).finish(got))
        while self.unpin(tuning.READS_AT_ONCE):
            await budget.acquire(tuning.READS_AT_ONCE * tuning.CHANGE_COST_BYTES)
        for position, job in zip(self.bounced, self.jobs, strict=True):
            await self._note(position, job)
        if self._unexpected is not None:
            raise self._unexpected

    async def _note(self, position: int, read: Awaitable[None]) -> None:
        try:
            await read
        except BlobStoreError as error:
            self.outcomes[position] = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - raised when the other reads have ended
            self._unexpected = self._unexpected or error


async def read_batch(shared: FrameReads, reads: Sequence[Read]) -> list[BlobStoreError | None]:
    """Fill every frame with the blob that is visible now; return each position's error, or None.

    Runs as a job.  Returns or raises when no request is in flight any more; until then every slot is
    pinned.  More than ``tuning.READS_AT_ONCE`` are planned and requested in steps.
    """
    requests, position = _Requests(shared, reads), 0
    try:
        async with WaitOnError(requests.answers, requests.jobs):
            while position < len(reads):
                if position:
                    await shared.file_io.checksum_budget.acquire_after(
                        tuning.READS_AT_ONCE * tuning.CHANGE_COST_BYTES
                    )
                position = requests.start(position)
            await requests.finish_all()
    finally:
        requests.unpin()
    return requests.outcomes
