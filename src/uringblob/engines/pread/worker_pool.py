"""A few threads that make blocking calls for one event loop.

A work item is put on a queue; a thread takes it, makes the call and posts the result; the loop resolves
the completion.

**Every item ends.**  An item has room for its result before it is queued, initialized with "no memory";
so a thread whose allocation fails has a result to post, and posts it until the loop has it.  The thread's
stack frame is allocated by its starter (it is a generator's), and the starter does not wait for the
thread to run, as ``threading.Thread.start`` does: for ever, where the thread has no memory to signal it.

**Threads keep no pool alive.**  A thread refers to the work queue and the descriptor, and to the result
queue only while it works on an item.  So a dropped pool can be collected; its finalizer ends the threads,
and the last one closes the descriptor.

No lock is held where a signal handler or finalizer could take it again: ``SimpleQueue`` is written in C
and may be re-entered.  The threads are daemons: interpreter exit does not wait for them, and a write that
it cuts short was never acknowledged.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from uringblob import tuning
from uringblob.completion import Completion, Sink
from uringblob.engines.base import IoCounters
from uringblob.engines.own_descriptor import CLOSED, OwnDescriptor
from uringblob.engines.pread.results import NO_MEMORY, Answer, Count, ResultQueue


class Work(Protocol):
    """An entry of the work queue."""

    def work(self) -> None:
        """Make the calls and keep the results.  Raises nothing but ``NO_MEMORY``."""

    def post(self) -> None:
        """Post the results.  Raises nothing but ``NO_MEMORY``, and is called again then."""


class WorkItem(Answer):
    """One call and its result."""

    __slots__ = ("_call", "_results")

    def __init__(
        self,
        results: ResultQueue,
        sink: Sink,
        count: Count,
        otherwise: Any,
        call: Callable[[], Any],
    ) -> None:
        super().__init__(sink, count, otherwise)
        self._results = results
        self._call: Callable[[], Any] | None = call

    def work(self) -> None:
        """Make the call; an exception is a result, too."""
        call = self._call
        # The frames are dropped before the result is posted, so that they can be released at once.
        self._call = None
        if call is not None:
            try:
                self.result = call()
            except NO_MEMORY:
                raise
            except BaseException as error:  # noqa: BLE001 - it rejects the completion
                self.result = error

    def post(self) -> None:
        """Post the result."""
        self._results.post(self)


class WorkerPool:
    """Up to ``threads_max`` threads, started when needed; where there is none, the caller does the work.

    All methods belong to the loop's thread, except :meth:`abandon`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        counters: IoCounters,
        descriptor: OwnDescriptor,
        threads_max: int,
    ) -> None:
        """Take over ``descriptor``, which is closed when the last thread has ended."""
        self._descriptor = descriptor
        self._threads_max = threads_max
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._results = ResultQueue(loop, counters)
        self._threads: list[Worker] = []
        self._open = True

    @property
    def in_flight(self) -> int:
        """Operations whose completion is not resolved, queued ones included."""
        return len(self._results.pending)

    def submit(self, count: Count, otherwise: Any, call: Callable[[], Any]) -> Completion[Any]:
        """Have a thread make ``call``; the completion yields what it returns or raises.

        ``otherwise`` is the result if there is no memory for another.
        """
        completion: Completion[Any] = Completion(loop=self._results.loop)
        self.submit_to(completion, WorkItem(self._results, completion, count, otherwise, call))
        return completion

    def submit_to(self, sink: Sink, work: Any, put: Callable[[Any], None] | None = None) -> None:
        """Have a thread do ``work``, whose result goes to ``sink``; it is queued by ``put``."""
        if not self._open:
            raise RuntimeError("this engine is closed")
        if len(self._threads) < self._threads_max and len(self._threads) <= self.in_flight:
            self._start_thread()
        pending = self._results.pending
        try:
            # First: work that is queued is done, even if an exception follows.
            pending.add(sink)
            if put is not None:
                put(work)
        except BaseException:
            pending.discard(sink)  # not queued, unless a signal handler raised after that
            raise
        if put is None:
            try:
                self._queue.put(work)
            except MemoryError:
                pending.discard(sink)
                raise  # another exception is a signal handler's, raised when it was queued
        if not self._threads:
            self._work_here()

    def _start_thread(self) -> None:
        try:
            self._threads.append(Worker(self._queue, self._descriptor))
        except (RuntimeError, *NO_MEMORY):
            return  # no thread: the running ones, or else the caller, do the work

    def _work_here(self) -> None:
        """Do the queued work in this thread, because there is no other."""
        _work(self._queue.get_nowait)

    async def close(self) -> None:
        """Wait for everything in flight, then end the threads and close the descriptor."""
        self._open = False
        try:
            await self._results.wait_empty()
        except GeneratorExit:
            self.abandon()  # the coroutine was closed: it may await nothing
            raise
        finally:
            for thread in self._dismiss():
                thread.join()
            self._descriptor.close()

    def abandon(self) -> None:
        """Empty the queue and end the threads without waiting for them.

        The last thread closes the descriptor.
        """
        self._open = False
        self._discard_work()
        self._descriptor = CLOSED

    def _discard_work(self) -> None:
        with contextlib.suppress(queue.Empty):  # the end of the loop
            while True:
                self._queue.get_nowait()
        self._dismiss()

    def _dismiss(self) -> list[Worker]:
        threads, self._threads = self._threads, []
        self._queue.put(None)  # each thread puts it back for the next, listed or not
        return threads

    def __del__(self) -> None:
        if getattr(self, "_open", None) is not None:  # __init__ was completed
            self._discard_work()


class Worker:
    """A thread that works until it takes ``None``."""

    __slots__ = ("_ended",)

    def __init__(self, works: queue.SimpleQueue[Work | None], descriptor: OwnDescriptor) -> None:
        """Start it.

        :raises RuntimeError: the system has no thread to give.
        """
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        run = _run(works.get, works, descriptor, self._ended, threading.gettrace())
        _thread.start_new_thread(next, (run, None))

    def join(self) -> None:
        """Wait until it has ended."""
        with self._ended:
            pass


def _run(
    take: Callable[[], Work | None],
    works: queue.SimpleQueue[Work | None],
    descriptor: OwnDescriptor,
    ended: _thread.LockType,
    trace: Any,
) -> Iterator[None]:
    """Run a thread: work until a ``None`` comes, and hand that on to the other threads."""
    dismissed = False
    try:
        while True:
            try:
                if trace is not None:
                    sys.settrace(trace)  # as threading.Thread does for debuggers
                if not dismissed:
                    _work(take)
                dismissed = True
                works.put(None)
                break
            except NO_MEMORY:
                time.sleep(tuning.RESULTS_PAUSE_S)
    finally:
        # Not with the stack frame: a stored exception may keep that alive.
        del descriptor
        ended.release()
    yield


def _work(take: Callable[[], Work | None]) -> None:
    """Work until ``take`` returns None or raises ``queue.Empty``."""
    while True:
        item: Work | None = None
        try:
            item = take()
            if item is None:
                return
            item.work()
        except queue.Empty:
            return
        except NO_MEMORY:
            if item is None:
                time.sleep(tuning.RESULTS_PAUSE_S)
        while item is not None:
            try:
                item.post()
                item = None
            except NO_MEMORY:
                time.sleep(tuning.RESULTS_PAUSE_S)
