"""Memory for one I/O request: its view, address and size."""

from __future__ import annotations

from typing import Any, NamedTuple

import _cffi_backend

#: cffi's compiled core.  ``cffi.FFI()`` would load a C parser, which takes 50 ms, at import.
ffi: Any = _cffi_backend.FFI()
_ADDRESS: Any = ffi.typeof("uintptr_t")


class IoBuffer(NamedTuple):
    """Memory with its address, kept alive by ``view``.

    ``buf_index`` is the index of the registered buffer that it lies in, or -1.
    """

    view: memoryview
    address: int
    size: int
    buf_index: int = -1

    def part(self, start: int, stop: int) -> IoBuffer:
        """Return the bytes ``start`` to ``stop``."""
        return IoBuffer(self.view[start:stop], self.address + start, stop - start, self.buf_index)


def address_of(memory: Any) -> int:
    """Return the address of ``memory``, a cffi array or what ``ffi.from_buffer`` returned."""
    return int(ffi.cast(_ADDRESS, memory))
