"""Maps ``user_data`` to sinks: the one place where results are matched to operations.

A wait for completions can end early (EINTR, or enough of them) with I/O still in flight.  So no
caller takes "the next completion": every one is looked up by its ``user_data``.

A sink keeps the operation's memory alive from before it is queued until its completion.
Completions stay in the completion queue until all of a batch are handled, and handling one twice
changes nothing: after an exception in the middle (from a signal handler) the descriptor stays
readable, and the next reaping starts over.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import struct
from time import perf_counter
from typing import Any, Final

from uringblob import tuning
from uringblob._native.types import CRing, Ffi, Lib
from uringblob.completion import Sink

_COMPLETION: Final = struct.Struct("=QiI")
_SIZE: Final = _COMPLETION.size


#: Tables of rings that were dropped with operations in flight: the kernel may still write there.
_never_freed: list[dict[int, Sink]] = []


class InFlight:
    """Operations queued or submitted that are not complete; used by one thread."""

    __slots__ = (
        "_c_ring",
        "_checked_bytes",
        "_cqe_buffer",
        "_round",
        "lib",
        "mismatch_flag",
        "next_user_data",
        "table",
    )

    def __init__(self, ffi: Ffi, lib: Lib, c_ring: CRing, cqe_buffer: Any) -> None:
        self._c_ring = c_ring
        self.lib = lib
        self.mismatch_flag = lib.UB_MISMATCH
        self._cqe_buffer: Any = memoryview(ffi.buffer(cqe_buffer))  # keeps it alive
        self._round = 0
        helpers = lib.ub_checksum_helpers(tuning.CHECKSUM_HELPERS_MAX) if lib.ub_has_xxh3() else 0
        #: With helpers as many frames at a time as there are threads.
        self._checked_bytes = tuning.CHECKED_BYTES_AT_ONCE
        if helpers > 0:
            self._checked_bytes = tuning.STEP_BYTES * helpers + tuning.CHECKED_BYTES_AT_ONCE
        self.table: dict[int, Sink] = {}
        #: Never repeats, so a late completion cannot be mistaken for another.
        self.next_user_data = itertools.count(1).__next__

    def complete(self, user_data: int, result: int) -> None:
        """Complete one operation; a second call does nothing."""
        sink = self.table.get(user_data)
        if sink is not None:
            sink.complete(result)
            self.table.pop(user_data, None)

    def reap(self, for_s: float = math.inf) -> int:
        """Complete what the kernel has completed; return 0 only if there was nothing.

        What is beyond ``tuning.COMPLETED_BYTES_AT_ONCE``, or takes longer than ``for_s``, stays in the
        completion queue for the next call, and the descriptor stays readable.  A sink may resume a task, which
        may reap itself: then what is left of the array is another one's, and this call begins again with
        what C has.
        """
        c_ring, table, reap, bad = self._c_ring, self.table, self.lib.ub_reap, self.mismatch_flag
        total = moved = 0
        ends = perf_counter() + for_s
        sink: Sink | None = None
        while (count := reap(c_ring, self._checked_bytes)) > 0:
            self._round = this = self._round + 1
            for user_data, result, flags in _COMPLETION.iter_unpack(self._cqe_buffer[: count * _SIZE]):
                sink = table.get(user_data)
                if sink is not None:
                    if moved >= tuning.COMPLETED_BYTES_AT_ONCE or (moved and perf_counter() > ends):
                        sink = None
                        return total + 1
                    if not sink.light:
                        moved += result
                    try:
                        del table[user_data]  # first: who is resumed finds it ended
                        sink.complete(result, flags & bad)
                    except BaseException:
                        if self._round == this:
                            table[user_data] = sink  # completed again by the next reaping
                        raise
                    if self._round != this:
                        break
            else:
                c_ring.consumed = 1
                total += count
        # A traceback raised by a resumed callback keeps this stack frame.
        sink = None
        return total

    def never_free(self) -> None:
        """Keep the memory of what is in flight until the process ends."""
        # The list alone would release it at interpreter exit, when modules are cleared.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.table))
        _never_freed.append(self.table)
