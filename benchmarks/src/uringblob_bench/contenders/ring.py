"""The bare ``uringblob.ring.Ring`` on a plain file: what asyncio over io_uring gives without a store."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from uringblob.ring import Ring, SqeFlags
from uringblob.slab import IoBuffer, Slab
from uringblob_bench.contenders.base import TaskContender
from uringblob_bench.contenders.ring_sync import STRATEGIES
from uringblob_bench.drive import TaskCall
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.memory_kind import small_pages
from uringblob_bench.picker import Picker
from uringblob_bench.workdir import WorkDir, direct_flag, noise

FIXED = SqeFlags.FIXED_FILE


class BareRing(TaskContender):
    """Fixed buffers, a registered file; ``params.sync`` is how a batch becomes durable."""

    name = "bare ring"
    #: Frames of the session's memory beside those of the loads.
    spare_frames = 0

    def __init__(self, params: Params, workdir: WorkDir) -> None:
        super().__init__(params, workdir)
        self.durability = STRATEGIES[params.sync].__doc__ or ""
        self._enters = 0

    def settings(self) -> dict[str, Any]:
        return {
            "fixed buffers": self.params.registered,
            "huge pages": self.params.huge,
            "loop": self.params.loop,
            "wake-up": self.params.wakeup,
            "sync": self.params.sync,
            "direct_io": bool(direct_flag(self.workdir.raw_file(self.params.data_bytes))),
        }

    def prepare(self) -> None:
        self.workdir.raw_file(self.params.data_bytes)

    def extra(self) -> dict[str, Any]:
        return {"ring_enters": self._enters}

    @contextlib.asynccontextmanager
    async def session(self, loads: Sequence[Load]) -> AsyncGenerator[Callable[[Load, int], TaskCall], None]:
        path = self.workdir.raw_file(self.params.data_bytes)
        descriptor = os.open(path, os.O_RDWR | direct_flag(path))
        in_flight = sum(load.in_flight for load in loads)
        ring = Ring(256, loop=asyncio.get_running_loop())
        try:
            ring.register_files([descriptor])
            memory = RingMemory(ring, self.params, in_flight + self.spare_frames)
            yield self.calls(ring, memory)
            self._enters = ring.enters
        finally:
            await ring.aclose()
            os.close(descriptor)

    def calls(self, ring: Ring, memory: RingMemory) -> Callable[[Load, int], TaskCall]:
        """Return what makes a worker's call."""
        return lambda load, number: self._call(ring, memory, load, number)

    def _call(self, ring: Ring, memory: RingMemory, load: Load, number: int) -> TaskCall:
        size = self.params.page_size
        one = Picker(self.params.frames, seed=number).one
        frames = memory.take(load.frames)
        if load.verb is Verb.READ:
            (frame,) = frames
            read = ring.read_fixed if self.params.registered else ring.read
            return lambda: _whole(read(0, one() * size, frame, flags=FIXED), size)
        if load.verb is Verb.WRITE:
            write = ring.write_fixed if self.params.registered else ring.write

            async def scattered() -> None:
                for wrote in [write(0, one() * size, frame, flags=FIXED) for frame in frames]:
                    await _whole(wrote, size)

            return scattered
        strategy = STRATEGIES[self.params.sync]
        runs = max(self.params.frames // load.frames, 1)
        first = Picker(runs, seed=number).one
        return lambda: strategy(ring, frames, first() * load.frames * size)


async def _whole(operation: Any, size: int) -> None:
    got = await operation
    if got != size:
        raise OSError(f"the kernel answered {got} instead of {size}")


class RingMemory:
    """Frames side by side in one slab, registered with a ring, handed out one after the other."""

    def __init__(self, ring: Ring, params: Params, count: int) -> None:
        with small_pages(not params.huge):
            self._slab = Slab(params.page_size, count)
            content = noise(params.page_size)
            for index in range(count):
                self._slab.frame(index).view[:] = content
            self._index = ring.register_slab(self._slab) if params.registered else -1
        self._taken = 0

    def take(self, count: int) -> list[IoBuffer]:
        """Return the next ``count`` frames."""
        first, self._taken = self._taken, self._taken + count
        return [self._slab.frame(index, self._index) for index in range(first, first + count)]
