"""Which request moves given frames most cheaply.

Contiguous registered memory: one ``READ_FIXED`` or ``WRITE_FIXED``, on every kernel.  Scattered
registered frames: ``READV_FIXED`` or ``WRITEV_FIXED`` where the kernel has them (6.15, asked by
probe).  Anything else: ``READ`` and ``WRITE``, ``READV`` and ``WRITEV``; the kernel then pins the
pages for each request anew (19 against 8 µs of CPU for 512 KiB; Linux 6.18).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from uringblob.buffers.iobuf import IoBuffer
from uringblob.ring import Op, Opcode, Ring, SqeFlags
from uringblob.ring import ops as _ops

#: The store's file, as the ring knows it.
FILE: Final = 0
_FIXED_FILE: Final = int(SqeFlags.FIXED_FILE)


class _OneFrame(Protocol):
    def __call__(self, file: int, offset: int, frame: IoBuffer, *, flags: int) -> Op: ...


class _ManyFrames(Protocol):
    def __call__(self, file: int, offset: int, frames: Sequence[IoBuffer], *, flags: int) -> Op: ...


class _Direction(NamedTuple):
    """The four requests of one direction, and the opcodes of the two that a kernel may lack."""

    fixed: _OneFrame
    plain: _OneFrame
    gather_fixed: _ManyFrames
    gather: _ManyFrames
    plain_opcode: Opcode
    gather_fixed_opcode: Opcode


READ: Final = _Direction(
    _ops.read_fixed, _ops.read, _ops.readv_fixed, _ops.readv, Opcode.READ, Opcode.READV_FIXED
)
WRITE: Final = _Direction(
    _ops.write_fixed, _ops.write, _ops.writev_fixed, _ops.writev, Opcode.WRITE, Opcode.WRITEV_FIXED
)


class OpcodeChooser:
    """Chooses the cheapest request that this kernel has for given frames."""

    __slots__ = ("_direction", "_has_gather_fixed", "_has_plain")

    def __init__(self, ring: Ring, direction: _Direction) -> None:
        self._direction = direction
        self._has_plain = ring.supports(direction.plain_opcode)
        self._has_gather_fixed = ring.supports(direction.gather_fixed_opcode)

    def op(self, offset: int, frames: Sequence[IoBuffer]) -> Op:
        """Return one request for all of ``frames``, in order."""
        direction = self._direction
        stretches = join_neighbours(frames)
        if len(stretches) == 1:
            stretch = stretches[0]
            if stretch.buf_index >= 0:
                op = direction.fixed(FILE, offset, stretch, flags=_FIXED_FILE)
                return op._replace(keep=tuple(frames))
            if self._has_plain:
                op = direction.plain(FILE, offset, stretch, flags=_FIXED_FILE)
                return op._replace(keep=tuple(frames))
        registered = len({stretch.buf_index for stretch in stretches}) == 1 and stretches[0].buf_index >= 0
        gather = direction.gather_fixed if registered and self._has_gather_fixed else direction.gather
        op = gather(FILE, offset, stretches, flags=_FIXED_FILE)
        return op._replace(keep=(op.keep, tuple(frames)))


def join_neighbours(frames: Sequence[IoBuffer]) -> list[IoBuffer]:
    """Return ``frames`` with those that follow each other in memory made one.

    A joined frame has the view of its first part only, so keep ``frames`` too.
    """
    joined: list[IoBuffer] = []
    first: IoBuffer | None = None
    end = 0
    for frame in frames:
        _, address, size, buf_index = frame
        if first is not None and address == end and buf_index == first.buf_index:
            end += size
            continue
        if first is not None:
            joined.append(_until(first, end))
        first, end = frame, address + size
    if first is not None:
        joined.append(_until(first, end))
    return joined


def _until(first: IoBuffer, end: int) -> IoBuffer:
    """Return the stretch that begins as ``first`` does and ends before the address ``end``."""
    size = end - first.address
    return first if size == first.size else first._replace(size=size)
