"""Results on their way from worker threads to the loop, with as few wake-ups as possible.

A thread rings the loop only if nobody has rung since the loop last began to empty the box, so
under load one wake-up carries many results.  There is no lock: ``deque`` may be re-entered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from uringblob.completion import Completion
from uringblob.engines.base import IoCounters

#: Adds an operation's result to the counters, on the loop's thread.
Count = Callable[[IoCounters, Any], None]


class Mailbox:
    """Results on their way from the threads to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: IoCounters) -> None:
        self.loop = loop
        self._counters = counters
        self.pending: set[Completion[Any]] = set()
        self._results: deque[tuple[Completion[Any], Count, Any]] = deque()
        self._rung = False
        self._empty: Completion[None] | None = None

    def post(self, completion: Completion[Any], count: Count, result: Any) -> None:
        """Hand over a result.  From any thread."""
        self._results.append((completion, count, result))
        if self._rung:
            return  # whoever rang did so before the loop looks, so it will find this one too
        self._rung = True
        try:
            self.loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            return  # the loop is closed: nobody is left to hear of it

    def _deliver(self) -> None:
        # Lowered before looking: a thread that posts later rings again.
        self._rung = False
        results = self._results
        try:
            while results:
                # Taken off only when resolved: a signal handler may raise at any point, and
                # resolving twice does nothing.
                completion, count, result = results[0]
                if isinstance(result, BaseException):
                    completion.fail(result)
                elif not completion.done():
                    count(self._counters, result)
                    completion.finish(result)
                self.pending.discard(completion)
                # Resolving may resume a job that empties the box itself, as closing does.
                if results and results[0][0] is completion:
                    results.popleft()
        finally:
            if results:
                self.loop.call_soon(self._deliver)
            elif self._empty is not None and not self.pending:
                self._empty.finish(None)

    async def wait_empty(self) -> None:
        """Return when nothing is pending.  A cancellation is delivered then, not earlier."""
        self._deliver()  # a signal handler that raised may have cost the loop an earlier call
        if self.pending:
            if self._empty is None:
                self._empty = Completion(loop=self.loop)
            await self._empty
