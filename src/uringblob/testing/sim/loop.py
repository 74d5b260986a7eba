"""An event loop without time, threads or descriptors: what runs next is decided by a seed alone.

Callbacks run in the order in which they were scheduled, as asyncio's own loop does it.  After each round
the *devices* (simulated engines) may complete some of what is in flight.  Timers fire when
nothing else can happen, and the clock jumps to them.  If nothing at all can happen, the program
under test is deadlocked: :class:`SimStuck`.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import heapq
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: Called after each round; ``idle`` says that nothing else can happen.  True: something did.
Device = Callable[[bool], bool]
_Ready = tuple[asyncio.Handle, Callable[..., object], tuple[Any, ...]]


class SimStuck(AssertionError):
    """Every task waits, and nothing is in flight: a deadlock in the program under test."""


class SimLoop(asyncio.AbstractEventLoop):
    """Runs coroutines deterministically.  An exception in a callback ends the run and is raised.

    ``complaints`` collects what asyncio would have logged (an exception never retrieved, say).
    """

    def __init__(self) -> None:
        self.complaints: list[dict[str, Any]] = []
        self._ready: collections.deque[_Ready] = collections.deque()
        self._timers: list[tuple[float, int, _Ready]] = []
        self._timers_made = 0
        self._now = 0.0
        self._devices: list[Device] = []

    def __repr__(self) -> str:
        return f"<SimLoop ready={len(self._ready)} timers={len(self._timers)} devices={len(self._devices)}>"

    # --- running -------------------------------------------------------------------------

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` as a task to its end and return its result.

        May be called while another :class:`SimLoop` of this thread runs.

        :raises SimStuck: it waits, and nothing that could end the wait is in flight.
        """
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            task: asyncio.Task[T] = self.create_task(coroutine)
            while not task.done():
                if not self._round() and not task.done():
                    raise SimStuck("every task waits, and nothing is in flight")
            return task.result()
        finally:
            asyncio._set_running_loop(outer)

    def _round(self) -> bool:
        """Run what is ready, then poll the devices; return false if nothing can happen any more."""
        ready = self._ready
        for _ in range(len(ready)):
            handle, callback, args = ready.popleft()
            if not handle.cancelled():
                callback(*args)
        moved = False
        for device in list(self._devices):
            moved |= device(not ready)
        if moved or ready:
            return True
        if not self._timers:
            return False
        self._now, _, entry = heapq.heappop(self._timers)
        ready.append(entry)
        return True

    def add_device(self, device: Device) -> None:
        """Poll ``device`` after each round from now on."""
        self._devices.append(device)

    def remove_device(self, device: Device) -> None:
        """Stop polling ``device``; an unknown one is no error."""
        if device in self._devices:
            self._devices.remove(device)

    # --- asyncio's loop interface --------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if context is None:
            self._ready.append((handle, callback, args))
        else:
            self._ready.append((handle, context.run, (callback, *args)))
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Do what :meth:`call_soon` does: there is one thread."""
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back at ``delay``; the clock stands still until nothing else can happen."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        run = callback if context is None else context.run
        given = args if context is None else (callback, *args)
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, (handle, run, given)))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is skipped when its time comes."""

    def time(self) -> float:
        """Return the simulated time in seconds."""
        return self._now

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, **options)

    def get_debug(self) -> bool:
        """Return false: debugging would look at the clock."""
        return False

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        """Return false: there is nothing to close."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep ``context`` in :attr:`complaints`."""
        self.complaints.append(context)
