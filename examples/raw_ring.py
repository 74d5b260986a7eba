"""Fixed-buffer I/O with ``uringblob.ring`` alone: no store, no format, a file of your own.

What a fixed-buffer program does, step by step: a slab of aligned frames (on huge pages, where there
are some) that is registered once, a registered file, and then reads and writes that name both by
number, ``depth`` of them in flight.  It writes the file, syncs it with a linked fdatasync, and
reads it back in random order, checking every frame.

Run it: ``python examples/raw_ring.py [DIRECTORY]``.  It prints what it moved and how often it
entered the kernel for that; it is an example, no benchmark (``uringblob bench`` is one).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import struct
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from uringblob.buffers.iobuf import IoBuffer
from uringblob.errors import check_rc
from uringblob.ring import Ring, SqeFlags, ops
from uringblob.slab import Slab

#: Index of the one file in the ring's table of registered files.
FILE = 0
FIXED = SqeFlags.FIXED_FILE

_STAMP = struct.Struct("<Q")


class FixedFile:
    """One file that a ring reads and writes through registered frames."""

    def __init__(self, ring: Ring, frames: list[IoBuffer]) -> None:
        self.ring = ring
        #: Frames not in use.
        self._free: asyncio.Queue[IoBuffer] = asyncio.Queue()
        for frame in frames:
            self._free.put_nowait(frame)

    async def write_stamped(self, number: int) -> None:
        """Fill frame ``number`` of the file with its number."""
        frame = await self._free.get()
        try:
            frame.view[: _STAMP.size] = _STAMP.pack(number)
            offset = number * frame.size
            rc = await self.ring.write_fixed(FILE, offset, frame, flags=FIXED)
            whole(rc, frame.size, f"write at {offset}")
        finally:
            self._free.put_nowait(frame)

    async def read_and_check(self, number: int) -> None:
        """Read frame ``number`` and check the number in it."""
        frame = await self._free.get()
        try:
            offset = number * frame.size
            rc = await self.ring.read_fixed(FILE, offset, frame, flags=FIXED)
            whole(rc, frame.size, f"read at {offset}")
            (found,) = _STAMP.unpack_from(frame.view)
            if found != number:
                raise SystemExit(f"frame {number} holds {found}")
        finally:
            self._free.put_nowait(frame)

    async def write_last_and_sync(self, number: int) -> None:
        """Write one more frame and a linked fdatasync in one submission.

        The sync covers every write that had completed when it began: this one by the link, the
        others because the caller awaited them.  A short write would break the link.
        """
        frame = await self._free.get()
        try:
            frame.view[: _STAMP.size] = _STAMP.pack(number)
            write = ops.write_fixed(FILE, number * frame.size, frame, flags=FIXED)
            written, synced = self.ring.chain(write, ops.fsync(FILE, data_only=True, flags=FIXED))
            whole(await written, frame.size, "last write")
            check_rc(await synced, "fdatasync")
        finally:
            self._free.put_nowait(frame)


def whole(rc: int, size: int, what: str) -> None:
    """Raise unless all of it was moved; a store would continue with the rest."""
    if check_rc(rc, what) != size:
        raise SystemExit(f"{what}: {rc} of {size} bytes")


async def at_depth(
    depth: int, work: Callable[[int], Coroutine[Any, Any, None]], numbers: Iterable[int]
) -> None:
    """Do ``work`` for each number, ``depth`` at a time."""
    left = iter(numbers)

    async def worker() -> None:
        for number in left:
            await work(number)

    await asyncio.gather(*(worker() for _ in range(depth)))


async def demonstrate(path: str, *, frames: int, frame_size: int, depth: int) -> Ring:
    """Write, sync, read back; return the ring, closed, for its figures."""
    ring = Ring(max(2 * depth, 8), loop=asyncio.get_running_loop())
    direct = getattr(os, "O_DIRECT", 0)
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | direct, 0o600)
    except OSError:  # a file system without O_DIRECT
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    slab = Slab(frame_size, depth)
    index = ring.register_slab(slab)
    ring.register_files([file])
    try:
        fixed = FixedFile(ring, [slab.frame(number, index) for number in range(depth)])
        started = time.perf_counter()
        await at_depth(depth, fixed.write_stamped, range(frames - 1))
        await fixed.write_last_and_sync(frames - 1)
        told("wrote and synced", frames * frame_size, started)
        numbers = list(range(frames))
        random.Random(1).shuffle(numbers)  # noqa: S311 - repeatable
        started = time.perf_counter()
        await at_depth(depth, fixed.read_and_check, numbers)
        told("read and checked", frames * frame_size, started)
    finally:
        await ring.aclose()
        os.close(file)
    return ring


def told(what: str, size: int, started: float) -> None:
    """Print what was moved, and how fast."""
    seconds = time.perf_counter() - started
    print(f"{what} {size / 1e6:.0f} MB in {seconds:.3f} s")


def main() -> None:
    """Demonstrate in the directory named on the command line."""
    parser = argparse.ArgumentParser(description="Fixed-buffer I/O without a store")
    parser.add_argument("directory", nargs="?", default="/var/tmp", help="on the disk to use")
    parser.add_argument("--frames", type=int, default=256)
    parser.add_argument("--frame-size", type=int, default=524288)
    parser.add_argument("--depth", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uringblob-ring-", dir=options.directory) as directory:
        ring = asyncio.run(
            demonstrate(
                os.path.join(directory, "ring.bin"),
                frames=options.frames,
                frame_size=options.frame_size,
                depth=options.depth,
            )
        )
    stats = ring.stats()
    print(f"{stats.completed} operations, {stats.enters} calls of io_uring_enter")


if __name__ == "__main__":
    main()
