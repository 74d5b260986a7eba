"""One operation as data: what becomes a submission queue entry.

The functions here only describe; :meth:`uringblob.ring.Ring.submit` and ``Ring.chain`` send.
Numbers are the kernel's (``linux/io_uring.h``), written down here because an opcode newer than
the liburing of the build machine works all the same; ask :meth:`Ring.supports`.
"""

from __future__ import annotations

import enum
import struct
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from uringblob.buffers.iobuf import IoBuffer, address_of, ffi

_NUMBERS = ffi.typeof("size_t[]")


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

#: A gathered request holds at most this many pieces (UIO_MAXIOV).
GATHER_PIECES_MAX: Final = 1024
#: One request moves at most this many bytes (the kernel's MAX_RW_COUNT, on 4 KiB pages).
REQUEST_SIZE_MAX: Final = 0x7FFFF000

# Plain ints: a flag made of members goes through Python code at each "or" and "and".
_IO_LINK: Final = int(SqeFlags.IO_LINK)
_LINKS: Final = int(SqeFlags.IO_LINK | SqeFlags.IO_HARDLINK)
#: ``struct ub_op``.
_PACKING = struct.Struct("=QQQIiIHBB")
OP_SIZE: Final = _PACKING.size
_FLAGS_AT: Final = OP_SIZE - 1


class Op(NamedTuple):
    """An operation not sent yet.  ``keep`` is kept alive until its completion."""

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
        """Whether the operation after this one hangs on it."""
        return bool(int(self.flags) & _LINKS)

    def link(self) -> Op:
        """Return this operation with ``IO_LINK``."""
        return self._replace(flags=int(self.flags) | _IO_LINK)


class TracedOp(NamedTuple):
    """An operation as it goes to the kernel, for :attr:`Ring.trace`."""

    user_data: int
    op: Op


pack = _PACKING.pack


def traced(packed: bytes) -> TracedOp:
    """Take a packed operation apart again."""
    user_data, address, offset, length, file, op_flags, buf_index, opcode, flags = _PACKING.unpack(packed)
    return TracedOp(user_data, Op(opcode, flags, file, offset, address, length, op_flags, buf_index))


def is_linked(packed: bytes) -> bool:
    """Whether the operation after this packed one hangs on it."""
    return bool(packed[_FLAGS_AT] & _LINKS)


def user_data_of(packed: bytes) -> int:
    """Return the ``user_data`` of a packed operation."""
    return int.from_bytes(packed[:8], sys.byteorder)


def nop(*, flags: int = 0) -> Op:
    """Do nothing; yields 0."""
    return Op(Opcode.NOP, flags)


def read(file: int, offset: int, frame: IoBuffer, *, flags: int = 0) -> Op:
    """Read into any memory (Linux 5.6); yields bytes read, 0 at the end of the file."""
    return Op(Opcode.READ, flags, file, offset, frame.address, frame.size, keep=frame.view)


def write(file: int, offset: int, frame: IoBuffer, *, flags: int = 0) -> Op:
    """Write any memory (Linux 5.6); yields bytes written."""
    return Op(Opcode.WRITE, flags, file, offset, frame.address, frame.size, keep=frame.view)


def read_fixed(file: int, offset: int, frame: IoBuffer, *, flags: int = 0) -> Op:
    """Read into registered memory; yields bytes read, 0 at the end of the file."""
    return _fixed(Opcode.READ_FIXED, file, offset, frame, flags)


def write_fixed(file: int, offset: int, frame: IoBuffer, *, flags: int = 0) -> Op:
    """Write registered memory; yields bytes written."""
    return _fixed(Opcode.WRITE_FIXED, file, offset, frame, flags)


def readv_fixed(file: int, offset: int, frames: Sequence[IoBuffer], *, flags: int = 0) -> Op:
    """Read into pieces of one registered buffer (Linux 6.15); yields bytes read."""
    return _vector(Opcode.READV_FIXED, file, offset, frames, flags, _same_buffer(frames))


def writev_fixed(file: int, offset: int, frames: Sequence[IoBuffer], *, flags: int = 0) -> Op:
    """Write pieces of one registered buffer, in order (Linux 6.15); yields bytes written."""
    return _vector(Opcode.WRITEV_FIXED, file, offset, frames, flags, _same_buffer(frames))


def readv(file: int, offset: int, frames: Sequence[IoBuffer], *, flags: int = 0) -> Op:
    """Read into any memory, piece by piece; yields bytes read, 0 at the end of the file."""
    return _vector(Opcode.READV, file, offset, frames, flags, 0)


def writev(file: int, offset: int, frames: Sequence[IoBuffer], *, flags: int = 0) -> Op:
    """Write any memory, piece by piece, in order; yields bytes written."""
    return _vector(Opcode.WRITEV, file, offset, frames, flags, 0)


def fsync(file: int, *, data_only: bool = False, flags: int = 0) -> Op:
    """fsync, or fdatasync if ``data_only``; yields 0.

    It covers what completed before it began: link it to a write, or await the write first.
    """
    return Op(Opcode.FSYNC, flags, file, op_flags=FSYNC_DATASYNC if data_only else 0)


def fallocate(file: int, offset: int, size: int, *, flags: int = 0) -> Op:
    """Allocate ``size`` bytes of blocks from ``offset`` on, lengthening the file; yields 0."""
    return Op(Opcode.FALLOCATE, flags, file, offset, address=size)


def _fixed(opcode: Opcode, file: int, offset: int, frame: IoBuffer, flags: int) -> Op:
    view, address, size, buf_index = frame
    if buf_index < 0:
        raise ValueError(f"{opcode.name} needs registered memory: register the slab, or use readv or writev")
    return Op(opcode, flags, file, offset, address, size, 0, buf_index, view)


def _same_buffer(frames: Sequence[IoBuffer]) -> int:
    indexes = {frame.buf_index for frame in frames}
    if len(indexes) != 1 or min(indexes) < 0:
        raise ValueError(f"the pieces must lie in one registered buffer, not in {sorted(indexes)}")
    return indexes.pop()


def _vector(
    opcode: Opcode, file: int, offset: int, frames: Sequence[IoBuffer], flags: int, buf_index: int
) -> Op:
    size = sum(frame.size for frame in frames)
    if not 0 < len(frames) <= GATHER_PIECES_MAX or size > REQUEST_SIZE_MAX:
        raise ValueError(
            f"{opcode.name} of {len(frames)} pieces and {size} bytes: a request holds 1 to "
            f"{GATHER_PIECES_MAX} pieces and at most {REQUEST_SIZE_MAX} bytes"
        )
    # An array of struct iovec: address and size, one machine word each.
    vector = ffi.new(_NUMBERS, [number for frame in frames for number in (frame.address, frame.size)])
    return Op(
        opcode, flags, file, offset, address_of(vector), len(frames), 0, buf_index, (vector, tuple(frames))
    )


OUT_OF_RANGE: Final = (
    "a number is out of range: offset and size must not be negative, "
    "and fixed operations need memory of the registered slab"
)


def packed_op(user_data: int, op: Op) -> bytes:
    """Pack an operation for C.

    :raises ValueError: a number is out of range.
    """
    opcode, flags, file, offset, address, length, op_flags, buf_index, _ = op
    try:
        return pack(user_data, address, offset, length, file, op_flags, buf_index, opcode, flags)
    except struct.error as error:
        raise ValueError(OUT_OF_RANGE) from error


def check_chains(ops: Sequence[Op], chain_max: int) -> None:
    """Raise ``ValueError`` for a chain that is too long, or linked to nothing at its end."""
    if not any(int(op.flags) & _LINKS for op in ops):
        return
    length = 0
    for op in ops:
        length += 1
        if length > chain_max:
            raise ValueError(f"a chain of more than {chain_max} operations does not fit the submission queue")
        if not op.linked:
            length = 0
    if length:
        flags = SqeFlags(ops[-1].flags)
        raise ValueError(f"the last operation has {flags!r}, but none follows")
