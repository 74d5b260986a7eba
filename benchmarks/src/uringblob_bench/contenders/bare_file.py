"""What the programs of the floor share: a file on a bare ring, and the checksums of a store."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from uringblob.checksums import frame_checksum
from uringblob.completion import Completion
from uringblob.ring import Ring
from uringblob.slab import IoBuffer
from uringblob_bench.contenders.ring import FIXED, RingMemory
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.picker import Picker

BLOCK = 4096
#: The part of the file that log blocks go to, in turn.
_LOG_BYTES = 1 << 20
# Packing a plain int costs less.
FLAGS = int(FIXED)


class BareFile:
    """The operations of one session, on registered frames of its memory."""

    def __init__(self, ring: Ring, memory: RingMemory, params: Params) -> None:
        self.params = params
        self.memory = memory
        self.ring = ring
        self._read, self._write = ring.read, ring.write
        if params.registered:
            self._read, self._write = ring.read_fixed, ring.write_fixed
        (frame,) = memory.take(1)
        self._block = IoBuffer(frame.view[:BLOCK], frame.address, BLOCK, frame.buf_index)
        self._log = itertools.cycle(range(0, min(params.data_bytes, _LOG_BYTES), BLOCK)).__next__

    def read(self, number: int, frame: IoBuffer) -> Completion[int]:
        return self._read(0, number * frame.size, frame, flags=FLAGS)

    def write(self, number: int, frame: IoBuffer) -> Completion[int]:
        frame_checksum(frame.view)
        return self._write(0, number * frame.size, frame, flags=FLAGS)

    def write_block(self) -> Completion[int]:
        return self._write(0, self._log(), self._block, flags=FLAGS)

    def sync(self) -> Completion[int]:
        return self.ring.fsync(0, data_only=True, flags=FLAGS)

    def numbers(self, load: Load, worker: int) -> Callable[[], Sequence[int]]:
        """Return what chooses the frames of the next call; those of a durable batch lie side by side."""
        count, frames = load.frames, self.params.frames
        if load.verb is not Verb.BATCH or count == 1:
            some = Picker(frames, seed=worker).some
            return lambda: some(count)
        runs = [range(first, first + count) for first in range(0, frames - count + 1, count)]
        one = Picker(len(runs), seed=worker).one
        return lambda: runs[one()]


def whole(got: int, size: int) -> None:
    """Refuse another answer of the kernel's than ``size``."""
    if got != size:
        raise OSError(f"the kernel answered {got} instead of {size}")
