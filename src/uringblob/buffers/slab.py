"""One mapping on huge pages, cut into frames.

Checked on Linux 6.18: a slab aligned to 2 MiB with ``MADV_HUGEPAGE`` moves twice the bytes a
second of the same slab in 4 KiB pages, because a frame is then one physical extent and not
128 of them.  Where the advice does not exist or is refused, the slab works and is slower;
:attr:`Slab.huge` says which.
"""

from __future__ import annotations

import functools
import mmap
import sys
from collections.abc import Callable
from typing import Any

from uringblob.buffers.iobuf import IoBuffer, address_of, ffi
from uringblob.owner import Owner

#: Transparent huge pages are 2 MiB on x86-64 and on arm64 with 4 KiB base pages.
HUGE_PAGE_SIZE = 2 * 1024 * 1024

_POINTER = ffi.typeof("unsigned char *")


class Slab(Owner):
    """``count`` frames of ``frame_size`` bytes each in one private, zero-filled mapping.

    ``address`` is a multiple of 2 MiB; ``size`` is ``frame_size * count`` bytes.
    The mapping lives as long as the slab or any exporter does.  Any thread may use it.

    :raises ValueError: ``frame_size`` or ``count`` is not positive.
    :raises OSError: there is no memory for it.
    """

    __slots__ = ("__weakref__", "_frames", "_map", "_skip", "address", "count", "frame_size", "huge", "size")

    def __init__(self, frame_size: int, count: int) -> None:
        if frame_size <= 0 or count <= 0:
            raise ValueError(f"a slab needs frames: {count} of {frame_size} bytes asked for")
        self.frame_size = frame_size
        self.count = count
        self.size = frame_size * count
        whole = -(-self.size // HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE
        # One huge page more than needed, so that it holds an aligned range wherever it is mapped.
        memory = mmap.mmap(-1, whole + HUGE_PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = address_of(ffi.from_buffer(memory))
        skip = -start % HUGE_PAGE_SIZE
        self.address = start + skip
        self.huge = _advise_huge(memory, skip, whole)
        self._map = memory
        self._skip = skip
        self._frames = memoryview(memory)[skip : skip + self.size]

    def exporter(self, index: int, on_free: Callable[[int, Any], object]) -> Any:
        """Return an object that exports frame ``index``, writable, as format ``B``.

        It can be weakly referenced.  When it and the last view made of it are freed,
        ``on_free(index, frame)`` is called, once, in any thread; ``frame`` is to be ignored.  It
        must take no lock, and should be a method written in C, such as ``dict.pop``: then no
        signal handler can run between the destructor and the call.

        :raises IndexError: there is no such frame.
        """
        start = self._start_of(index)
        ended = functools.partial(on_free, index)
        # The destructor keeps the mapping alive.  Not from_buffer() of a memoryview: where a garbage
        # cycle holds one, CPython clears the view before cffi lets go of it, which crashes the
        # interpreter (CPython 3.11.7, cffi 2.1.1).
        ended.mapping = self._map  # type: ignore[attr-defined]
        frame = ffi.cast(_POINTER, self.address + start)
        return ffi.buffer(ffi.gc(frame, ended), self.frame_size)

    def frame(self, index: int, buf_index: int = -1) -> IoBuffer:
        """Return frame ``index`` for direct use, without a lease.

        ``buf_index`` is what :meth:`uringblob.ring.Ring.register_slab` returned.

        :raises IndexError: there is no such frame.
        """
        start = self._start_of(index)
        view = self._frames[start : start + self.frame_size]
        return IoBuffer(view, self.address + start, self.frame_size, buf_index)

    def discard(self, first: int) -> None:
        """Return the memory of frame ``first`` and those after it to the system.

        They stay usable and are zero again.  Nothing may be leased of them.
        """
        start = self._skip + first * self.frame_size
        start += -start % mmap.PAGESIZE
        if start < self._skip + self.size and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start, self._skip + self.size - start)

    def _start_of(self, index: int) -> int:
        if not 0 <= index < self.count:
            raise IndexError(f"frame {index} of a slab of {self.count}")
        return index * self.frame_size

    def __repr__(self) -> str:
        pages = "huge pages" if self.huge else "small pages"
        return f"<Slab {self.count} x {self.frame_size} bytes at {self.address:#x}, {pages}>"


def _advise_huge(memory: mmap.mmap, start: int, size: int) -> bool:
    """Request huge pages; return whether the system granted them."""
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None or not sys.platform.startswith("linux"):
        return False
    try:
        memory.madvise(advice, start, size)
    except OSError:  # A kernel built without them answers EINVAL: slower, not wrong.
        return False
    return True
