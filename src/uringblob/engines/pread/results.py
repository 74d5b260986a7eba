"""Results from worker threads to the event loop, with as few wake-ups as possible.

A thread wakes the loop only if no wake-up is pending, so under load one wake-up delivers many results.
There is no lock: a signal handler or finalizer may re-enter ``deque``.

A work item refers to its queue of results, and a thread refers to neither unless it works on the item:
so an engine that is dropped with its loop can be collected while its threads wait for work.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from uringblob import tuning
from uringblob.completion import Completion, Sink
from uringblob.engines.base import IoCounters

#: Raised by a failed allocation; CPython raises SystemError where it has no memory for the error itself.
NO_MEMORY: Final = (MemoryError, SystemError)

#: Adds an operation's result to the counters, on the loop's thread.
Count = Callable[[IoCounters, Any], None]


def count_nothing(_counters: IoCounters, _result: Any) -> None:
    """For operations that are counted when they are issued, or not at all."""


class Answer:
    """An operation's sink, the function that counts its result, and the result.

    ``result`` has a value from the start, for a thread without memory for another; an exception rejects
    the sink.
    """

    __slots__ = ("count", "counted", "mismatch", "result", "sink")

    def __init__(self, sink: Sink, count: Count, otherwise: Any) -> None:
        self.sink = sink
        self.count = count
        self.counted = False
        self.result = otherwise
        self.mismatch = 0


class ResultQueue:
    """Results posted by the threads and not yet delivered to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: IoCounters) -> None:
        self.loop = loop
        self._counters = counters
        self.pending: set[Sink] = set()
        self._answers: deque[Answer] = deque()
        self._woken = False
        self._empty: Completion[None] | None = None

    def post(self, answer: Answer) -> None:
        """Hand over an answer.  From any thread; posting twice is harmless.

        :raises MemoryError: the loop may not be woken: post it again.
        """
        self._answers.append(answer)
        if self._woken:
            return  # the pending delivery finds this answer, too
        self._woken = True
        try:
            self.loop.call_soon_threadsafe(self.deliver)
        except RuntimeError:
            return  # the loop is closed
        except BaseException:
            self._woken = False  # the next post, of this thread or another, wakes the loop
            raise

    def deliver(self) -> None:
        """Give each answer to its sink."""
        # Cleared before looking: a thread that posts later wakes the loop again.
        self._woken = False
        answers = self._answers
        try:
            while answers:
                # Removed only when resolved: a signal handler may raise at any point, and
                # resolving twice does nothing.
                answer = answers[0]
                sink, result = answer.sink, answer.result
                self.pending.discard(sink)  # first: who is resumed finds it ended
                if isinstance(result, BaseException):
                    sink.reject(result)
                else:
                    if not answer.counted:
                        answer.count(self._counters, result)
                        answer.counted = True
                    sink.complete(result, answer.mismatch)
                # Resolving may resume a job that delivers itself, as closing does.
                if answers and answers[0] is answer:
                    answers.popleft()
        finally:
            if answers:
                self._deliver_soon()
            elif self._empty is not None and not self.pending:
                self._empty.resolve(None)

    def _deliver_soon(self) -> None:
        while True:
            try:
                self.loop.call_soon(self.deliver)
            except NO_MEMORY:
                time.sleep(tuning.RESULTS_PAUSE_S)  # this thread could do nothing else either
            else:
                return

    async def wait_empty(self) -> None:
        """Return when nothing is pending.  A cancellation is delivered then, not earlier."""
        self.deliver()  # a signal handler that raised may have dropped an earlier call
        if self.pending:
            if self._empty is None:
                self._empty = Completion(loop=self.loop)
            await self._empty
