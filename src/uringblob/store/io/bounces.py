"""Frames through which memory goes that the engine cannot move, for all calls of a store together.

A heap frame that was never touched costs half a millisecond a MiB, here or in the kernel, which
asks for its pages while it takes the request: 64 reads of 1 MiB into ordinary memory held the loop up
for 70 ms.  So few are out at a time, they are used again while anybody waits, and fresh memory is
touched at the store's pace.
"""

from __future__ import annotations

import asyncio
import collections

from uringblob.buffers.leases import AlignedBlobBuf, BufferPool
from uringblob.completion import Completion
from uringblob.store.io.checksum_budget import COPIED, STEP_BYTES, ChecksumBudget
from uringblob.units import BUF_ALIGN

BOUNCE_FRAMES = 64
BOUNCE_BYTES = 8 * 1024 * 1024


class Bounces:
    """Lends bounce frames, first come first served.  Belongs to ``loop``'s thread.

    ``limit`` frames may be out at once.  Whoever has one may not wait for another: :meth:`take_now`
    says whether there is one.
    """

    def __init__(self, pool: BufferPool, pace: ChecksumBudget, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._pace = pace
        self._loop = loop
        self.limit = max(2, min(BOUNCE_FRAMES, BOUNCE_BYTES // pool.page_size))
        self._out = 0
        self._spare: list[AlignedBlobBuf] = []
        self._waiting: collections.deque[Completion[None]] = collections.deque()

    def __repr__(self) -> str:
        return f"<Bounces {self._out} of {self.limit} out, {len(self._waiting)} wait>"

    def take_now(self) -> bool:
        """Take a frame's place if there is one and nobody waits for it; :meth:`frame` has the frame."""
        if self._waiting or self._out >= self.limit:
            return False
        self._out += 1
        return True

    async def take(self) -> None:
        """Wait for a frame's place."""
        if self.take_now():
            return
        place: Completion[None] = Completion(loop=self._loop)
        self._waiting.append(place)
        try:
            await place  # it is ours already when it is given
        except GeneratorExit:
            raise  # the store was dropped, not closed: nobody is resumed
        except BaseException:
            self._leave()  # the caller was cancelled
            raise

    async def frame(self) -> AlignedBlobBuf:
        """Return the frame of a place that was taken; if this raises, the place is given back."""
        if self._spare:
            return self._spare.pop()
        try:
            lease = self._pool.lease()
            if not lease.registered:
                await self._touch(lease)
        except GeneratorExit:
            raise
        except BaseException:
            self._leave()
            raise
        return lease

    async def _touch(self, lease: AlignedBlobBuf) -> None:
        """Have the system give the memory's pages, no more in an iteration than it may."""
        view = lease.view
        for start in range(0, len(lease), STEP_BYTES):
            stop = min(start + STEP_BYTES, len(lease))
            if not self._pace.take((stop - start) * COPIED):
                await self._pace.turn((stop - start) * COPIED)
            view[start:stop:BUF_ALIGN] = bytes(len(range(start, stop, BUF_ALIGN)))

    def give(self, lease: AlignedBlobBuf) -> None:
        """Give a frame and its place back; no request has it any more."""
        if self._waiting or self._out > 1:
            self._spare.append(lease)
        self._leave()

    def _leave(self) -> None:
        if self._waiting:
            self._waiting.popleft().resolve(None)
            return
        self._out -= 1
        if not self._out:
            self._spare.clear()
