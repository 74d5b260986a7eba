"""Maps ``user_data`` to completions: the one place where results are matched to operations.

A wait for completions can end early (EINTR, or enough of them) with I/O still in flight.  So no
caller takes "the next completion": every one is looked up by its ``user_data``.

An entry keeps the operation's memory alive from before it is queued until its completion.
Completions stay in the completion queue until all of a batch are handled, and handling one twice
changes nothing: after an exception in the middle (from a signal handler) the descriptor stays
readable, and the next reaping starts over.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
from typing import Any, Final

from uringblob import tuning
from uringblob._native.types import CRing, Ffi, Lib
from uringblob.completion import Completion, set_bare_result, set_outcome

_COMPLETION: Final = struct.Struct("=QiI")
_SIZE: Final = _COMPLETION.size


#: Tables of rings that were dropped with operations in flight: the kernel may still write there.
_never_freed: list[dict[int, tuple[Completion[int], object]]] = []


class InFlight:
    """Operations queued or submitted whose completion is not resolved; used by one thread."""

    __slots__ = ("_c_ring", "_cqe_buffer", "lib", "next_user_data", "table")

    def __init__(self, ffi: Ffi, lib: Lib, c_ring: CRing, cqe_buffer: Any) -> None:
        self._c_ring = c_ring
        self.lib = lib
        self._cqe_buffer: Any = memoryview(ffi.buffer(cqe_buffer))  # keeps it alive
        self.table: dict[int, tuple[Completion[int], object]] = {}
        #: Never repeats, so a late completion cannot be mistaken for another.
        self.next_user_data = itertools.count(1).__next__

    def complete(self, user_data: int, result: int) -> None:
        """Resolve one operation and release its memory; a second call does nothing."""
        entry = self.table.get(user_data)
        if entry is not None:
            entry[0].resolve(result)
            self.table.pop(user_data, None)

    def reap(self) -> int:
        """Resolve the posted completions; return 0 only if there was none.

        Those beyond ``tuning.COMPLETED_BYTES_AT_ONCE`` stay in the completion queue for the next call, and the
        descriptor stays readable.
        """
        c_ring, table, lib = self._c_ring, self.table, self.lib
        total = moved = 0
        completion: Completion[int] | None = None
        while (count := lib.ub_reap(c_ring)) > 0:
            # complete() and finish() inlined: this is the hottest loop of the library.
            for user_data, result, _flags in _COMPLETION.iter_unpack(self._cqe_buffer[: count * _SIZE]):
                entry = table.get(user_data)
                if entry is not None:
                    if moved >= tuning.COMPLETED_BYTES_AT_ONCE:
                        entry = completion = None
                        return total + 1
                    completion = entry[0]
                    if not completion.light or completion._resumes:
                        moved += result
                    if not completion.done():
                        set_outcome(completion, set_bare_result, result)
                    if completion._resumes:
                        completion._resume_all()
                    table.pop(user_data, None)
            c_ring.consumed = 1
            total += count
        # A traceback raised by a resumed callback keeps this stack frame.
        entry = completion = None
        return total

    def never_free(self) -> None:
        """Keep the memory of what is in flight until the process ends."""
        # The list alone would release it at interpreter exit, when modules are cleared.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.table))
        _never_freed.append(self.table)
