"""A device without latency: reads are NOPs that the kernel ends at once, with the result of a whole read.

What is left is the program's own.  A NOP carries its result from Linux 6.10 on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from uringblob.completion import Completion
from uringblob.ring import Op, Opcode, Ring
from uringblob.slab import IoBuffer
from uringblob_bench.contenders.bare_file import FLAGS, BareFile
from uringblob_bench.contenders.base import CannotRun
from uringblob_bench.contenders.floor import BareAsyncio, Tasks
from uringblob_bench.contenders.ring import RingMemory
from uringblob_bench.contenders.store import AsyncStore, StoreFiller
from uringblob_bench.load import MIB, Load, Params
from uringblob_bench.sample import Sample
from uringblob_bench.workdir import WorkDir

NO_DEVICE = "no device"
#: ``IORING_NOP_INJECT_RESULT`` of ``linux/io_uring.h``.
_INJECT_RESULT = 1
#: Nothing is read of most of it.
_FILE_BYTES = 64 * MIB


def check_nops() -> None:
    """Make sure that a NOP carries its result.

    :raises CannotRun: it does not.
    """
    ring = Ring(8)
    try:
        (answer,) = ring.submit([Op(Opcode.NOP, op_flags=_INJECT_RESULT, length=1)])
        if ring.wait(answer) != 1:
            raise CannotRun("a NOP of this kernel carries no result: Linux 6.10 has it")
    finally:
        ring.close()


class _Reads:
    """Reads into each piece of memory once, and only claims to from then on."""

    def __init__(self) -> None:
        self._filled: set[int] = set()
        self._nops: dict[int, list[Op]] = {}
        self._real = Ring.read_fixed
        self.seen = False

    def read(
        self, ring: Ring, file: int, offset: int, buffer: IoBuffer, *, flags: int = 0, submit: bool = False
    ) -> Completion[int]:
        self.seen = True
        if buffer.address not in self._filled:
            self._filled.add(buffer.address)
            return self._real(ring, file, offset, buffer, flags=flags, submit=submit)
        size = buffer.size
        nop = self._nops.get(size)
        if nop is None:
            nop = self._nops[size] = [Op(Opcode.NOP, op_flags=_INJECT_RESULT, length=size)]
        return ring.submit(nop, submit=submit)[0]


class _NoDevice(BareFile):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._reads = _Reads()

    def read(self, number: int, frame: IoBuffer) -> Completion[int]:
        return self._reads.read(self.ring, 0, number * frame.size, frame, flags=FLAGS)


class BareNops(BareAsyncio):
    """Reads of bare asyncio."""

    name = f"bare asyncio, {NO_DEVICE}"

    def prepare(self) -> None:
        """Make the file, if there can be NOPs."""
        check_nops()
        super().prepare()

    def calls(self, ring: Ring, memory: RingMemory) -> Callable[[Load, int], Any]:
        """Return what makes a worker's call."""
        return Tasks(_NoDevice(ring, memory, self.params)).call


class StoreNops(AsyncStore):
    """Reads of a store of its own, whose blobs are alike: what a buffer has from one of them is right for all."""

    def __init__(self, params: Params, workdir: WorkDir) -> None:
        params = dataclasses.replace(params, file_bytes=min(params.file_bytes, _FILE_BYTES))
        super().__init__(params, workdir)
        self.filler = StoreFiller(params, workdir, "io_uring", "alike")
        self.name = f"store, {NO_DEVICE}"

    def prepare(self) -> None:
        """Make the store, if there can be NOPs."""
        check_nops()
        super().prepare()

    def turn(self, loads: Sequence[Load], seconds: float) -> list[Sample]:
        """Serve ``loads``.

        :raises CannotRun: the store reads in another way.
        """
        seen: set[int] = set()
        real = Ring.stage

        def stage(
            ring: Ring, sink: Any, opcode: int, op_flags: int, buf_index: int, address: int, *rest: int
        ) -> int:
            if opcode == Opcode.READ_FIXED and address in seen:
                return real(ring, sink, Opcode.NOP, _INJECT_RESULT, 0, address, *rest)
            if opcode == Opcode.READ_FIXED:
                seen.add(address)
            return real(ring, sink, opcode, op_flags, buf_index, address, *rest)

        with mock.patch.object(Ring, "stage", stage):
            samples = super().turn(loads, seconds)
        if not seen:
            raise CannotRun("the store does not read by Ring.stage, so there is a device")
        return samples
