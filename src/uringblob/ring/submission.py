"""From Python's queue of operations to the kernel, each exactly once.

A signal handler may raise between any two bytecodes, so no step relies on the next one.  The progress
of submission is one number, ``passed``, which C advances in the call that enters the kernel; all else
is derived from it:

* ``waiting`` collects operations.  When everything staged has passed, that list becomes the staged
  one, by one assignment, together with the number at which it begins.
* The position in the staged list is ``passed`` minus that number.
* If the operation before the position is linked to the one at it, the kernel stopped in the middle of
  a chain.  The rest would no longer depend on its first part, so it ends with ``-ECANCELED``, as the
  kernel ends the rest of a broken chain.

Beside this queue, C has staged operations (``ub_stage``), one at a time and never linked; every
submission takes them first.

A chain goes into one submission whole.  The number of operations in the kernel is limited by the size
of the completion queue, so that it cannot overflow; the rest waits here.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, NamedTuple

from uringblob._native.types import CRing, Ffi, Lib
from uringblob.ring.ops import TracedOp, is_linked, traced, user_data_of

#: Errnos of ``io_uring_enter`` after which the caller reaps and tries again.
TRANSIENT: Final = frozenset({-errno.EAGAIN, -errno.EBUSY, -errno.EINTR})

#: Refusals in a row, each followed by a pause, before the queue is given up: some seconds.
REFUSALS_MAX = 4000


class _Staged(NamedTuple):
    ops: list[bytes]
    begins_at: int


class SubmissionQueue:
    """Packed operations for one ring; used by one thread.

    At most ``in_flight_max`` operations are in the kernel (the CQ's size; tests change it).
    ``complete(user_data, result)`` ends an operation that will never reach the kernel; it must be
    idempotent.
    """

    __slots__ = (
        "_c_ring",
        "_complete",
        "_ffi",
        "_given_up",
        "_refusal",
        "_refusals",
        "_staged",
        "_traced",
        "chains_split",
        "flushed",
        "lib",
        "trace",
        "waiting",
    )

    def __init__(self, ffi: Ffi, lib: Lib, c_ring: CRing, complete: Callable[[int, int], None]) -> None:
        self._ffi = ffi
        self.lib = lib
        self._c_ring = c_ring
        self._complete = complete
        #: Append here, or extend by a whole chain; another list after each flush.
        self.waiting: list[bytes] = []
        self._staged = _Staged([], 0)
        self._traced: list[TracedOp] = []  # the operations staged in C, if there is a trace
        self.trace: Callable[[list[TracedOp]], None] | None = None
        #: Whether the last flush left nothing; what came later is in ``waiting``, or staged in C.
        self.flushed = True
        #: The first operation staged in C and the errno, while all of those are being ended.
        self._given_up: tuple[int, int] | None = None
        #: Chains of which the kernel accepted the first part only.
        self.chains_split = 0
        # Refusals in a row while the kernel had no operation of this ring, and the last errno.
        self._refusals = 0
        self._refusal = 0

    @property
    def in_flight_max(self) -> int:
        """How many operations may be in the kernel and staged."""
        return self._c_ring.in_flight_max

    @in_flight_max.setter
    def in_flight_max(self, count: int) -> None:
        self._c_ring.in_flight_max = count

    @property
    def chain_max(self) -> int:
        """The longest chain, in operations, that fits one submission."""
        entries = self._c_ring.sq_entries
        return min(entries, self.in_flight_max or entries)  # 0 only while staged operations are given up

    def __len__(self) -> int:
        staged, waiting, c_ring = self._staged, self.waiting, self._c_ring
        left = len(staged.ops) - (c_ring.passed - staged.begins_at) + c_ring.staged
        return left if staged.ops is waiting else left + len(waiting)

    @property
    def empty(self) -> bool:
        """Whether everything is submitted."""
        return not self.waiting and not len(self)

    def trace_staged(self, op: TracedOp) -> None:
        """Note an operation that was staged in C, for the trace."""
        self._traced.append(op)

    def push(self) -> bool:
        """Submit what is staged in C; return whether the kernel took all of it."""
        c_ring = self._c_ring
        if self._given_up is not None and self._giving_up():
            return False
        if c_ring.staged:
            taken = self.lib.ub_push(c_ring)
            if self._traced:
                self._trace_taken()
            if taken < 0 and taken not in TRANSIENT:
                self._give_up_staged(taken)
            elif c_ring.staged:
                self._refusal = min(taken, 0)
                return False
            self._refusals = 0
        return True

    def _trace_taken(self) -> None:
        taken = len(self._traced) - self._c_ring.staged
        if self.trace is not None and taken > 0:
            traced_ops, self._traced = self._traced[:taken], self._traced[taken:]
            self.trace(traced_ops)

    def _give_up_staged(self, result: int) -> None:
        """End what is staged in C with ``result``.

        Nothing of it may be submitted from the first end on, because a sink lets go of its memory then: not
        by a task that is resumed here, and not after a signal handler's exception, either.
        """
        c_ring, limit = self._c_ring, self.in_flight_max
        if not c_ring.staged:
            return
        self._given_up = self.lib.ub_staged(c_ring, 0), result
        self.in_flight_max = 0  # what a resumed task asks for is not staged meanwhile, but queued
        try:
            for index in range(c_ring.staged):
                self._complete(self.lib.ub_staged(c_ring, index), result)
            self.lib.ub_unstage(c_ring)
            self._traced.clear()
            self._given_up = None
        finally:
            self.in_flight_max = limit

    def _giving_up(self) -> bool:
        """Whether this is inside :meth:`_give_up_staged`; if an exception has ended that, do it again."""
        if not self.in_flight_max:
            return True
        if self._given_up is not None:
            first, result = self._given_up
            if self.lib.ub_staged(self._c_ring, 0) == first:
                self._give_up_staged(result)
            self._given_up = None
        return False

    def flush(self) -> bool:
        """Submit what the kernel accepts now; the rest stays in the queue.  Returns whether there is none."""
        self.flushed = False
        self.flushed = self._flush()
        return self.flushed

    def _flush(self) -> bool:
        c_ring = self._c_ring
        if self._given_up is not None and self._giving_up():
            return False
        if not self.waiting and c_ring.passed - self._staged.begins_at == len(self._staged.ops):
            return not c_ring.staged or self.push()
        while True:
            staged = self._stage()
            ops = staged.ops
            at = c_ring.passed - staged.begins_at
            if at == len(ops):
                return self.push()
            if at and is_linked(ops[at - 1]):
                self._give_up_chain(staged, at)
                continue
            count = self._fitting(ops, at)
            if not count:
                self.push()  # what is staged may be what takes the room
                return False
            taken = self._enter(ops[at : at + count] if count < len(ops) else ops)
            if taken == 0 or taken in TRANSIENT:
                self._refusal = taken
                return False
            self._refusals = 0
            if taken < 0:
                self._give_up(staged, at, len(ops), taken)
            elif at + taken == len(ops) and not self.waiting:
                return not c_ring.staged

    def give_up_if_hopeless(self) -> None:
        """Count one more refusal; after too many, end every queued operation with the kernel's errno.

        To be called when the kernel has no operation of this ring: no completion can make room.
        """
        self._refusals += 1
        if self._refusals < REFUSALS_MAX:
            return
        self._refusals = 0
        self._give_up_staged(self._refusal or -errno.EAGAIN)
        staged = self._stage()
        while len(staged.ops) > (at := self._c_ring.passed - staged.begins_at):
            self._give_up(staged, at, len(staged.ops), self._refusal or -errno.EAGAIN)
            staged = self._stage()

    def _stage(self) -> _Staged:
        staged = self._staged
        passed = self._c_ring.passed
        if passed - staged.begins_at == len(staged.ops) and self.waiting:
            self._staged = staged = _Staged(self.waiting, passed)
        if staged.ops is self.waiting:
            self.waiting = []
        return staged

    def _fitting(self, ops: list[bytes], at: int) -> int:
        c_ring = self._c_ring
        room = self.in_flight_max - (c_ring.accepted - c_ring.reaped) - c_ring.staged
        room = min(c_ring.sq_entries, room)
        count = min(room, len(ops) - at)
        while count > 0 and is_linked(ops[at + count - 1]):
            count -= 1
        return max(count, 0)

    def _enter(self, ops: list[bytes]) -> int:
        packed = self._ffi.from_buffer("struct ub_op[]", b"".join(ops))
        taken = self.lib.ub_submit(self._c_ring, packed, len(ops))
        self._trace_taken()
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
            self._complete(user_data_of(packed), result)
        self._c_ring.passed = staged.begins_at + end
