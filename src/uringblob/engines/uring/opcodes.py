"""The cheapest request for given frames.

Contiguous registered memory: one ``READ_FIXED`` or ``WRITE_FIXED``, on every kernel.  Scattered
registered frames: ``READV_FIXED`` or ``WRITEV_FIXED`` where the kernel has them (6.15, by probe).
Other memory: ``READ`` and ``WRITE``, ``READV`` and ``WRITEV``; the kernel then pins the pages anew for
each request (19 against 8 µs of CPU for 512 KiB; Linux 6.18).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from uringblob.buffers.iobuf import IoBuffer
from uringblob.ring import Op, Opcode, Ring, SqeFlags
from uringblob.ring import ops as _ops

#: The index of the store's file among the ring's registered files.
FILE: Final = 0
_FIXED_FILE: Final = int(SqeFlags.FIXED_FILE)


class _Direction(NamedTuple):
    """The four requests of one direction, and the opcodes of the two that a kernel may lack."""

    fixed: Callable[..., Op]
    plain: Callable[..., Op]
    gather_fixed: Callable[..., Op]
    gather: Callable[..., Op]
    plain_opcode: Opcode
    gather_fixed_opcode: Opcode


READ: Final = _Direction(
    _ops.read_fixed, _ops.read, _ops.readv_fixed, _ops.readv, Opcode.READ, Opcode.READV_FIXED
)
WRITE: Final = _Direction(
    _ops.write_fixed, _ops.write, _ops.writev_fixed, _ops.writev, Opcode.WRITE, Opcode.WRITEV_FIXED
)


class OpcodeChooser:
    """Chooses the cheapest request of this kernel for given frames, in one direction."""

    __slots__ = ("_direction", "_has_gather_fixed", "_has_plain")

    def __init__(self, ring: Ring, direction: _Direction) -> None:
        self._direction = direction
        self._has_plain = ring.supports(direction.plain_opcode)
        self._has_gather_fixed = ring.supports(direction.gather_fixed_opcode)

    def op(self, offset: int, frames: Sequence[IoBuffer]) -> Op:
        """Return one request for all of ``frames``, in order."""
        direction = self._direction
        joined = join_neighbours(frames)
        first = joined[0]
        if len(joined) == 1 and (first.buf_index >= 0 or self._has_plain):
            one = direction.fixed if first.buf_index >= 0 else direction.plain
            return one(FILE, offset, first, flags=_FIXED_FILE)._replace(keep=tuple(frames))
        registered = first.buf_index >= 0 and len({buffer.buf_index for buffer in joined}) == 1
        gather = direction.gather_fixed if registered and self._has_gather_fixed else direction.gather
        op = gather(FILE, offset, joined, flags=_FIXED_FILE)
        return op._replace(keep=(op.keep, tuple(frames)))


def join_neighbours(frames: Sequence[IoBuffer]) -> list[IoBuffer]:
    """Return ``frames`` with those adjacent in memory joined.

    A joined buffer has the view of its first frame only, so keep ``frames`` alive too.
    """
    if len(frames) == 1:
        return [frames[0]]
    starts: list[IoBuffer] = []
    ends: list[int] = []
    end = buf_index = -1
    for frame in frames:
        _, address, size, index = frame
        adjacent = address == end and index == buf_index
        end, buf_index = address + size, index
        if adjacent:
            ends[-1] = end
        else:
            starts.append(frame)
            ends.append(end)
    return [
        start if end - start.address == start.size else start._replace(size=end - start.address)
        for start, end in zip(starts, ends, strict=True)
    ]
