"""How much one loop iteration may do for this store, all of its calls together.

The unit is a byte that is checksummed.  Other work is counted by what it takes: a byte copied as
:data:`COPIED` of them, because memory that was never touched is copied four times as slowly as it is
checksummed, and what is done for each guid of a long list as a number of bytes for each.  (A clock would
say it better, and no test could replay it.)  An iteration takes 0.3 to 1.5 ms of ours in this manner.

Why there is one limit for all:

A frame of 512 KiB takes 20 to 50 µs to checksum, and whoever else lives on the loop waits.  With a
limit for each batch, four batches resumed in the same iteration took four times as much, and 64
commits of one frame had no limit at all.  And a descriptor that becomes ready just after the
selector was asked waits for two iterations, not for one.

What a ticker of a millisecond was late by (p99, in ms), by what an iteration may checksum (Python
3.11, Linux 6.18, 512 KiB frames; medians of seven alternating turns in a slow hour of the machine):

=================  ==========  =====  =====  =====
load               each its 2  4 MiB  2 MiB  1 MiB
=================  ==========  =====  =====  =====
64 commits of one  7.3         3.1    2.5    2.3
4 commits of 8     1.01        0.97   0.80   0.64
4 writes of 8      1.04        1.11   0.94   0.79
=================  ==========  =====  =====  =====

With 2 MiB for all, 64 committers write as many frames a second as before (0.99 of it, the median of
24 pairs of turns); with 1 MiB 2 to 4 % fewer, because every iteration costs 20 to 30 µs.
"""

from __future__ import annotations

import asyncio
import collections

from uringblob.buffers.checksum import FrameHasher, frame_checksum
from uringblob.completion import Completion, call_surely

#: Bytes that one iteration checksums, or as much other work; what passes the limit (a frame, a commit below 1 MiB) is still taken.
BYTES_PER_ITERATION = 2 * 1024 * 1024
#: A copied byte counts as so many: 0.1 ms a MiB in memory that is in use, 0.5 in fresh memory.
COPIED = 2
#: The largest step of a single frame's checksum or copy; larger frames are taken in pieces.
STEP_BYTES = 512 * 1024
#: What a guid counts in each pass over a list of them: 2,048 names, or 256 changes, in an iteration.
NAME = 1024
CHANGE = 8 * 1024
#: What a small frame counts at least, where a job of its own moves it: 20 to 40 µs.
JOB = 32 * 1024
#: What making a log block of 119 records counts.
BLOCK = 256 * 1024
#: Guids between two looks at the limit.
GUIDS_AT_ONCE = 64


class ChecksumBudget:
    """Gives turns at checksumming, first come first served.  Belongs to ``loop``'s thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left = BYTES_PER_ITERATION
        #: The refill that is to come, if any.
        self._due: object = None
        self._waiting: collections.deque[tuple[int, Completion[None]]] = collections.deque()

    def __repr__(self) -> str:
        return f"<Pace left={self._left} waiting={len(self._waiting)}>"

    def take(self, size_bytes: int) -> bool:
        """Take a turn at once if this iteration has room: whoever may not has to wait for one."""
        if self._left <= 0 or self._waiting:
            return False
        self._left -= size_bytes
        if self._due is None:
            self._refill_later()
        return True

    async def turn(self, size_bytes: int) -> None:
        """Return when ``size_bytes`` may be checksummed: at once if this iteration has room.

        A turn at nothing comes when all who wait now have had theirs.
        """
        if self.take(size_bytes):
            return
        turn: Completion[None] = Completion(loop=self._loop)
        self._waiting.append((size_bytes, turn))
        if self._due is None:
            self._refill_later()
        await turn

    async def after(self, size_bytes: int) -> None:
        """Count what was done already, and return when there is room for more."""
        self._left -= size_bytes  # also where take() would have it wait behind others
        if self._due is None:
            self._refill_later()
        await self.turn(0)

    async def copy(self, target: memoryview, source: memoryview) -> None:
        """Copy bytes, no more in an iteration than it may."""
        for start in range(0, len(source), STEP_BYTES):
            stop = min(start + STEP_BYTES, len(source))
            if not self.take((stop - start) * COPIED):
                await self.turn((stop - start) * COPIED)
            target[start:stop] = source[start:stop]

    async def checksum(self, frame: memoryview) -> int:
        """Return the checksum of a frame, made of no more in an iteration than it may."""
        size = len(frame)
        if size <= STEP_BYTES:
            if not self.take(size):
                await self.turn(size)
            return frame_checksum(frame)
        hasher = FrameHasher()
        for start in range(0, size, STEP_BYTES):
            part = frame[start : start + STEP_BYTES]
            if not self.take(len(part)):
                await self.turn(len(part))
            hasher.update(part)
        return hasher.intdigest()

    def _refill_later(self) -> None:
        due = object()
        call_surely(self._loop, self._refill, due)
        self._due = due

    def _refill(self, due: object) -> None:
        """A new iteration has begun."""
        if due is not self._due:
            return  # the second call for it, and the first one was not struck
        try:
            self._left = BYTES_PER_ITERATION
            while self._waiting and self._left > 0:
                # Removed last: resolving twice does no harm, should a signal handler raise in between.
                size_bytes, turn = self._waiting[0]
                self._left -= size_bytes
                turn.resolve(None)
                self._waiting.popleft()
        finally:
            if self._waiting or self._left < BYTES_PER_ITERATION:
                self._refill_later()
            else:
                self._due = None
