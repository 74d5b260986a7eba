"""The types of the C half, for type checkers; ``cdef.h`` declares it to cffi."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class CRing(Protocol):
    """``struct ub_ring *``: Python writes ``passed``, ``consumed`` and ``cqe_buffer``."""

    fd: int
    sq_entries: int
    cq_entries: int
    setup_flags: int
    passed: int
    accepted: int
    reaped: int
    enters: int
    moved: Sequence[int]
    consumed: int
    cqe_buffer: Any


class Ffi(Protocol):
    """The part of cffi's FFI object that is used."""

    def new(self, ctype: str, init: object = ...) -> Any:
        """Allocate C memory owned by the object returned."""

    def string(self, cdata: Any) -> bytes:
        """Return the bytes of a C string."""

    def buffer(self, cdata: Any, size: int = ...) -> Any:
        """Return a buffer over C memory."""

    def from_buffer(self, ctype: str, source: object) -> Any:
        """Return a C pointer to a Python buffer, which it keeps alive."""

    def cast(self, ctype: str, value: Any) -> Any:
        """Convert without a check."""


class Lib(Protocol):
    """The functions of ``ub_ring.h``: ``>= 0`` or ``-errno``, the GIL released in each."""

    def ub_open(self, ring: CRing, entries: int, setup_flags: int) -> int: ...
    def ub_close(self, ring: CRing) -> None: ...
    def ub_abandon(self, ring: CRing) -> None: ...
    def ub_register_files(self, ring: CRing, fds: Sequence[int], count: int) -> int: ...
    def ub_unregister_files(self, ring: CRing) -> int: ...
    def ub_register_buffers(self, ring: CRing, vectors: Any, count: int) -> int: ...
    def ub_unregister_buffers(self, ring: CRing) -> int: ...
    def ub_probe(self, ring: CRing, supported: Any, count: int) -> int: ...
    def ub_submit(self, ring: CRing, ops: Any, count: int) -> int: ...
    def ub_reap(self, ring: CRing) -> int: ...
    def ub_wait(self, ring: CRing) -> int: ...
    def ub_liburing_version(self) -> Any: ...
    def ub_dioalign(self, fd: int, memory_align: Any, offset_align: Any) -> int: ...
    def ub_rename_noreplace(self, old_path: bytes, new_path: bytes) -> int: ...
