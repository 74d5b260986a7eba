"""A contender serves loads for a while and describes its settings."""

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
from uringblob_bench.drive import Driven, TaskCall, ThreadCall, drive_tasks, drive_threads, serve_by_task
from uringblob_bench.load import Load, Params
from uringblob_bench.meter import Worker
from uringblob_bench.sample import Sample
from uringblob_bench.workdir import WorkDir

T = TypeVar("T")

_ENDING = (signal.SIGINT, signal.SIGTERM)


class CannotRun(Exception):
    """A contender cannot do it here: not installed, not allowed, or no such operation.  That is no fault."""


def require(module: str) -> None:
    """Make sure that a peer is installed.

    :raises CannotRun: it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise CannotRun(f"{module} is not installed")


class Contender(abc.ABC):
    """Takes turns.  It keeps nothing open between turns, so that contenders do not disturb each other."""

    name: str
    #: How a write becomes durable, where the contender does not sync by itself.
    durability = ""

    def __init__(self, params: Params, workdir: WorkDir) -> None:
        self.params = params
        self.workdir = workdir

    def cold(self, loads: Sequence[Load]) -> bool:  # noqa: ARG002 - most have no page cache
        """Whether reads go through the page cache.

        It is emptied before the turn then, there is no warm-up, and every frame is read at most once.
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
    """A contender whose loads are served on an event loop, by a task for each worker or as ``serve`` does it."""

    serve: Callable[[Any, Worker], Coroutine[Any, Any, None]] = staticmethod(serve_by_task)

    @abc.abstractmethod
    def session(
        self, loads: Sequence[Load]
    ) -> contextlib.AbstractAsyncContextManager[Callable[[Load, int], TaskCall]]:
        """Open for one turn; yields a function that makes a worker's call."""

    def extra(self) -> dict[str, Any]:
        """Return counters of the turn that ended."""
        return {}

    def turn(self, loads: Sequence[Load], seconds: float) -> list[Sample]:

        async def work() -> Driven:
            async with self.session(loads) as call_for:
                warm_up = not self.cold(loads)
                return await drive_tasks(call_for, loads, seconds, warm_up=warm_up, serve=self.serve)

        with one_core(self.params.one_core):
            driven = run_on(self.params.loop, work(), self.params.wakeup)
        return driven.samples(self.params.page_size, **self.extra())


class ThreadContender(Contender):
    """A contender whose loads are served by blocking threads."""

    @abc.abstractmethod
    def session(
        self, loads: Sequence[Load]
    ) -> contextlib.AbstractContextManager[Callable[[Load, int], ThreadCall]]:
        """Open for one turn; yields a function that makes a worker's call."""

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
        # A signal that comes before its handler is set raises here: then the task has not begun.
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
    """Make Ctrl-C, and SIGTERM where it raises ``KeyboardInterrupt``, cancel ``task``, and raise it then.

    Raised in the middle of the loop's work it would lose a callback that a task awaits.  The second signal
    raises at once.
    """
    main = threading.current_thread() is threading.main_thread()
    raising = [number for number in _ENDING if signal.getsignal(number) is signal.default_int_handler]
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True
        task.cancel()

    for number in raising if main else ():
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    except asyncio.CancelledError:
        if interrupted:
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
