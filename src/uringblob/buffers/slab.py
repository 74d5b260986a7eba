"""One stretch of huge-page memory, cut into frames.

Checked on Linux 6.18: a slab aligned to 2 MiB with ``MADV_HUGEPAGE`` moves twice the bytes a
second of the same slab in 4 KiB pages, because a frame is then one physical stretch and not
128 of them.  Where the advice does not exist or is refused, the slab works and is slower;
:attr:`Slab.huge` says which.

A frame is handed out through an *exporter*, an object whose own end means that no view of the
frame is left.  ``memoryview.release()`` cannot tell: it succeeds while a slice, a cast or a
NumPy array made from the view still lives.
"""

from __future__ import annotations

import functools
import mmap
import sys
from collections.abc import Callable
from typing import Any

import cffi

from uringblob.buffers.iobuf import IoBuffer
from uringblob.owner import Owner

#: Transparent huge pages are 2 MiB on x86-64 and on arm64 with 4 KiB base pages.
HUGE_PAGE_SIZE = 2 * 1024 * 1024

_ffi = cffi.FFI()
# Parsed now: cffi parses a type at its first use, under a lock, and a signal handler that interrupts
# that and comes here itself would wait for ever.
_ADDRESS = _ffi.typeof("uintptr_t")
_POINTER = _ffi.typeof("unsigned char *")


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
        # One huge page more than needed, so that an aligned stretch lies in it wherever it lands.
        memory = mmap.mmap(-1, whole + HUGE_PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        start = int(_ffi.cast(_ADDRESS, _ffi.from_buffer(memory)))
        skip = -start % HUGE_PAGE_SIZE
        self.address = start + skip
        self.huge = _advise_huge(memory, skip, whole)
        self._map = memory
        self._skip = skip
        self._frames = memoryview(memory)[skip : skip + self.size]

    def exporter(self, index: int, on_free: Callable[[int, Any], object]) -> Any:
        """Return an object that exports frame ``index``, writable, as format ``B``.

        It can be weakly referenced.  When it and the last view made of it have died,
        ``on_free(index, frame)`` is called, once, in whatever thread that happens; ``frame`` is of
        no use.  It must take no lock, and should be a method written in C, such as ``dict.pop``:
        then no signal handler can come between the end of the exporter and the call.

        :raises IndexError: there is no such frame.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"frame {index} of a slab of {self.count}")
        ended = functools.partial(on_free, index)
        # The mapping lives as long as what is called at the exporter's end.  Not from_buffer() of a
        # memoryview: where a garbage cycle holds one, CPython clears the view before cffi lets go of
        # it, and that crashes the interpreter (CPython 3.11.7, cffi 2.1.1).
        ended.mapping = self._map  # type: ignore[attr-defined]
        frame = _ffi.cast(_POINTER, self.address + index * self.frame_size)
        return _ffi.buffer(_ffi.gc(frame, ended), self.frame_size)

    def frame(self, index: int, buf_index: int = -1) -> IoBuffer:
        """Return frame ``index`` for direct use; nobody keeps account of who uses it.

        ``buf_index`` is what :meth:`uringblob.ring.Ring.register_slab` returned.

        :raises IndexError: there is no such frame.
        """
        view = self._view(index)
        return IoBuffer(view, self.address + index * self.frame_size, self.frame_size, buf_index)

    def discard(self, first: int) -> None:
        """Give the memory of frame ``first`` and those after it back to the system.

        They stay usable and are zero again.  Nothing may be leased of them.
        """
        start = self._skip + first * self.frame_size
        start += -start % mmap.PAGESIZE
        if start < self._skip + self.size and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start, self._skip + self.size - start)

    def _view(self, index: int) -> memoryview:
        if not 0 <= index < self.count:
            raise IndexError(f"frame {index} of a slab of {self.count}")
        start = index * self.frame_size
        return self._frames[start : start + self.frame_size]

    def __repr__(self) -> str:
        pages = "huge pages" if self.huge else "small pages"
        return f"<Slab {self.count} x {self.frame_size} bytes at {self.address:#x}, {pages}>"


def _advise_huge(memory: mmap.mmap, start: int, size: int) -> bool:
    """Ask for huge pages; false where the system has none to give."""
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None or not sys.platform.startswith("linux"):
        return False
    try:
        memory.madvise(advice, start, size)
    except OSError:  # A kernel built without them answers EINVAL: slower, not wrong.
        return False
    return True
