"""The machinery under a ring: submission once per loop tick, reaping, blocking waits.

Operations queued within one loop tick are submitted together, by one ``io_uring_enter``, from a
callback at the tick's end.  The loop watches the ring's own descriptor (``add_reader``: 5.6 µs a
round trip, an eventfd costs 7.5; Linux 6.18); a completion event reaps everything in the queue.
"""

from __future__ import annotations

import asyncio
import functools
import os
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from uringblob import fork, tuning
from uringblob._native import require_lib
from uringblob._native.types import CRing, Lib
from uringblob.completion import Completion, Sink, persist
from uringblob.errors import check_rc
from uringblob.owner import Owner
from uringblob.ring.completions import InFlight
from uringblob.ring.no_loop import NO_LOOP
from uringblob.ring.ops import OUT_OF_RANGE, Op, SqeFlags, TracedOp, check_chains, pack, packed_op
from uringblob.ring.setup import SetupFlags, blank_ring, open_ring
from uringblob.ring.submission import TRANSIENT, SubmissionQueue

T = TypeVar("T")

#: Seconds until the next attempt when the kernel is out of memory and has no operation of this ring.
_RETRY_DELAY: Final = 0.001

_FIXED_FILE: Final = int(SqeFlags.FIXED_FILE)

#: When the next flush is due: not scheduled; at this tick's end; after a delay.
_NOT_DUE, _TICK, _DELAYED = range(3)


class _Copy:
    """A forked child's copy of a ring: closed at once, because it keeps the locks of registered files."""

    __slots__ = ("__weakref__", "abandon")

    def __init__(self, lib: Lib, c_ring: CRing) -> None:
        self.abandon = functools.partial(lib.ub_abandon, c_ring)
        fork.remember(self)


class RingDriver(Owner):
    """The machinery under :class:`uringblob.ring.Ring`; independent of opcodes."""

    __slots__ = (
        "__weakref__",
        "_c_ring",
        "_closing",
        "_copy",
        "_drained",
        "_ffi",
        "_flush_due",
        "_future_loop",
        "_in_flight",
        "_lib",
        "_loop",
        "_new_completion",
        "_pid",
        "_queue",
    )

    def __init__(
        self, entries: int, loop: asyncio.AbstractEventLoop | None, setup_ladder: Sequence[SetupFlags]
    ) -> None:
        self._closing = True  # until it is open, for the finalizer
        self._ffi, self._lib = require_lib()
        self._pid = os.getpid()
        self._c_ring = blank_ring(self._ffi)
        cqe_buffer = open_ring(self._ffi, self._lib, self._c_ring, entries, setup_ladder)
        self._copy = _Copy(self._lib, self._c_ring)
        self._loop = loop
        self._future_loop = NO_LOOP if loop is None else loop
        self._in_flight = InFlight(self._ffi, self._lib, self._c_ring, cqe_buffer)
        self._queue = SubmissionQueue(self._ffi, self._lib, self._c_ring, self._in_flight.complete)
        # A partial object is a fifth faster than a call with a keyword.
        self._new_completion: Callable[[], Completion[int]] = functools.partial(
            Completion, loop=self._future_loop
        )
        self._flush_due = _NOT_DUE
        self._drained: Completion[None] | None = None
        if loop is not None:
            loop.add_reader(self._c_ring.fd, self.poll)
        self._closing = False

    # -- submission -----------------------------------------------------------------------

    def submit(
        self, ops: Iterable[Op], *, submit: bool = False, answers: list[Completion[int]] | None = None
    ) -> list[Completion[int]]:
        """Queue ``ops``, in order; return one completion each, appended to ``answers``.

        A chain of linked operations is never split between submissions.  ``submit`` enters the kernel
        at once, with everything queued before, instead of at the tick's end.

        :raises ValueError: the last operation is linked, or a chain is longer than the submission
            queue.  Nothing is queued then.
        :raises RuntimeError: the ring is closed.
        """
        listed = list(ops)
        check_chains(listed, self._queue.chain_max)
        self._check_open()
        packed = []
        entries: dict[int, Completion[int]] = {}
        for op in listed:
            user_data = self._in_flight.next_user_data()
            packed.append(packed_op(user_data, op))
            entries[user_data] = completion = self._new_completion()
            completion.keep = op.keep
        return self._enqueue_all(packed, entries, [] if answers is None else answers, submit=submit)

    def _enqueue_all(
        self,
        packed: list[bytes],
        entries: dict[int, Completion[int]],
        answers: list[Completion[int]],
        *,
        submit: bool,
    ) -> list[Completion[int]]:
        """Queue packed operations; ``entries`` has the completion of each."""
        try:
            self._in_flight.table.update(entries)
        except BaseException:
            for user_data in entries:
                self._in_flight.table.pop(user_data, None)  # a signal handler's: they are not queued
            raise
        self._queue.waiting.extend(packed)  # one step: a chain is never half in the queue
        answers += entries.values()  # also if a handler raises below
        try:
            if submit:
                self._submit_now()
        finally:
            if not self._flush_due and self._loop is not None and len(self._queue):
                self._schedule_flush(self._loop)
        return answers

    def _enqueue(
        self,
        opcode: int,
        flags: int,
        file: int,
        offset: int,
        address: int,
        length: int,
        op_flags: int,
        buf_index: int,
        keep: object,
        submit: bool = False,
    ) -> Completion[int]:
        """Queue one operation; the hot path, so everything is in one function."""
        if self._closing:
            self._check_open()
        in_flight = self._in_flight
        user_data = in_flight.next_user_data()
        try:
            packed = pack(user_data, address, offset, length, file, op_flags, buf_index, opcode, flags)
        except struct.error as error:
            raise ValueError(OUT_OF_RANGE) from error
        completion = self._new_completion()
        # The table holds the memory before the operation exists.
        completion.keep = keep
        in_flight.table[user_data] = completion
        queue = self._queue
        queue.waiting.append(packed)
        if submit:
            self._submit_now()
            if queue.empty:
                return completion
        if not self._flush_due and self._loop is not None:
            self._schedule_flush(self._loop)
        return completion

    def stage(
        self,
        sink: Sink,
        opcode: int,
        op_flags: int,
        buf_index: int,
        address: int,
        offset: int,
        length: int,
        check: int = 0,
        want: int = 0,
    ) -> int:
        """Stage one operation on registered file 0; it is submitted at the tick's end, or by :meth:`push`.

        ``sink`` keeps its memory.  With ``check`` a read's frame is compared with the XXH3 ``want``.
        Returns how many are staged; ``-EAGAIN``: nothing was staged, because there is no room.
        """
        if self._closing:
            self._check_open()
        in_flight, queue = self._in_flight, self._queue
        user_data = in_flight.next_user_data()
        in_flight.table[user_data] = sink
        staged = queue.lib.ub_stage(
            self._c_ring, user_data, opcode, op_flags, buf_index, address, offset, length, check, want
        )
        if staged < 0:
            in_flight.table.pop(user_data, None)
            return staged
        if queue.trace is not None:
            op = Op(opcode, _FIXED_FILE, 0, offset, address, length, op_flags, buf_index)
            queue.trace_staged(TracedOp(user_data, op))
        if not self._flush_due and self._loop is not None:
            self._schedule_flush(self._loop)
        return staged

    def push(self) -> None:
        """Submit what is staged now; what the kernel does not take is submitted at the tick's end."""
        self._queue.push()

    def _submit_now(self) -> None:
        """Submit the queue; where memory is short for that, the tick tries again."""
        self._check_process()
        try:
            self._queue.flush()
        except MemoryError:
            if self._loop is None:
                raise

    def _schedule_flush(self, loop: asyncio.AbstractEventLoop) -> None:
        """Flush at the tick's end, or at once where memory is short for scheduling."""
        try:
            # Twice: a signal handler that raises before the first line of a callback drops that call.
            loop.call_soon(self._flush_if_due, _TICK)
            loop.call_soon(self._flush_if_due, _TICK)
            self._flush_due = _TICK
        except MemoryError:
            self._submit_now()
            self._flush_later()

    def _flush_if_due(self, due: int) -> None:
        if self._flush_due == due:
            self.flush()

    def flush(self) -> None:
        """Submit the queue now and reap what has completed; does not block.

        :raises RuntimeError: in a forked child.
        """
        self._check_process()
        queue = self._queue
        self._flush_due = _TICK  # what the resumed callbacks queue is submitted below
        try:
            queue.flush()
            reaped = self._reap()
            while len(queue) and reaped:  # reaping made room
                queue.flush()
                reaped = self._reap()
        finally:  # also after MemoryError, or an exception of a signal handler
            self._flush_due = _NOT_DUE
            if len(queue):
                self._flush_later()

    def _flush_later(self) -> None:
        """Have the operations that did not fit submitted: by a timer if no completion event will come."""
        if not self.in_kernel and self._loop is not None and not self._flush_due:
            self._queue.give_up_if_hopeless()
            if len(self._queue):
                persist(self._loop.call_later, _RETRY_DELAY, self._flush_if_due, _DELAYED)
                self._flush_due = _DELAYED

    # -- completion -----------------------------------------------------------------------

    @property
    def in_kernel(self) -> int:
        """Operations that the kernel has accepted and whose completion is not reaped."""
        return self._c_ring.accepted - self._c_ring.reaped

    @property
    def in_flight(self) -> int:
        """Operations whose completion is not resolved, queued ones included."""
        return self.in_kernel + len(self._queue)

    @property
    def chains_split(self) -> int:
        """Chains of which the kernel accepted the first part only; the rest ended with ``-ECANCELED``."""
        return self._queue.chains_split

    def _reap(self) -> int:
        reaped = self._in_flight.reap()
        if self._drained is not None and not self.in_flight:
            self._drained.resolve(None)
        return reaped

    def poll(self) -> None:
        """Reap when the descriptor is readable, then submit what the resumed callbacks queued; does not block."""
        due = self._flush_due
        self._flush_due = _TICK
        try:
            self._in_flight.reap(tuning.COMPLETED_S_AT_ONCE)
        finally:
            self._flush_due = due
            self._submit_what_came()

    def _submit_what_came(self) -> None:
        """Submit what was queued while this was reaping, and would wait for no tick's end."""
        queue = self._queue
        if self._drained is not None:
            self.flush()
        elif not self._flush_due and (self._c_ring.staged or queue.waiting or not queue.flushed):
            submitted = False
            try:
                submitted = queue.flush()
            finally:  # also after MemoryError, or an exception of a signal handler
                if not submitted:
                    self._flush_later()
            if not submitted:
                self.flush()

    def wait(self, completion: Completion[T]) -> T:
        """Block until ``completion``, one of this ring's, is done; return its result.

        Works with and without a loop (which it blocks).  A signal handler that raises ends only the
        wait: the operation continues, and may be waited for again.

        :raises RuntimeError: the completion belongs to another ring.
        """
        while not completion.done():
            self.flush()
            if not completion.done():
                self._block()
        return completion.result()

    def run_until(self, done: Callable[[], bool]) -> None:
        """Block until ``done()``, which the completions reaped here bring about, or nothing is in flight."""
        while not done() and self.in_flight:
            self.flush()
            if not done() and self.in_flight:
                self._block()

    def _block(self) -> None:
        """Sleep until there is a completion to reap, or room to submit."""
        if self.in_kernel:
            rc = self._lib.ub_wait(self._c_ring)
            if rc not in TRANSIENT:
                check_rc(rc, "io_uring_enter while waiting for a completion")
        elif len(self._queue):
            self._queue.give_up_if_hopeless()
            time.sleep(_RETRY_DELAY)
        else:
            raise RuntimeError("nothing is in flight: this completion is not of this ring")

    # -- closing --------------------------------------------------------------------------

    def _release_when_drained(self) -> None:
        if not self._is_mine():
            return
        drained = self._when_drained()
        drained.add_done_callback(lambda _: self._release())
        self.flush()
        if not self.in_flight:
            drained.resolve(None)

    def _when_drained(self) -> Completion[None]:
        """Return a completion that resolves when nothing is in flight."""
        if self._drained is None:
            # Without it the ring would outlive its loop.
            self._drained = persist(Completion, loop=self._future_loop)
        return self._drained

    def _release(self) -> None:
        """Free the ring, in which nothing is in flight, and stop watching it."""
        # A child shares the parent's selector: there the reader stays.
        if self._is_mine() and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._c_ring.fd)
        self._free()

    def _free(self) -> None:
        """Close this process's copies; keep memory that the kernel may still write."""
        if self._is_mine() and not self.in_kernel:
            self._lib.ub_close(self._c_ring)
            return
        if self._is_mine():
            self._in_flight.never_free()
        self._lib.ub_abandon(self._c_ring)

    # -- checks of process and state ------------------------------------------------------

    def _is_mine(self) -> bool:
        """Whether the ring is open and this process made it."""
        return self._c_ring.fd >= 0 and self._pid == os.getpid()

    def _check_open(self) -> None:
        if self._closing:
            raise RuntimeError("the ring is closed")

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError("this ring belongs to the parent process: make a new one after a fork")
