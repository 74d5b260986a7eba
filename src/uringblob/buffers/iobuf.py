"""One stretch of memory that an engine may move: a frame, or a part of one."""

from __future__ import annotations

from typing import Final, NamedTuple

#: One gathered request holds at most this many buffers (UIO_MAXIOV) ...
GATHER_PIECES_MAX: Final = 1024
#: ... and this many bytes (the kernel's MAX_RW_COUNT, on 4 KiB pages).
GATHER_BYTES_MAX: Final = 0x7FFFF000


class IoBuffer(NamedTuple):
    """Memory with its address, kept alive by ``view``.

    ``buf_index`` is the index of the registered buffer that it lies in, or -1.
    """

    view: memoryview
    address: int
    size: int
    buf_index: int = -1

    def part(self, start: int, stop: int) -> IoBuffer:
        """Return the bytes ``start`` to ``stop`` of this frame as a frame of their own."""
        return IoBuffer(self.view[start:stop], self.address + start, stop - start, self.buf_index)
