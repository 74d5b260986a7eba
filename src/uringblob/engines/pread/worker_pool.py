"""A few threads that make blocking calls for one loop.

A work item is put on a queue, some thread takes it, makes the call and posts the result to a
mailbox; the loop empties the mailbox.

**Every item ends.**  An item has room for its result before it is queued, and that room holds "no
memory" from the start; so a thread for which a small allocation fails half-way has something to
post, and posts it until the loop has it.  A thread's own frame is made by who starts it (it is a
generator's), and nobody waits for its first word, as ``threading.Thread.start`` does: for ever,
where the thread had no memory to say it.

**Nobody keeps alive what would end him.**  A thread knows the queue and the descriptor, and a mailbox
only while it works for it.  So a crew that is forgotten can be collected, and its end sends the
threads home; the last to leave closes the descriptor.

No lock is held where a signal handler or finalizer could want it again: ``SimpleQueue`` is
written in C and may be re-entered.  The threads are daemons: at interpreter exit they wait for
nothing and nobody waits for them; a write that exit cuts short was never acknowledged.
"""

from __future__ import annotations

import _thread
import asyncio
import functools
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from uringblob.completion import Completion
from uringblob.engines.base import IoCounters
from uringblob.engines.own_descriptor import CLOSED, OwnDescriptor
from uringblob.engines.pread.results import NO_MEMORY, PAUSE_SECONDS, Count, ResultQueue


class Work(Protocol):
    """What a thread takes from the queue."""

    def work(self) -> None:
        """Make the calls, and keep the results.  Raises nothing but ``NO_MEMORY``."""

    def post(self) -> None:
        """Post the results.  Raises nothing but ``NO_MEMORY``; is called again then."""


class WorkItem:
    """One call and its result, which is ``otherwise`` until there is another."""

    __slots__ = ("_call", "_mailbox", "completion", "count", "result")

    def __init__(
        self,
        mailbox: ResultQueue,
        completion: Completion[Any],
        count: Count,
        otherwise: Any,
        call: Callable[[], Any],
    ) -> None:
        self._mailbox = mailbox
        self.completion = completion
        self.count = count
        self.result = otherwise
        self._call: Callable[[], Any] | None = call

    def __repr__(self) -> str:
        return f"<WorkItem {self._call!r}>"

    def work(self) -> None:
        """Make the call; what it raises is a result too."""
        call = self._call
        # The frames are let go before the result is seen, so that they can be released at once.
        self._call = None
        if call is not None:
            try:
                self.result = call()
            except NO_MEMORY:
                raise
            except BaseException as error:  # noqa: BLE001 - it goes to whoever awaits the completion
                self.result = error

    def post(self) -> None:
        """Post the result."""
        self._mailbox.post(self)


class Crew:
    """Up to ``threads_max`` threads, started when first needed; where there is none, the caller works.

    All methods belong to the loop's thread, except :meth:`abandon`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        counters: IoCounters,
        descriptor: OwnDescriptor,
        threads_max: int,
    ) -> None:
        """Take over ``descriptor``, which is closed when the last thread has left."""
        self._descriptor = descriptor
        self._threads_max = threads_max
        self._jobs: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._take_now = functools.partial(_take_now, self._jobs)
        self._mailbox = ResultQueue(loop, counters)
        self._threads: list[Worker] = []
        self._open = True
        self._pid = os.getpid()

    @property
    def in_flight(self) -> int:
        """Operations whose completion is not resolved yet, queued ones included."""
        return len(self._mailbox.pending)

    def ask(self, count: Count, otherwise: Any, call: Callable[[], Any]) -> Completion[Any]:
        """Have a thread make ``call``; the completion yields what that returns or raises.

        ``otherwise`` is its result if there is no memory to say what came of it.
        """
        completion = self._new_completion()
        item = WorkItem(self._mailbox, completion, count, otherwise, call)
        pending = self._mailbox.pending
        pending.add(completion)
        try:
            self._jobs.put(item)
        except BaseException:
            pending.discard(completion)  # it is not on the queue, except where a signal handler raised
            raise
        if not self._threads:
            self._work_here()
        return completion

    def _new_completion(self) -> Completion[Any]:
        if not self._open:
            raise RuntimeError("this engine is closed")
        if len(self._threads) < self._threads_max and len(self._threads) <= self.in_flight:
            self._start_thread()
        return Completion(loop=self._mailbox.loop)

    def _start_thread(self) -> None:
        try:
            self._threads.append(Worker(self._jobs, self._descriptor))
        except (RuntimeError, *NO_MEMORY):
            return  # no more threads to be had: those that run, or else the caller, do the work

    def _work_here(self) -> None:
        """Do what is queued in this thread, because there is no other."""
        _work(self._take_now)

    async def close(self) -> None:
        """Wait for everything in flight, then end the threads and close the descriptor."""
        self._open = False
        try:
            await self._mailbox.wait_empty()
        except GeneratorExit:
            self.abandon()  # dropped half-way: nothing may be waited for any more
            raise
        finally:
            for thread in self._dismiss():
                thread.join()
            self._descriptor.close()

    def abandon(self) -> None:
        """Empty the queue, send the threads home, and wait for none of them.

        The descriptor is closed when the last of them has left.  A forked child has none: there the
        copy is closed at once.
        """
        self._open = False
        self._forget()
        if self._pid != os.getpid():
            self._descriptor.close()
        self._descriptor = CLOSED

    def _forget(self) -> None:
        while self._take_now() is not None:
            pass
        self._dismiss()

    def _dismiss(self) -> list[Worker]:
        threads, self._threads = self._threads, []
        self._jobs.put(None)  # each thread hands it on, also one that a signal kept off the list
        return threads

    def __del__(self) -> None:
        if getattr(self, "_pid", None) is not None:  # it was wholly made
            self._forget()


class Worker:
    """A thread that works until it takes ``None``."""

    __slots__ = ("_ended",)

    def __init__(self, jobs: queue.SimpleQueue[Work | None], descriptor: OwnDescriptor) -> None:
        """Start it.

        :raises RuntimeError: the system has no thread to give.
        """
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        life = _live(jobs.get, jobs, descriptor, self._ended, threading.gettrace())
        _thread.start_new_thread(next, (life, None))

    def __repr__(self) -> str:
        return f"<Worker, {'at work' if self._ended.locked() else 'gone'}>"

    def join(self) -> None:
        """Wait until it has left."""
        with self._ended:
            pass


def _live(
    take: Callable[[], Work | None],
    jobs: queue.SimpleQueue[Work | None],
    descriptor: OwnDescriptor,
    ended: _thread.LockType,
    trace: Any,
) -> Iterator[None]:
    """A thread's life: work until a ``None`` comes, and hand that on to the other threads."""
    dismissed = False
    try:
        while True:
            try:
                if trace is not None:
                    sys.settrace(trace)  # debuggers and tracers see what they see of Python's own threads
                if not dismissed:
                    _work(take)
                dismissed = True
                jobs.put(None)
                break
            except NO_MEMORY:
                time.sleep(PAUSE_SECONDS)
    finally:
        # Here, and not with the frame: an error that somebody keeps may keep that.
        del descriptor
        ended.release()
    yield


def _work(take: Callable[[], Work | None]) -> None:
    while True:
        item: Work | None = None
        try:
            item = take()
            if item is None:
                return
            item.work()
        except NO_MEMORY:
            if item is None:
                time.sleep(PAUSE_SECONDS)
        while item is not None:
            try:
                item.post()
                item = None
            except NO_MEMORY:
                time.sleep(PAUSE_SECONDS)


def _take_now(jobs: queue.SimpleQueue[Work | None]) -> Work | None:
    try:
        return jobs.get_nowait()
    except queue.Empty:
        return None
