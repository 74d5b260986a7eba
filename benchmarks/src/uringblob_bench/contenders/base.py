"""What a contender is: something that serves loads for a while, and says how it was set up."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import importlib.util
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, TypeVar

from uringblob_bench.contenders.eventfd import EventfdWakeup
from uringblob_bench.drive import Driven, TaskCall, ThreadCall, drive_tasks, drive_threads
from uringblob_bench.interleave import CannotRun
from uringblob_bench.load import Load, Params
from uringblob_bench.sample import Sample
from uringblob_bench.workdir import WorkDir

T = TypeVar("T")

_ENDING = (signal.SIGINT, signal.SIGTERM)


def require(module: str) -> None:
    """Make sure that a peer is installed.

    :raises CannotRun: it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise CannotRun(f"{module} is not installed")


class Contender(abc.ABC):
    """Takes turns.  Between turns nothing of it is open, so contenders do not disturb each other."""

    name: str
    #: What stands for durability, where the contender would not sync by itself.
    durability = ""

    def __init__(self, params: Params, workdir: WorkDir) -> None:
        self.params = params
        self.workdir = workdir

    def cold(self, loads: Sequence[Load]) -> bool:  # noqa: ARG002 - most have no page cache
        """Whether reads would come from the page cache.

        Then it is emptied before the turn, there is no warm-up, and every frame is read once at most.
        """
        return False

    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what it was run with."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Make its files, once; not timed."""

    @abc.abstractmethod
    def turn(self, loads: Sequence[Load], seconds: float) -> list[Sample]:
        """Serve ``loads`` for ``seconds``."""


class TaskContender(Contender):
    """Served by tasks of an event loop."""

    @abc.abstractmethod
    def session(
        self, loads: Sequence[Load]
    ) -> contextlib.AbstractAsyncContextManager[Callable[[Load, int], TaskCall]]:
        """Open for one turn; yields what makes a worker's call."""

    def extra(self) -> dict[str, Any]:
        """Return counters of the turn that ended."""
        return {}

    def turn(self, loads: Sequence[Load], seconds: float) -> list[Sample]:

        async def work() -> Driven:
            async with self.session(loads) as call_for:
                return await drive_tasks(call_for, loads, seconds, warm_up=not self.cold(loads))

        with one_core(self.params.one_core):
            driven = run_on(self.params.loop, work(), self.params.wakeup)
        return driven.samples(self.params.page_size, **self.extra())


class ThreadContender(Contender):
    """Served by threads that block."""

    @abc.abstractmethod
    def session(
        self, loads: Sequence[Load]
    ) -> contextlib.AbstractContextManager[Callable[[Load, int], ThreadCall]]:
        """Open for one turn; yields what makes a worker's call."""

    def turn(self, loads: Sequence[Load], seconds: float) -> list[Sample]:
        with one_core(self.params.one_core), self.session(loads) as call_for:
            driven = drive_threads(call_for, loads, seconds, warm_up=not self.cold(loads))
        return driven.samples(self.params.page_size)


def run_on(loop_kind: str, coroutine: Coroutine[Any, Any, T], wakeup: str = "ring") -> T:
    """Run ``coroutine`` on a new loop: see :attr:`Params.loop` and :attr:`Params.wakeup`."""
    loop = _new_loop(loop_kind, wakeup)
    task = loop.create_task(coroutine)
    try:
        with _ended_by_signals(loop, task):
            return loop.run_until_complete(task)
    finally:
        # A signal may come before anybody heeds it: then the task has not even begun.
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _new_loop(kind: str, wakeup: str) -> asyncio.AbstractEventLoop:
    loop_class: Any = asyncio.SelectorEventLoop
    if kind == "uvloop":
        import uvloop

        loop_class = uvloop.Loop
    if wakeup == "eventfd":
        loop_class = type("EventfdLoop", (EventfdWakeup, loop_class), {})
    loop: asyncio.AbstractEventLoop = loop_class()
    return loop


@contextlib.contextmanager
def _ended_by_signals(loop: asyncio.AbstractEventLoop, task: asyncio.Task[T]) -> Generator[None, None, None]:
    """Have Ctrl-C (and what else raises ``KeyboardInterrupt``) cancel ``task``, then be raised.

    Raised in the middle of the loop's work it would lose a callback that somebody waits for.
    The second one is raised at once.
    """
    main = threading.current_thread() is threading.main_thread()
    raising = [number for number in _ENDING if signal.getsignal(number) is signal.default_int_handler]
    struck = False

    def strike() -> None:
        nonlocal struck
        if struck:
            raise KeyboardInterrupt
        struck = True
        task.cancel()

    for number in raising if main else ():
        loop.add_signal_handler(number, strike)
    try:
        yield
    except asyncio.CancelledError:
        if struck:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number in raising if main else ():
            loop.remove_signal_handler(number)
            signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def one_core(wanted: bool) -> Generator[None, None, None]:
    """Keep this process's threads on one CPU, the last of those it may use."""
    if not wanted or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
