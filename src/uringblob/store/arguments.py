"""What a caller passes for many blobs, checked a few at a time.

Every guid and length is checked before anything is done, and a hundred thousand of them take 200 ms.
Not in the store's job: the caller's own iterators run in here, and what they raise is the caller's.
What was checked so far is forgotten when something is wrong, or the caller cancelled: an error must not
keep buffers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import BufferPool, frame_of
from uringblob.buffers.views import BlobBuffer, as_pair, check_no_single_guid, checked_deletes
from uringblob.guid import GuidLike, guid_bytes
from uringblob.store.index.shards import FEW, Mapped, Shards
from uringblob.store.io.checksum_budget import CHANGE, ChecksumBudget

#: Guids and buffers that are checked in one step.
CHECKED_AT_ONCE = 256
#: What such a step takes of an iteration.
STEP_COST = CHECKED_AT_ONCE * CHANGE


class Changes:
    """The writes and deletes of one call; the last write of a repeated guid wins."""

    def __init__(
        self,
        page_size: int,
        pool: BufferPool,
        writes: Iterable[tuple[GuidLike, BlobBuffer]],
        deletes: Iterable[GuidLike] = (),
    ) -> None:
        self._page_size = page_size
        self._pool = pool
        self._writes = iter(writes)
        check_no_single_guid(deletes)
        self._deletes = None if isinstance(deletes, tuple) and not deletes else iter(deletes)
        self._frames: Mapped[IoBuffer] = {}
        self._doomed: Mapped[None] = {}

    def check(self) -> bool:
        """Check the next few; tell whether those were all."""
        size, pool, frames = self._page_size, self._pool, self._frames
        room = CHECKED_AT_ONCE
        try:
            for pair in self._writes:
                guid, src = pair if type(pair) is tuple and len(pair) == 2 else as_pair(pair)
                frames[guid_bytes(guid)] = frame_of(src, size, writable=False, pool=pool)
                room -= 1
                if not room:
                    if len(frames) > FEW and isinstance(frames, dict):
                        self._frames = Shards.of(frames)
                    return False
            return not self._deletes or self._check_deletes(self._deletes)
        except BaseException:
            self.forget()
            raise

    def _check_deletes(self, deletes: Iterator[GuidLike]) -> bool:
        some = list(itertools.islice(deletes, CHECKED_AT_ONCE))
        for guid in checked_deletes(some, self._frames):
            self._doomed[guid] = None
        if len(self._doomed) > FEW and isinstance(self._doomed, dict):
            self._doomed = Shards.of(self._doomed)
        return len(some) < CHECKED_AT_ONCE

    def hand_over(self) -> tuple[Mapped[IoBuffer], list[bytes]]:
        """Return what is to be written and what deleted; nothing is kept here."""
        handed = self._frames, list(self._doomed)
        self._frames = {}
        return handed

    def forget(self) -> None:
        """Hold no memory of the caller's any more."""
        self._frames, self._doomed = {}, {}
        self._writes, self._deletes = iter(()), None


class Reads:
    """The reads of one call."""

    def __init__(
        self, page_size: int, pool: BufferPool, reads: Iterable[tuple[GuidLike, BlobBuffer]]
    ) -> None:
        self._page_size = page_size
        self._pool = pool
        self._rest = iter(reads)
        self._reads: list[tuple[bytes, IoBuffer]] = []

    def check(self) -> bool:
        """Check the next few; tell whether those were all."""
        size, pool, before = self._page_size, self._pool, len(self._reads)
        try:
            self._reads.extend(
                (guid_bytes(guid), frame_of(dst, size, writable=True, pool=pool))
                for guid, dst in map(as_pair, itertools.islice(self._rest, CHECKED_AT_ONCE))
            )
        except BaseException:
            self.forget()
            raise
        return len(self._reads) - before < CHECKED_AT_ONCE

    def hand_over(self) -> list[tuple[bytes, IoBuffer]]:
        """Return what is to be read; nothing is kept here."""
        handed = self._reads
        self.forget()
        return handed

    def forget(self) -> None:
        """Hold no memory of the caller's any more."""
        self._reads = []
        self._rest = iter(())


async def check_rest(
    checked: Changes | Reads, budget: ChecksumBudget, check_open: Callable[[], None]
) -> None:
    """Check what is left, some at a time; ``check_open`` raises if the store was closed meanwhile."""
    try:
        await budget.acquire_after(STEP_COST)
        while not checked.check():
            await budget.acquire_after(STEP_COST)
        check_open()
    except BaseException:
        checked.forget()
        raise
