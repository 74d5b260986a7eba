"""From ``user_data`` to whoever waits: the one place where completions are matched.

A wait for completions can end early (EINTR, or enough of them), with I/O still in flight.  A
reader that took "the next completion" as its own would read wrong bytes for ever after; here
nobody takes, everybody is looked up.

An entry keeps the operation's memory alive from before it is queued until its completion, and
nothing else may end it.  Completions stay in the completion queue until all of a batch are
settled, and settling one twice changes nothing, so an exception in the middle (a signal handler
that raises) loses none: the descriptor stays readable, and the next reaper starts over.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
from typing import Any, Final

from uringblob._native.types import CRing, Ffi, Lib
from uringblob.completion import Completion, set_bare_result, set_outcome

_COMPLETION: Final = struct.Struct("=QiI")
_SIZE: Final = _COMPLETION.size

#: Whoever gets a frame checksums it in the same loop iteration, 30 to 50 µs for 512 KiB.  So many
#: bytes a reaping keep an iteration below half a millisecond: 32 frames at once stalled the loop's
#: other users for 1.5 ms (p99, Linux 6.18).  A light completion that no job awaits counts nothing:
#: 64 writes of one group that end together took 16 iterations, and the disk had nothing to do meanwhile.
BYTES_AT_ONCE: Final = 2 * 1024 * 1024

#: Tables of rings that were dropped with operations in flight: the kernel may still write there.
_never_freed: list[dict[int, tuple[Completion[int], object]]] = []


class InFlight:
    """Operations asked for and not yet settled; one thread uses it."""

    __slots__ = ("_core", "_inbox", "lib", "next_user_data", "table")

    def __init__(self, ffi: Ffi, lib: Lib, core: CRing, inbox: Any) -> None:
        self._core = core
        self.lib = lib
        self._inbox: Any = memoryview(ffi.buffer(inbox))  # keeps it
        self.table: dict[int, tuple[Completion[int], object]] = {}
        #: Never used twice, so a late completion can never be taken for another.
        self.next_user_data = itertools.count(1).__next__

    def settle(self, user_data: int, result: int) -> None:
        """Resolve one operation and let go of its memory; does nothing the second time."""
        entry = self.table.get(user_data)
        if entry is not None:
            entry[0].resolve(result)
            self.table.pop(user_data, None)

    def reap(self) -> int:
        """Settle the completions there are; return 0 only if there was none.

        Those of more than ``BYTES_AT_ONCE`` are left for the next call.  They stay in the completion
        queue, so the descriptor stays readable.
        """
        core, table, lib = self._core, self.table, self.lib
        total = moved = 0
        completion: Completion[int] | None = None
        while (count := lib.ub_reap(core)) > 0:
            # settle() and resolve(), written out: this is the hottest loop of the library.
            for user_data, result, _flags in _COMPLETION.iter_unpack(self._inbox[: count * _SIZE]):
                entry = table.get(user_data)
                if entry is not None:
                    if moved >= BYTES_AT_ONCE:
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
            core.settled = 1
            total += count
        # Whoever was resumed may have raised, and a kept traceback keeps this frame, as a caller's.
        entry = completion = None
        return total

    def never_free(self) -> None:
        """Keep the memory of what is in flight until the process ends."""
        # The list alone would lose it at the interpreter's end, when modules are cleared.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.table))
        _never_freed.append(self.table)
