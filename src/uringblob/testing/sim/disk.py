"""A disk that may lose power at any instant, and an engine on it; deterministic under one seed.

What it models, and nothing more:

* **Two images.**  ``live`` is what a read sees now, ``durable`` what survives a power cut.
  Between them are the *un-flushed* writes, in submission order.
* **A power cut** leaves the durable image and any subset of the un-flushed writes, each whole or
  torn at 512 bytes; the later of two writes to one place wins if both landed.  Growth of the
  file is an un-flushed write, too: without it, what lies behind the old end is lost.
* **A flush** covers only writes that were complete when it began.  A *failed* flush may lose any of
  what it covered, and no later flush writes it again (as on ext4 and xfs).
* **Completions** come in any order and at any delay that the seed chooses.
* **Faults**: ``faults(index, kind)`` is called for the ``index``-th request and may return a
  :class:`Fault`.  A write that failed may have landed in part.
* **Silent faults**: a write that is lost or lands elsewhere and reports success, a read that
  returns the previous contents, a request that takes up to half a minute of simulated time.
* **A full disk**: ``capacity`` bounds the file's length; with ``sparse`` growth always succeeds and
  a first write into a block may find no room.  With ``copies`` (copy-on-write) growth allocates, and
  every write takes new room, for which what it replaces is given back by the next flush.

Otherwise reads return what was written.  Two writes in flight to one place, or memory changed
under a write in flight, are bugs of the program under test, and raise.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import random
from collections.abc import Callable, Iterator

from uringblob.testing.sim.image import BLOCK, SECTOR, Image
from uringblob.testing.sim.locks import LockTable


@dataclasses.dataclass(frozen=True)
class Fault:
    """How a request goes wrong; without ``errno`` it reports success.

    ``errno``: it fails.  ``moved``: only ``moved(size)`` bytes of it are moved.  ``delay_s``: it takes
    so many seconds of simulated time.  ``lost``: a write that never lands.  ``to``: a write that
    lands at that offset instead.  ``stale``: a read that shows each block as it was before its last write.
    """

    errno: int = 0
    moved: Callable[[int], int] | None = None
    delay_s: float = 0.0
    lost: bool = False
    to: int | None = None
    stale: bool = False


Faults = Callable[[int, str], "Fault | None"]


@dataclasses.dataclass(eq=False)
class Write:
    """A write, or a growth or cut of the file (``data`` is ``None``), that no flush has covered.

    ``done``: it was reported complete; ``number``: its place in submission order.
    """

    number: int
    offset: int
    data: bytes | None
    size: int = 0
    done: bool = False
    cuts: bool = False

    @property
    def end(self) -> int:
        """The offset behind its last byte."""
        return self.offset + (0 if self.data is None else len(self.data))


class SimDisk:
    """One simulated file on one simulated disk.

    ``on_step`` is called whenever the set of possible crash images has changed, with the reason:
    ``"write"``, ``"grow"``, ``"sync"``.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        image: Image | None = None,
        capacity: int | None = None,
        sparse: bool = False,
        copies: bool = False,
        faults: Faults | None = None,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.durable = Image() if image is None else image
        self.live = self.durable.copy()
        self.unflushed: list[Write] = []
        self.locks = LockTable()
        self.capacity = capacity
        self.sparse = sparse
        self.copies = copies
        self.faults = faults
        self.on_step: Callable[[str], None] = lambda _why: None
        self.requests = 0
        self._writes = 0
        self._before: dict[int, bytes] = {}  # each block before its last write, for stale reads
        #: Allocated blocks; counted only where it matters, because a file may have any length.
        self._allocated = set(range(self.durable.size // BLOCK)) if sparse or copies else set()
        self._replaced = 0  # blocks copied since the last flush, which still occupy room

    def __repr__(self) -> str:
        return f"<SimDisk seed={self.seed} {self.live.size} bytes, {len(self.unflushed)} un-flushed writes>"

    # --- requests ------------------------------------------------------------------------

    def next_fault(self, kind: str) -> Fault | None:
        """Count one request and return how it fails, or ``None``."""
        self.requests += 1
        return None if self.faults is None else self.faults(self.requests - 1, kind)

    def begin_write(self, offset: int, data: bytes) -> Write:
        """Begin a write: from now on any part of it may land."""
        end = offset + len(data)
        for other in self.unflushed:
            if not other.done and other.offset < end and offset < other.end:
                raise AssertionError(f"two writes in flight to one place: {offset} and {other.offset}")
        if end > self.live.size:
            self._lengthen(end)
        write = Write(self._writes, offset, data)
        self._writes += 1
        self.unflushed.append(write)
        self.on_step("write")
        return write

    def finish_write(self, write: Write, moved: int) -> None:
        """Complete a write: reads see its first ``moved`` bytes from now on."""
        assert write.data is not None
        write.data = write.data[:moved]
        write.done = True
        for block in range(write.offset // BLOCK, -(-write.end // BLOCK)):
            self._before[block] = self.live.read(block * BLOCK, BLOCK)
        self.live.write(write.offset, write.data)

    def lose_write(self, write: Write) -> None:
        """Complete a write that never lands."""
        self.unflushed.remove(write)

    def misdirect_write(self, write: Write, to: int) -> None:
        """Complete a write that landed at offset ``to``."""
        write.offset = to
        assert write.data is not None
        self.finish_write(write, len(write.data))

    def read_stale(self, offset: int, size: int) -> bytes:
        """Return the bytes as they were before the last write of each block."""
        old = self.live.copy()
        for block, content in self._before.items():
            old.write(block * BLOCK, content)
        return old.read(offset, size)

    def tear_write(self, write: Write) -> None:
        """Fail a write: the seed decides what of it landed anyway."""
        assert write.data is not None
        before = self.live.read(write.offset, len(write.data)).ljust(len(write.data), b"\0")
        torn = Image(size=len(write.data))
        torn.write(0, before)
        _land(torn, Write(0, 0, write.data), self.rng)
        write.data = torn.read(0, len(write.data))
        write.done = True
        self.live.write(write.offset, write.data)

    def no_room_for(self, offset: int, size: int) -> bool:
        """Return whether a disk that allocates on write is too full for this one; else allocate."""
        if not (self.sparse or self.copies) or self.capacity is None:
            return False
        blocks = set(range(offset // BLOCK, -(-(offset + size) // BLOCK)))
        wanted = blocks - self._allocated
        copied = len(blocks) - len(wanted) if self.copies else 0
        if (len(self._allocated) + self._replaced + len(wanted) + copied) * BLOCK > self.capacity:
            return True
        self._allocated |= wanted
        self._replaced += copied
        return False

    def grow(self, size: int) -> int:
        """Grow the file to ``size`` bytes; returns 0 or ``-ENOSPC``."""
        if self.copies and self.no_room_for(self.live.size, max(0, size - self.live.size)):
            return -errno.ENOSPC
        if not self.sparse and not self.copies and self.capacity is not None and size > self.capacity:
            return -errno.ENOSPC
        if size > self.live.size:
            self._lengthen(size)
            self.on_step("grow")
        return 0

    def _lengthen(self, size: int) -> None:
        self.live.size = size
        self.unflushed.append(Write(self._writes, 0, None, size=size, done=True))
        self._writes += 1

    def cut(self, size: int) -> None:
        """Cut the file down to ``size`` bytes; what lies behind is lost with the next flush, or before."""
        for write in self.unflushed:
            if not write.done and write.end > size:
                raise AssertionError(f"the file is cut to {size} under a write in flight to {write.offset}")
        self.live.size = min(self.live.size, size)
        self.live.cut()
        self.unflushed.append(Write(self._writes, 0, None, size=size, done=True, cuts=True))
        self._writes += 1
        self._allocated -= {block for block in self._allocated if block * BLOCK >= size}
        self.on_step("cut")

    def punch(self, offset: int, size: int) -> None:
        """Give the blocks of a part of the file back: it reads as zeroes, and needs room when it is written."""
        self.finish_write(self.begin_write(offset, bytes(size)), size)
        self._allocated -= set(range(offset // BLOCK, (offset + size) // BLOCK))
        self.on_step("punch")

    def allocate(self, offset: int, size: int) -> int:
        """Allocate what a part of the file lacks; returns 0 or ``-ENOSPC``."""
        return -errno.ENOSPC if not self.copies and self.no_room_for(offset, size) else 0

    def begin_sync(self, *, failing: bool) -> list[Write]:
        """Begin a flush; return what it covers.

        If it is ``failing``, the seed decides now what of that lands; the rest is lost, and no other
        flush reports it.
        """
        covered = [write for write in self.unflushed if write.done]
        if failing:
            for write in covered:
                _land(self.durable, write, self.rng)
            self.unflushed = [write for write in self.unflushed if not write.done]
            return []
        return covered

    def finish_sync(self, covered: list[Write]) -> None:
        """End a flush: what it covers is durable."""
        flushed = set(covered)
        self._replaced = 0
        for write in self.unflushed:
            if write in flushed:
                self._make_durable(write)
        self.unflushed = [write for write in self.unflushed if write not in flushed]
        self.on_step("sync")

    def _make_durable(self, write: Write) -> None:
        _land_whole(self.durable, write)

    def read(self, offset: int, size: int) -> bytes:
        """Return what a read that ends now sees; of a write in flight it sees a part."""
        data = self.live.read(offset, size)
        for write in self.unflushed:
            if not write.done and write.data and write.offset < offset + len(data) and offset < write.end:
                mixed = self.live.copy()
                _land(mixed, write, self.rng)
                data = mixed.read(offset, size)
        return data

    # --- the end of the process, or of the power -----------------------------------------

    def restart(self, *, cache_kept: bool = False) -> None:
        """Model the death of the process, not of the machine: all is written out, lost pages are dropped.

        ``cache_kept``: they stay in the cache, so reads still return what a failed flush lost.
        """
        for write in self.unflushed:
            self._make_durable(write)
        self.unflushed = []
        if not cache_kept:
            self.live = self.durable.copy()

    def crash(self, rng: random.Random) -> Image:
        """Return one image that a power cut now may leave."""
        image = self.durable.copy()
        # Mostly-landed and mostly-lost are as likely as anything between.
        chance = rng.choice((0.0, 0.2, 0.5, 0.8, 0.95, 1.0))
        torn = rng.random() < 0.5
        for write in self.unflushed:
            if torn and rng.random() < 0.4:
                _land(image, write, rng)
            elif rng.random() < chance:
                _land_whole(image, write)
        self._lose_what_lies_behind(image)
        return image

    def _lose_what_lies_behind(self, image: Image) -> None:
        if image.size < self.live.size:
            image.cut()

    def all_crashes(self, limit: int = 10, *, torn: random.Random | None = None) -> Iterator[Image]:
        """Yield every image that a power cut may leave now, each write being whole or absent.

        :param limit: with more un-flushed writes than that, the oldest are taken as landed or
            lost together.
        :param torn: a random source: yield each image a second time, its landed writes torn.
        """
        extra = max(0, len(self.unflushed) - limit)
        parts = [self.unflushed[: extra + 1], *([write] for write in self.unflushed[extra + 1 :])]
        if not self.unflushed:
            yield self.durable.copy()
            return
        for chosen in itertools.product((False, True), repeat=len(parts)):
            image = self.durable.copy()
            tearing = self.durable.copy() if torn is not None and any(chosen) else None
            for part, landed in zip(parts, chosen, strict=True):
                for write in part if landed else ():
                    _land_whole(image, write)
                    if tearing is not None and torn is not None:
                        _land(tearing, write, torn)
            for result in (image, tearing):
                if result is not None:
                    self._lose_what_lies_behind(result)
                    yield result


def _land_whole(image: Image, write: Write) -> None:
    if write.cuts:
        image.size = min(image.size, write.size)
        image.cut()
    elif write.data is None:
        image.size = max(image.size, write.size)
    else:
        image.write(write.offset, write.data)


def _land(image: Image, write: Write, rng: random.Random) -> None:
    """Land none, the beginning, the end, some sectors, or all of ``write``."""
    how = rng.randrange(5)
    if how == 0:
        return
    if how == 1 or write.data is None:
        _land_whole(image, write)
        return
    count = -(-len(write.data) // SECTOR)
    cut = rng.randrange(count + 1)
    if how == 2:
        image.write(write.offset, write.data[: cut * SECTOR])
    elif how == 3:
        image.write(write.offset + cut * SECTOR, write.data[cut * SECTOR :])
    else:
        chance = rng.random()
        image.write_sectors(
            write.offset, write.data, [sector for sector in range(count) if rng.random() < chance]
        )
