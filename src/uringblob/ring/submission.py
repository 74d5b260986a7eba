"""From Python's waiting operations to the kernel, each exactly once.

An exception that a signal handler raises may strike between any two bytecodes, so no step here
relies on the next one being reached.  The truth of how far submission came is one number, which
C advances together with the kernel (``passed``); what follows from it is worked out afresh
every time:

* ``waiting`` collects; when everything staged has passed, that very list becomes the staged one,
  by one assignment, together with the number at which it begins;
* the position in the staged list is ``passed`` minus that number;
* an operation before the position that is linked to the one at it means: the kernel stopped in
  the middle of a chain.  The rest would then no longer hang on its first part, so it is given up
  with ``-ECANCELED``, which is what the kernel does to the rest of a broken chain.

A chain goes into one submission whole.  What is in flight is bounded by the size of the
completion queue, so that it cannot overflow; the rest waits here.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

from uringblob._native.types import CRing, Ffi, Lib
from uringblob.ring.ops import TracedOp, is_linked, traced, user_data_of

#: The kernel has no room just now: reap, and try again.
_TRANSIENT = frozenset({-errno.EAGAIN, -errno.EBUSY, -errno.EINTR})

#: Refusals in a row, each with a pause after it, before what waits is given up: some seconds.
REFUSALS_MAX = 4000


class _Staged(NamedTuple):
    ops: list[bytes]
    begins_at: int


class SubmissionQueue:
    """Packed operations on their way to one ring; one thread uses it.

    ``in_flight_max`` operations are in the kernel's hands at most (the CQ's size; tests lower
    or raise it).  ``settle(user_data, result)`` is called for an operation that will never reach
    the kernel; it must not mind being called twice.
    """

    __slots__ = (
        "_core",
        "_ffi",
        "_refusal",
        "_refusals",
        "_settle",
        "_staged",
        "chains_split",
        "in_flight_max",
        "lib",
        "trace",
        "waiting",
    )

    def __init__(self, ffi: Ffi, lib: Lib, core: CRing, settle: Callable[[int, int], None]) -> None:
        self._ffi = ffi
        self.lib = lib
        self._core = core
        self._settle = settle
        #: Append here, or extend by a whole chain; look it up anew each time.
        self.waiting: list[bytes] = []
        self._staged = _Staged([], 0)
        self.in_flight_max = core.cq_entries
        self.trace: Callable[[list[TracedOp]], None] | None = None
        #: Chains of which the kernel took the first part only.
        self.chains_split = 0
        # How often in a row the kernel took nothing while it had nothing, and its last answer.
        self._refusals = 0
        self._refusal = 0

    @property
    def chain_max(self) -> int:
        """The longest chain, in operations, that can go into one submission."""
        return min(self._core.sq_entries, self.in_flight_max)

    def __len__(self) -> int:
        staged, waiting = self._staged, self.waiting
        left = len(staged.ops) - (self._core.passed - staged.begins_at)
        return left if staged.ops is waiting else left + len(waiting)

    @property
    def empty(self) -> bool:
        """Whether nothing is left to hand over."""
        return not self.waiting and not len(self)

    def flush(self) -> None:
        """Hand over what the kernel takes now; the rest stays, until it has room or asks less of it."""
        core = self._core
        while True:
            staged = self._stage()
            ops = staged.ops
            at = core.passed - staged.begins_at
            if at == len(ops):
                return
            if at and is_linked(ops[at - 1]):
                self._give_up_chain(staged, at)
                continue
            count = self._fitting(ops, at)
            if not count:
                return
            taken = self._enter(ops[at : at + count] if count < len(ops) else ops)
            if taken == 0 or taken in _TRANSIENT:
                self._refusal = taken
                return
            self._refusals = 0
            if taken < 0:
                self._give_up(staged, at, len(ops), taken)
            elif at + taken == len(ops) and not self.waiting:
                return

    def give_up_if_hopeless(self) -> None:
        """Count one more refusal; after too many end everything here with the kernel's errno.

        To be called when nothing is in its hands: then no completion can be what it waits for.
        """
        self._refusals += 1
        if self._refusals < REFUSALS_MAX:
            return
        self._refusals = 0
        staged = self._stage()
        while len(staged.ops) > (at := self._core.passed - staged.begins_at):
            self._give_up(staged, at, len(staged.ops), self._refusal or -errno.EAGAIN)
            staged = self._stage()

    def _stage(self) -> _Staged:
        staged = self._staged
        passed = self._core.passed
        if passed - staged.begins_at == len(staged.ops) and self.waiting:
            self._staged = staged = _Staged(self.waiting, passed)
        if staged.ops is self.waiting:
            self.waiting = []
        return staged

    def _fitting(self, ops: list[bytes], at: int) -> int:
        core = self._core
        room = min(core.sq_entries, self.in_flight_max - (core.accepted - core.reaped))
        count = min(room, len(ops) - at)
        while count > 0 and is_linked(ops[at + count - 1]):
            count -= 1
        return max(count, 0)

    def _enter(self, ops: list[bytes]) -> int:
        packed = self._ffi.from_buffer("struct ub_op[]", b"".join(ops))
        taken = self.lib.ub_submit(self._core, packed, len(ops))
        if self.trace is not None and taken > 0:
            self.trace([traced(op) for op in ops[:taken]])
        return taken

    def _give_up_chain(self, staged: _Staged, at: int) -> None:
        end = at
        while is_linked(staged.ops[end]):
            end += 1
        self.chains_split += 1
        self._give_up(staged, at, end + 1, -errno.ECANCELED)

    def _give_up(self, staged: _Staged, at: int, end: int, result: int) -> None:
        for packed in staged.ops[at:end]:
            self._settle(user_data_of(packed), result)
        self._core.passed = staged.begins_at + end
