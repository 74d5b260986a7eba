"""Operations as data: what becomes a submission queue entry.

The functions here only describe; :meth:`uringblob.ring.Ring.submit` and ``Ring.chain`` queue them.
Opcodes are the kernel's numbers (``linux/io_uring.h``), so one newer than the liburing of the build
machine works too; ask :meth:`Ring.supports`.
"""

from __future__ import annotations

import array
import enum
import struct
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from uringblob.buffers.iobuf import GATHER_BYTES_MAX, GATHER_PIECES_MAX, IoBuffer


class Opcode(enum.IntEnum):
    """``IORING_OP_*``, those that are used here."""

    NOP = 0
    READV = 1
    WRITEV = 2
    FSYNC = 3
    READ_FIXED = 4
    WRITE_FIXED = 5
    FALLOCATE = 17
    READ = 22
    WRITE = 23
    FTRUNCATE = 55  # Linux 6.9
    READV_FIXED = 60
    WRITEV_FIXED = 61  # Linux 6.15


class SqeFlags(enum.IntFlag):
    """``IOSQE_*``.

    ``FIXED_FILE``: ``file`` is the index of a registered file.  ``IO_LINK``: the next operation
    begins only when this one has wholly succeeded, and else ends with ``-ECANCELED``; ``submit``
    it together with the next.  ``IO_HARDLINK`` hides a failure: never use it for durability.
    ``IO_DRAIN`` stalls all other operations of the ring.
    """

    NONE = 0
    FIXED_FILE = 1
    IO_DRAIN = 2
    IO_LINK = 4
    IO_HARDLINK = 8
    ASYNC = 16


FSYNC_DATASYNC: Final = 1

# Plain ints: "or" and "and" on enum members run Python code.
_IO_LINK: Final = int(SqeFlags.IO_LINK)
_LINKS: Final = int(SqeFlags.IO_LINK | SqeFlags.IO_HARDLINK)
#: ``struct ub_op``.
_PACKING = struct.Struct("=QQQIiIHBB")
_FLAGS_AT: Final = _PACKING.size - 1


class Op(NamedTuple):
    """An operation that is not queued yet.  ``keep`` is kept alive until its completion."""

    opcode: int
    flags: int = 0
    file: int = -1
    offset: int = 0
    address: int = 0
    length: int = 0
    op_flags: int = 0
    buf_index: int = 0
    keep: object = None

    @property
    def linked(self) -> bool:
        """Whether the next operation depends on this one."""
        return bool(int(self.flags) & _LINKS)

    def link(self) -> Op:
        """Return this operation with ``IO_LINK``."""
        return self._replace(flags=int(self.flags) | _IO_LINK)


class TracedOp(NamedTuple):
    """An operation as submitted, for :attr:`Ring.trace`."""

    user_data: int
    op: Op


pack = _PACKING.pack


def traced(packed: bytes) -> TracedOp:
    """Unpack a packed operation."""
    user_data, address, offset, length, file, op_flags, buf_index, opcode, flags = _PACKING.unpack(packed)
    return TracedOp(user_data, Op(opcode, flags, file, offset, address, length, op_flags, buf_index))


def is_linked(packed: bytes) -> bool:
    """Whether the next operation depends on this packed one."""
    return bool(packed[_FLAGS_AT] & _LINKS)


def user_data_of(packed: bytes) -> int:
    """Return the ``user_data`` of a packed operation."""
    return int.from_bytes(packed[:8], sys.byteorder)


def nop(*, flags: int = 0) -> Op:
    """Do nothing; yields 0."""
    return Op(Opcode.NOP, flags)


def read(file: int, offset: int, buffer: IoBuffer, *, flags: int = 0) -> Op:
    """Read into any memory (Linux 5.6); yields bytes read, 0 at the end of the file."""
    return Op(Opcode.READ, flags, file, offset, buffer.address, buffer.size, keep=buffer.view)


def write(file: int, offset: int, buffer: IoBuffer, *, flags: int = 0) -> Op:
    """Write any memory (Linux 5.6); yields bytes written."""
    return Op(Opcode.WRITE, flags, file, offset, buffer.address, buffer.size, keep=buffer.view)


def read_fixed(file: int, offset: int, buffer: IoBuffer, *, flags: int = 0) -> Op:
    """Read into registered memory; yields bytes read, 0 at the end of the file."""
    return _fixed(Opcode.READ_FIXED, file, offset, buffer, flags)


def write_fixed(file: int, offset: int, buffer: IoBuffer, *, flags: int = 0) -> Op:
    """Write registered memory; yields bytes written."""
    return _fixed(Opcode.WRITE_FIXED, file, offset, buffer, flags)


def readv_fixed(file: int, offset: int, buffers: Sequence[IoBuffer], *, flags: int = 0) -> Op:
    """Read into parts of one registered buffer, in order (Linux 6.15); yields bytes read."""
    return _vector(Opcode.READV_FIXED, file, offset, buffers, flags, _common_index(buffers))


def writev_fixed(file: int, offset: int, buffers: Sequence[IoBuffer], *, flags: int = 0) -> Op:
    """Write parts of one registered buffer, in order (Linux 6.15); yields bytes written."""
    return _vector(Opcode.WRITEV_FIXED, file, offset, buffers, flags, _common_index(buffers))


def readv(file: int, offset: int, buffers: Sequence[IoBuffer], *, flags: int = 0) -> Op:
    """Read into buffers in any memory, in order; yields bytes read, 0 at the end of the file."""
    return _vector(Opcode.READV, file, offset, buffers, flags, 0)


def writev(file: int, offset: int, buffers: Sequence[IoBuffer], *, flags: int = 0) -> Op:
    """Write buffers in any memory, in order; yields bytes written."""
    return _vector(Opcode.WRITEV, file, offset, buffers, flags, 0)


def fsync(file: int, *, data_only: bool = False, flags: int = 0) -> Op:
    """fsync, or fdatasync if ``data_only``; yields 0.

    It covers what completed before it began: link it to a write, or await the write first.
    """
    return Op(Opcode.FSYNC, flags, file, op_flags=FSYNC_DATASYNC if data_only else 0)


def fallocate(file: int, offset: int, size: int, *, mode: int = 0, flags: int = 0) -> Op:
    """Allocate ``size`` bytes of blocks from ``offset`` on, lengthening the file; yields 0.

    ``mode`` is that of ``fallocate(2)``.
    """
    return Op(Opcode.FALLOCATE, flags, file, offset, address=size, length=mode)


def ftruncate(file: int, size: int, *, flags: int = 0) -> Op:
    """Set the file's length to ``size`` bytes; yields 0."""
    return Op(Opcode.FTRUNCATE, flags, file, size)


def _fixed(opcode: Opcode, file: int, offset: int, buffer: IoBuffer, flags: int) -> Op:
    view, address, size, buf_index = buffer
    if buf_index < 0:
        raise ValueError(f"{opcode.name} needs registered memory: register the slab, or use readv or writev")
    return Op(opcode, flags, file, offset, address, size, 0, buf_index, view)


def _common_index(buffers: Sequence[IoBuffer]) -> int:
    indexes = {buffer.buf_index for buffer in buffers}
    if len(indexes) != 1 or min(indexes) < 0:
        raise ValueError(f"the pieces must lie in one registered buffer, not in {sorted(indexes)}")
    return indexes.pop()


def _vector(
    opcode: Opcode, file: int, offset: int, buffers: Sequence[IoBuffer], flags: int, buf_index: int
) -> Op:
    size = sum(buffer.size for buffer in buffers)
    if not 0 < len(buffers) <= GATHER_PIECES_MAX or size > GATHER_BYTES_MAX:
        raise ValueError(
            f"{opcode.name} of {len(buffers)} pieces and {size} bytes: a request holds 1 to "
            f"{GATHER_PIECES_MAX} pieces and at most {GATHER_BYTES_MAX} bytes"
        )
    # An array of struct iovec: address and size, one machine word each ("L" on Linux).
    vector = array.array("L", [word for buffer in buffers for word in (buffer.address, buffer.size)])
    address, _ = vector.buffer_info()
    return Op(opcode, flags, file, offset, address, len(buffers), 0, buf_index, (vector, tuple(buffers)))


OUT_OF_RANGE: Final = (
    "a number is out of range: offset and size must not be negative, "
    "and fixed operations need memory of the registered slab"
)


def packed_op(user_data: int, op: Op) -> bytes:
    """Pack an operation as ``struct ub_op``.

    :raises ValueError: a number is out of range.
    """
    opcode, flags, file, offset, address, length, op_flags, buf_index, _ = op
    try:
        return pack(user_data, address, offset, length, file, op_flags, buf_index, opcode, flags)
    except struct.error as error:
        raise ValueError(OUT_OF_RANGE) from error


def check_chains(ops: Sequence[Op], chain_max: int) -> None:
    """Raise ``ValueError`` for a chain that is too long, or whose last operation is linked."""
    length = 0
    for op in ops:
        length = length + 1 if int(op.flags) & _LINKS else 0
        if length >= chain_max:
            raise ValueError(f"a chain of more than {chain_max} operations does not fit the submission queue")
    if length:
        flags = SqeFlags(ops[-1].flags)
        raise ValueError(f"the last operation has {flags!r}, but none follows")
