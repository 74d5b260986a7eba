"""Many reads as one call: asked for together, each answered for itself.

One job asks for all of them and goes through the answers in turn.  (With a job for each, as it was,
a read of 4 KiB took as much CPU in a batch as by itself; now 0.65 to 0.8 of it.)  An answer that is
there already costs no trip anywhere, so where frames are checked it begins with the first (the
checksums hide behind the reads that follow), and where they are not with the last: whoever is woken
when the last has come mostly finds the others done.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from uringblob.buffers.iobuf import IoBuffer
from uringblob.completion import Completion
from uringblob.errors import BlobStoreError
from uringblob.store.core import Core
from uringblob.store.format import CHECKSUM_BITS
from uringblob.store.io.checksum_budget import CHANGE, NAME, STEP_BYTES
from uringblob.store.io.job import Job, wait_all

#: Reads that are asked for in one step: a millisecond.
READS_AT_ONCE = 256
#: A read that is a job of its own takes as long as so many others.
JOB_COST = 8
#: One read that a caller asks for: its guid and the frame to fill.
Read = tuple[bytes, IoBuffer]


class _Asked:
    """What was asked for: the slots are held, and the frames are the kernel's, until each has its answer."""

    def __init__(self, core: Core, reads: Sequence[Read]) -> None:
        self._core = core
        self._reads = reads
        self._page_size = core.page_size
        self.outcomes: list[BlobStoreError | None] = [None] * len(reads)
        self.plain: list[tuple[int, int]] = []  #: position and entry of what one request should fill
        self.answers: list[Completion[int]] = []
        self.others: list[tuple[int, Job[None]]] = []
        self._held: list[int] = []
        self._let_go = 0

    def ask(self, position: int) -> int:
        """Ask for the reads from ``position`` on, as many as an iteration may; return the next position."""
        core, reads, others = self._core, self._reads, self.others
        find, slots, align = core.index.find, core.index.slots, core.file_io.engine.memory_align
        first, room = len(self.plain), READS_AT_ONCE
        while position < len(reads) and room > 0:
            guid, frame = reads[position]
            entry = find(guid)
            if entry is None:
                self.outcomes[position] = core.not_found(guid)
            elif frame.address % align or slots.beyond_end(entry >> CHECKSUM_BITS):
                others.append((position, core.file_io.start(core.read(guid, frame))))
                room -= JOB_COST - 1
            else:
                slots.pin(entry >> CHECKSUM_BITS)
                self._held.append(entry >> CHECKSUM_BITS)
                self.plain.append((position, entry))
            position += 1
            room -= 1
        new = self.plain[first:] if first else self.plain
        places = [((entry >> CHECKSUM_BITS) * self._page_size, reads[at][1]) for at, entry in new]
        if places:
            core.file_io.engine.read_each(places, self.answers)
        return position

    def release(self, at_most: int = sys.maxsize) -> bool:
        """Let go of ``at_most`` slots; tell whether there are more."""
        held, slots = self._held, self._core.index.slots
        stop = min(len(held), self._let_go + at_most)
        while self._let_go < stop:
            self._let_go += 1
            slots.unpin(held[self._let_go - 1])
        return stop < len(held)

    async def settle(self) -> None:
        """Wait until no frame is the kernel's any more: they are the caller's then."""
        await wait_all(self.answers)
        await wait_all([job for _, job in self.others])


async def read_batch(core: Core, reads: Sequence[Read]) -> list[BlobStoreError | None]:
    """Fill every frame with the blob that is visible now; return each position's error, or None.

    To be run as a job.  Returns or raises when no request is in flight any more; until then every
    slot is kept.  More than :data:`READS_AT_ONCE` are looked up and asked for in turns.
    """
    asked, budget, position = _Asked(core, reads), core.file_io.checksum_budget, 0
    try:
        while position < len(reads):
            if position:
                await budget.acquire_after(READS_AT_ONCE * CHANGE)
            position = asked.ask(position)
        unexpected = await _finish_plain(core, reads, asked)
    except GeneratorExit:
        raise  # the store was dropped, not closed: nothing may be awaited any more
    except BaseException:
        # No memory, or a signal handler: the frames are the caller's when the kernel lets go of them.
        await asked.settle()
        raise
    finally:
        asked.release()
    for position, job in asked.others:
        try:
            await job
        except BlobStoreError as error:
            asked.outcomes[position] = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - raised below, when the other reads are done
            unexpected = unexpected or error
    if unexpected is not None:
        raise unexpected
    return asked.outcomes


async def _finish_plain(core: Core, reads: Sequence[Read], asked: _Asked) -> Exception | None:
    """Fill the plain frames and note their errors; return an error that is no frame's own."""
    page_size, verifies, budget = core.page_size, core.verifies, core.file_io.checksum_budget
    unexpected: Exception | None = None
    pairs = list(zip(asked.plain, asked.answers, strict=True))
    for number, ((position, entry), answer) in enumerate(pairs if verifies else reversed(pairs), 1):
        got = answer.result() if answer.done() else await answer
        if verifies or got != page_size:
            try:
                await _finish(core, *reads[position], entry, got)
            except BlobStoreError as error:
                asked.outcomes[position] = error.with_traceback(None)
            except Exception as error:  # noqa: BLE001 - returned, when the other reads are done
                unexpected = unexpected or error
        elif number % READS_AT_ONCE == 0:
            await budget.acquire(READS_AT_ONCE * NAME)
    while asked.release(READS_AT_ONCE):
        await budget.acquire(READS_AT_ONCE * CHANGE)
    return unexpected


async def _finish(core: Core, guid: bytes, frame: IoBuffer, entry: int, got: int) -> None:
    """See to it that ``frame`` is whole and what was written; ``got`` is what its request moved."""
    if got != frame.size:
        await core.fill(guid, entry >> CHECKSUM_BITS, 0, frame, got)
    if core.verifies:
        budget = core.file_io.checksum_budget
        if frame.size > STEP_BYTES:
            await core.check_in_turns(guid, entry, frame)
            return
        if not budget.try_acquire(frame.size):
            await budget.acquire(frame.size)
        core.check_frame(guid, entry, frame)
