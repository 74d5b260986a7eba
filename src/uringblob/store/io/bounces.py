"""Bounce frames, for memory that the engine cannot move; one bounded set for all calls of a store.

Fresh heap memory costs 0.5 ms a MiB when its pages are first touched, by the kernel while it takes a
request or here: 64 reads of 1 MiB into unaligned memory blocked the loop for 70 ms.  So few frames are
out at a time, they are reused while anything waits for one, and fresh memory is touched within the
:class:`ChecksumBudget`.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Iterator

from uringblob import tuning
from uringblob.buffers.leases import AlignedBlobBuf, BufferPool
from uringblob.completion import Completion
from uringblob.store.io.checksum_budget import ChecksumBudget
from uringblob.units import BUF_ALIGN


class Bounces:
    """Lends at most ``limit`` bounce frames, first come first served.  Belongs to ``loop``'s thread.

    A caller that holds one must not wait for another, only take what is :attr:`available`.
    """

    def __init__(self, pool: BufferPool, budget: ChecksumBudget, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._budget = budget
        self._loop = loop
        self.limit = max(2, min(tuning.BOUNCE_FRAMES_MAX, tuning.BOUNCE_BYTES_MAX // pool.page_size))
        self.lent = 0  #: frames lent so far
        self._out = 0
        self._spare: list[AlignedBlobBuf] = []
        self._waiting: collections.deque[Completion[None]] = collections.deque()

    @property
    def available(self) -> bool:
        """Whether :meth:`acquire` would get a frame without waiting for another caller's."""
        return not self._waiting and self._out < self.limit

    async def acquire(self) -> AlignedBlobBuf:
        """Return a frame, as soon as one may be lent."""
        place: Completion[None] | None = None
        if self.available:
            self._out += 1
        else:
            place = Completion(loop=self._loop)
            self._waiting.append(place)
        try:
            if place is not None:
                await place  # also if the task is cancelled: then the place has been given all the same
            self.lent += 1
            if self._spare:
                return self._spare.pop()
            lease = self._pool.lease()
            if not lease.registered:
                await self._touch(lease)
        except GeneratorExit:
            raise  # the store was dropped: nothing may be resumed
        except BaseException:
            self._give_place()
            raise
        return lease

    async def _touch(self, lease: AlignedBlobBuf) -> None:
        """Make the system allocate the memory's pages, within the budget."""
        view = lease.view
        for start in range(0, len(lease), tuning.STEP_BYTES):
            stop = min(start + tuning.STEP_BYTES, len(lease))
            await self._budget.acquire((stop - start) * tuning.COPY_COST)
            view[start:stop:BUF_ALIGN] = bytes(len(range(start, stop, BUF_ALIGN)))

    @contextlib.contextmanager
    def releasing(self, leases: list[AlignedBlobBuf]) -> Iterator[None]:
        """Release ``leases`` when the block ends.

        Not where the store is dropped: nothing may be resumed then, and the kernel may use the memory.
        """
        try:
            yield
        except GeneratorExit:
            raise
        except BaseException:
            self.release(leases)
            raise
        self.release(leases)

    def release(self, leases: list[AlignedBlobBuf]) -> None:
        """Take frames back; no request may use them any more."""
        for lease in leases:
            self._release(lease)

    def _release(self, lease: AlignedBlobBuf) -> None:
        if self._waiting or self._out > 1:
            self._spare.append(lease)
        self._give_place()

    def _give_place(self) -> None:
        if self._waiting:
            self._waiting.popleft().resolve(None)
            return
        self._out -= 1
        if not self._out:
            self._spare.clear()
