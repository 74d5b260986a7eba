"""What drives a ring: the tick, the doorbell, the blocking wait, and the end.

Two sentences say how it meets an event loop.  Operations asked for within one loop tick are
submitted together, by one ``io_uring_enter``, from a callback at the tick's end.  The ring's own
descriptor is the doorbell (``add_reader``; 5.6 µs a round trip, an eventfd costs 7.5; Linux
6.18), and the completion queue is the truth: whoever is woken reaps everything there is.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from uringblob._native import require_lib
from uringblob.completion import Completion, persist
from uringblob.errors import check_rc
from uringblob.owner import Owner
from uringblob.ring.completions import InFlight
from uringblob.ring.no_loop import NO_LOOP
from uringblob.ring.ops import OUT_OF_RANGE, Op, check_chains, pack, packed_op
from uringblob.ring.setup import SetupFlags, blank_core, open_core
from uringblob.ring.submission import SubmissionQueue

T = TypeVar("T")

#: Seconds until the next try when the kernel is out of memory and nothing is in flight.
_RETRY_DELAY: Final = 0.001
_TRANSIENT: Final = frozenset({-errno.EINTR, -errno.EAGAIN, -errno.EBUSY})


class RingDriver(Owner):
    """The machinery under :class:`uringblob.ring.Ring`; knows no particular operation."""

    __slots__ = (
        "__weakref__",
        "_closing",
        "_core",
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
        self._closing = True  # until it is open; the finalizer looks at the rest
        self._ffi, self._lib = require_lib()
        self._pid = os.getpid()
        self._core = blank_core(self._ffi)
        inbox = open_core(self._ffi, self._lib, self._core, entries, setup_ladder)
        self._loop = loop
        self._future_loop = NO_LOOP if loop is None else loop
        self._in_flight = InFlight(self._ffi, self._lib, self._core, inbox)
        self._queue = SubmissionQueue(self._ffi, self._lib, self._core, self._in_flight.settle)
        #: A partial object makes one a fifth faster than a call with a keyword does.
        self._new_completion: Callable[[], Completion[int]] = functools.partial(
            Completion, loop=self._future_loop
        )
        #: Somebody will flush before the loop sleeps: a tick, or the doorbell that is being answered.
        self._flush_due = False
        self._drained: Completion[None] | None = None
        if loop is not None:
            loop.add_reader(self._core.fd, self._on_doorbell)
        self._closing = False

    # -- in -------------------------------------------------------------------------------

    def submit(
        self, ops: Iterable[Op], *, now: bool = False, answers: list[Completion[int]] | None = None
    ) -> list[Completion[int]]:
        """Ask for ``ops``, in order; one completion each, added to ``answers``.  Linked ones stay together.

        ``now`` submits them, and what was asked for before them, instead of leaving that to the tick.

        :raises ValueError: the last one is linked to nothing, or a chain is longer than the
            submission queue.  Nothing was asked for then.
        :raises RuntimeError: the ring is closed.
        """
        sent = list(ops)
        check_chains(sent, self._queue.chain_max)
        self._check_open()
        packed = []
        entries: dict[int, tuple[Completion[int], object]] = {}
        for op in sent:
            user_data = self._in_flight.next_user_data()
            packed.append(packed_op(user_data, op))
            entries[user_data] = (self._new_completion(), op.keep)
        return self._enqueue_all(packed, entries, [] if answers is None else answers, now=now)

    def _enqueue_all(
        self,
        packed: list[bytes],
        entries: dict[int, tuple[Completion[int], object]],
        answers: list[Completion[int]],
        *,
        now: bool,
    ) -> list[Completion[int]]:
        """Ask for packed operations, whose completions and memory are in ``entries``, in one step."""
        self._in_flight.table.update(entries)
        self._queue.waiting.extend(packed)  # one step: a chain is never half in the queue
        answers += [completion for completion, _ in entries.values()]  # known, also if a handler raises now
        try:
            if now:
                self._flush_now()
        finally:
            if not self._flush_due and self._loop is not None and len(self._queue):
                self._flush_in_a_tick(self._loop)
        return answers

    def _flush_now(self) -> None:
        """Submit what was asked for.  It stays asked for if there is no memory for that: the tick tries again."""
        self._check_process()
        try:
            self._queue.flush()
        except MemoryError:
            if self._loop is None:
                raise

    def chain(self, *ops: Op, now: bool = False) -> list[Completion[int]]:
        """Ask for ``ops`` so that each begins only when the one before has wholly succeeded.

        After a failed or short one, the rest end with ``-ECANCELED``.  Use registered files.
        Raises what :meth:`submit` raises.
        """
        return self.submit([*(op.link() for op in ops[:-1]), *ops[-1:]], now=now)

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
        now: bool = False,
    ) -> Completion[int]:
        """Ask for one operation; the hot path, so everything is in one function.

        ``now`` submits it, and what was asked for before it, instead of leaving that to the tick.
        """
        if self._closing:
            self._check_open()
        in_flight = self._in_flight
        user_data = in_flight.next_user_data()
        try:
            packed = pack(user_data, address, offset, length, file, op_flags, buf_index, opcode, flags)
        except struct.error as error:
            raise ValueError(OUT_OF_RANGE) from error
        completion = self._new_completion()
        # The memory is held before the operation exists.
        in_flight.table[user_data] = (completion, keep)
        queue = self._queue
        queue.waiting.append(packed)
        if now:
            self._flush_now()
            if queue.empty:
                return completion
        if not self._flush_due and self._loop is not None:
            self._flush_in_a_tick(self._loop)
        return completion

    def _flush_in_a_tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have what was asked for submitted at the tick's end, or at once where there is no memory to wait."""
        try:
            loop.call_soon(self._tick)
            self._flush_due = True
        except MemoryError:
            self._flush_now()
            self._flush_later()

    @property
    def in_kernel(self) -> int:
        """Operations that the kernel was given and whose completion was not reaped yet."""
        return self._core.accepted - self._core.reaped

    @property
    def chains_split(self) -> int:
        """Chains of which the kernel took the first part only; the rest ended with ``-ECANCELED``."""
        return self._queue.chains_split

    def flush(self) -> None:
        """Submit now what was asked for, and reap what has completed; waits for nothing.

        :raises RuntimeError: in a forked child.
        """
        self._check_process()
        queue = self._queue
        try:
            queue.flush()
            reaped = self._reap()
            while len(queue) and reaped:  # what was reaped made room
                queue.flush()
                reaped = self._reap()
        finally:  # also where memory ran out in here, or a signal handler raised
            if len(queue):
                self._flush_later()

    def _tick(self) -> None:
        self._flush_due = False
        self.flush()

    def _flush_later(self) -> None:
        """Some must wait: for a completion, whose doorbell comes back here, or else for a while."""
        nothing_in_kernel = self._core.accepted == self._core.reaped
        if nothing_in_kernel and self._loop is not None and not self._flush_due:
            self._queue.give_up_if_hopeless()
            if len(self._queue):
                persist(self._loop.call_later, _RETRY_DELAY, self._tick)
                self._flush_due = True

    # -- out ------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Operations asked for whose completion is not resolved, waiting ones included."""
        return self._core.accepted - self._core.reaped + len(self._queue)

    def _reap(self) -> int:
        reaped = self._in_flight.reap()
        if self._drained is not None and not self.in_flight:
            self._drained.resolve(None)
        return reaped

    def _on_doorbell(self) -> None:
        """Reap; what the resumed ask for goes out at once, without another trip through the loop."""
        self._check_process()
        tick_comes = self._flush_due
        self._flush_due = True
        try:
            self._reap()
        finally:
            self._flush_due = tick_comes
            if not tick_comes and len(self._queue):
                self.flush()

    def wait(self, completion: Completion[T]) -> T:
        """Block until ``completion``, one of this ring's, is done; return its result.

        Works with and without a loop (which it blocks).  A signal handler that raises ends the
        wait and nothing else: the operation goes on, and may be waited for again.

        :raises RuntimeError: it will never be done: it is not this ring's.
        """
        while not completion.done():
            self.flush()
            if not completion.done():
                self._block()
        return completion.result()

    def _block(self) -> None:
        """Sleep until there is something to reap, or something more may be submitted."""
        if self._core.accepted > self._core.reaped:
            rc = self._lib.ub_wait(self._core)
            if rc not in _TRANSIENT:
                check_rc(rc, "io_uring_enter while waiting for a completion")
        elif len(self._queue):
            self._queue.give_up_if_hopeless()
            time.sleep(_RETRY_DELAY)
        else:
            raise RuntimeError("nothing is in flight: this completion is not of this ring")

    # -- misuse ---------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closing:
            raise RuntimeError("the ring is closed")

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError("this ring belongs to the parent process: make a new one after a fork")
