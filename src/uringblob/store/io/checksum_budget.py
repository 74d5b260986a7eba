"""How much work one loop iteration may do for this store, all of its calls together.

The budget is refilled in the iteration after the one that used it up, so an iteration takes no more than
it, and calls with pauses between them need no refill each.

The unit is one checksummed byte.  Other work is converted to it: a copied byte counts as
``tuning.COPY_COST``, each guid of a long list as a fixed number of bytes.  Only such counts make a simulated
run repeatable; a clock would be more exact.  One iteration takes 0.3 to 1.5 ms.

The limit is one for all calls because everything else on the loop waits for their sum.  Beside 64 commits
of one 512 KiB frame a 1 ms ticker was late by 7.3 ms (p99) with 2 MiB for each batch, and by 3.1, 2.5 and
2.3 ms with 4, 2 and 1 MiB for all (Python 3.11, Linux 6.18; medians of seven alternating runs).  With 2 MiB
the committers write 0.99 of the frames a second that they wrote without a limit; with 1 MiB 2 to 4 % fewer,
because an iteration costs 20 to 30 µs.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable

from uringblob import tuning
from uringblob.buffers.checksum import FrameHasher, frame_checksum
from uringblob.completion import Completion, call_surely
from uringblob.wait import Wait

#: Guids between two requests for budget.
GUIDS_AT_ONCE = 64


class ChecksumBudget:
    """Grants bytes to callers in the order of their requests.  Belongs to ``loop``'s thread.

    ``acquire`` is a coroutine; a hot path calls ``try_acquire`` first, which costs none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, poll: Callable[[], object]) -> None:
        """``poll`` completes the reads that have ended: they come before an iteration's checksums."""
        self._loop = loop
        self._poll = poll
        self._left = tuning.BYTES_PER_ITERATION
        #: Identifies the scheduled refill, if there is one.
        self._due: object = None
        self._waiting: collections.deque[tuple[int, Completion[None]]] = collections.deque()

    def try_acquire(self, size_bytes: int) -> bool:
        """Take ``size_bytes`` if this iteration has budget left and nothing waits for it."""
        if self._left <= 0 or self._waiting:
            return False
        self._left -= size_bytes
        if self._left <= 0 and self._due is None:
            self._schedule_refill()
        return True

    async def acquire(self, size_bytes: int) -> None:
        """Return when ``size_bytes`` are granted: at once if this iteration has budget left.

        A zero-byte request is a barrier: it resolves after every request already queued.
        """
        if self.try_acquire(size_bytes):
            return
        granted = Wait(loop=self._loop)  # a task goes on inside the refill, as a job does
        self._waiting.append((size_bytes, granted))
        self._charge(0)
        await granted

    def barrier(self) -> Completion[None] | None:
        """Return a completion that resolves after every queued request; ``None``: there is none."""
        if not self._waiting:
            return None
        passed: Completion[None] = Completion(loop=self._loop)
        self._waiting.append((0, passed))
        return passed

    async def acquire_after(self, size_bytes: int) -> None:
        """Charge work that is already done, also ahead of the queue; return when there is budget for more."""
        self._charge(size_bytes)
        await self.acquire(0)

    async def copy(self, target: memoryview, source: memoryview) -> None:
        """Copy bytes in steps, each within the budget."""
        for start in range(0, len(source), tuning.STEP_BYTES):
            stop = min(start + tuning.STEP_BYTES, len(source))
            await self.acquire((stop - start) * tuning.COPY_COST)
            target[start:stop] = source[start:stop]

    async def checksum(self, frame: memoryview) -> int:
        """Return the checksum of a frame, computed in steps, each within the budget."""
        size = len(frame)
        if size <= tuning.STEP_BYTES:
            await self.acquire(size)
            return frame_checksum(frame)
        hasher = FrameHasher()
        for start in range(0, size, tuning.STEP_BYTES):
            part = frame[start : start + tuning.STEP_BYTES]
            await self.acquire(len(part))
            hasher.update(part)
        return hasher.intdigest()

    def _charge(self, size_bytes: int) -> None:
        self._left -= size_bytes
        if self._due is None and (self._left <= 0 or self._waiting):
            self._schedule_refill()

    def _schedule_refill(self) -> None:
        due = object()
        call_surely(self._loop, self._refill, due)
        self._due = due

    def _refill(self, due: object) -> None:
        """Begin a new iteration's budget, and grant what waits."""
        if due is not self._due:
            return  # the second call of call_surely
        try:
            self._poll()
            self._left = tuning.BYTES_PER_ITERATION
            while self._waiting and self._left > 0:
                # Removed last: if a signal handler raises in between, the next refill resolves it again.
                size_bytes, granted = self._waiting[0]
                self._left -= size_bytes
                granted.resolve(None)
                self._waiting.popleft()
        finally:
            if self._waiting or self._left <= 0:
                self._schedule_refill()
            else:
                self._due = None
