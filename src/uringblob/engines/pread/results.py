"""Results on their way from worker threads to the loop, with as few wake-ups as possible.

A thread rings the loop only if nobody has rung since the loop last began to empty the box, so
under load one wake-up carries many results.  There is no lock: ``deque`` may be re-entered.

What has an answer knows its mailbox, and a thread knows neither but while it works for it: so what is
forgotten with its loop can be collected, although its threads are there to wait for more.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from uringblob.completion import Completion
from uringblob.engines.base import IoCounters

#: Seconds until the next try where there is no memory for a wake-up.
PAUSE_SECONDS: Final = 0.001

#: What an allocation that fails is raised as; CPython says SystemError where it has none for the error.
NO_MEMORY: Final = (MemoryError, SystemError)

#: Adds an operation's result to the counters, on the loop's thread.
Count = Callable[[IoCounters, Any], None]


class Answer(Protocol):
    """An operation's promise, and what came of it."""

    @property
    def completion(self) -> Completion[Any]:
        """Resolved with the result."""
        ...

    @property
    def count(self) -> Count:
        """Counts the result."""
        ...

    @property
    def result(self) -> Any:
        """What came of it; an exception is raised to whoever awaits the completion."""
        ...


class ResultQueue:
    """Results on their way from the threads to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: IoCounters) -> None:
        self.loop = loop
        self._counters = counters
        self.pending: set[Completion[Any]] = set()
        self._results: deque[Answer] = deque()
        self._rung = False
        self._empty: Completion[None] | None = None

    def post(self, answer: Answer) -> None:
        """Hand over an answer.  From any thread; twice is harmless.

        :raises MemoryError: the loop may not hear of it: post it again.
        """
        self._results.append(answer)
        if self._rung:
            return  # whoever rang did so before the loop looks, so it will find this one too
        self._rung = True
        try:
            self.loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            return  # the loop is closed: nobody is left to hear of it
        except BaseException:
            self._rung = False  # whoever relied on this ring has posted, and hears of the next one
            raise

    def _deliver(self) -> None:
        # Lowered before looking: a thread that posts later rings again.
        self._rung = False
        results = self._results
        try:
            while results:
                # Taken off only when resolved: a signal handler may raise at any point, and
                # resolving twice does nothing.
                answer = results[0]
                completion, result = answer.completion, answer.result
                if isinstance(result, BaseException):
                    completion.reject(result)
                elif not completion.done():
                    answer.count(self._counters, result)
                    completion.resolve(result)
                self.pending.discard(completion)
                # Resolving may resume a job that empties the box itself, as closing does.
                if results and results[0] is answer:
                    results.popleft()
        finally:
            if results:
                self._deliver_soon()
            elif self._empty is not None and not self.pending:
                self._empty.resolve(None)

    def _deliver_soon(self) -> None:
        while True:
            try:
                self.loop.call_soon(self._deliver)
            except NO_MEMORY:
                time.sleep(PAUSE_SECONDS)  # nothing else in this thread could go on either
            else:
                return

    async def wait_empty(self) -> None:
        """Return when nothing is pending.  A cancellation is delivered then, not earlier."""
        self._deliver()  # a signal handler that raised may have cost the loop an earlier call
        if self.pending:
            if self._empty is None:
                self._empty = Completion(loop=self.loop)
            await self._empty
