"""How much one loop iteration may checksum, for all batches of a store together.

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

from uringblob.completion import Completion, call_surely

#: Bytes that one iteration checksums; what passes the limit (a frame, a commit below 1 MiB) is still taken.
BYTES_PER_ITERATION = 2 * 1024 * 1024


class Pace:
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
                turn.finish(None)
                self._waiting.popleft()
        finally:
            if self._waiting or self._left < BYTES_PER_ITERATION:
                self._refill_later()
            else:
                self._due = None
