"""A coroutine that the store drives itself, from its first step to its last.

A :class:`Job` is not an asyncio task: it starts at once (no trip through the loop), it is not in
``asyncio.all_tasks()``, and nothing cancels it, not even the end of ``asyncio.run``.  So the core
has no cancellation paths: a change, once begun, is completed or fails.  Cancelling a *caller* waits
for its job to end (:func:`join`).

A job may await completions and other jobs, which resume it at once, and any other asyncio
future, which resumes it through the loop.  ``Future.__await__`` yields the future,
``add_done_callback`` resumes the job.  Checked on CPython 3.10 to 3.13, and with uvloop.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, ParamSpec, TypeVar

from uringblob import tuning
from uringblob.completion import Completion, call_surely, persist
from uringblob.engines.base import Engine
from uringblob.errors import BlobStoreError

T = TypeVar("T")
P = ParamSpec("P")

#: The ``_awaited`` of a job whose step is running, or that has ended.
_NOTHING: Final = object()


class Job(Completion[T]):
    """Drives ``coroutine``; resolves with its result or its exception.

    ``on_interrupt`` is called with an exception that a signal handler raised inside the coroutine.
    Belongs to ``loop``'s thread.  asyncio logs an exception that is never retrieved.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        on_interrupt: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._on_interrupt = on_interrupt
        self._coroutine = coroutine
        #: The future whose callback is the next step; before the first step ``None``.
        self._awaited: object = None
        #: The coroutine's result and its exception, once it has ended.
        self._outcome: tuple[Any, BaseException | None] | None = None
        try:
            super().__init__(loop=loop)
            self(None)
        except BaseException:
            if self._awaited is None:
                coroutine.close()  # it never began
            raise

    def __call__(self, resolved: asyncio.Future[Any] | None) -> None:
        """Run the next step after ``resolved``; idempotent."""
        if resolved is not self._awaited:
            if self._awaited is _NOTHING and self._outcome is None:
                # A handler raised in the last step, before its outcome was stored.
                self._interrupt(RuntimeError("between two steps"))
            self._end()
            return
        try:
            self._awaited = _NOTHING
            self._wait_for(self._coroutine.send(None))
        except StopIteration as stop:
            self._outcome = stop.value, None
        except asyncio.CancelledError as error:
            # A Future may not hold CancelledError as its exception; the core does not raise it.
            self._outcome = None, RuntimeError(f"a store job was cancelled: {error!r}")
        except Exception as error:  # noqa: BLE001 - it is the job's outcome
            # The functions in a traceback refer to jobs that hold the error, and to the caller's buffers:
            # these cycles would keep a lease until the collector runs.  A fault of ours keeps its own.
            self._outcome = None, error.with_traceback(None) if isinstance(error, BlobStoreError) else error
        except BaseException as error:
            # A signal handler raised inside the core, which only happens on a loop in the main
            # thread.  The rest of this coroutine is lost, so the store may not go on as if nothing
            # had happened; the loop gets the exception, as from any callback.
            self._interrupt(error)
            self._end()
            raise
        # Not inside an except clause: resolving resumes the jobs that wait, and what they raise would
        # have this error as its context.
        self._end()

    def _wait_for(self, awaited: asyncio.Future[Any]) -> None:
        self._awaited = awaited
        # As a task does: it says that the future was seen, so that a second awaiter is not refused.
        # (The attribute is in asyncio's documentation of futures.)
        awaited._asyncio_future_blocking = False
        if isinstance(awaited, Completion):
            persist(awaited.add_immediate_callback, self)
        else:
            for _ in range(2):  # see call_surely
                persist(awaited.add_done_callback, self)

    def _interrupt(self, error: BaseException) -> None:
        if self._on_interrupt is not None:
            self._on_interrupt(error)
        self._outcome = None, RuntimeError(f"a signal handler raised inside a store job: {error!r}")

    def _end(self) -> None:
        if self._outcome is None:
            return
        result, error = self._outcome
        if error is None:
            self.resolve(result)
        else:
            self.reject(error)


class Lock:
    """A lock for jobs and tasks; first come, first served.

    Not asyncio's, which forgets a waiter where there is no memory to wake it.  And no ``async with``: a signal
    handler that raises at the beginning of ``__aexit__`` would leave it held for ever.
    """

    def __init__(self) -> None:
        self._held = False
        self._owner: object = None
        self._waiting: collections.deque[tuple[Completion[None], object]] = collections.deque()

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return self._held

    async def run(self, work: Callable[P, Awaitable[T]], *arguments: P.args, **options: P.kwargs) -> T:
        """Hold it while ``work(*arguments)`` is awaited."""
        owner = object()
        try:
            try:
                if not self.try_acquire(owner):
                    await self._wait(owner)
                return await work(*arguments, **options)
            finally:
                self.release_from(owner)
        finally:
            self.release_from(owner)  # again: a signal handler may have raised at the first one's beginning

    def try_acquire(self, owner: object) -> bool:
        """Take it for ``owner`` if nobody holds it; :meth:`release_from` ends that."""
        if self._held:
            return False
        # A signal handler can raise after a call only, so not between these two.
        self._owner = owner
        self._held = True
        return True

    def release_from(self, owner: object) -> None:
        """Let the next one have it, if ``owner`` holds it: may be repeated where a signal handler raised."""
        if self._owner is owner:
            self.release()

    async def _wait(self, owner: object) -> None:
        turn: Completion[None] = Completion(loop=asyncio.get_running_loop())
        try:
            self._waiting.append((turn, owner))
            await turn  # a cancelled task gets its turn, too, and lets go of the lock at once
        except BaseException:
            self._waiting = collections.deque(entry for entry in self._waiting if entry[0] is not turn)
            raise

    def release(self) -> None:
        """Let the next one have it."""
        if self._waiting:
            # Through the loop: a thousand waiters would be resumed one inside the other.
            turn, owner = self._waiting[0]
            call_surely(turn.get_loop(), turn.resolve, None)
            self._owner = owner
            self._waiting.popleft()  # at once after it, as in try_acquire
        else:
            self._held = False
            self._owner = None


async def join(job: asyncio.Future[T]) -> T:
    """Wait for ``job``; if the waiting task is cancelled, wait on, then raise ``CancelledError``.

    ``job`` must refuse to be cancelled (a :class:`Completion` does), so asyncio delivers the
    cancellation only when the job is done.
    """
    try:
        return await job
    except asyncio.CancelledError:
        if job.done() and not job.cancelled():
            job.exception()  # retrieved: the cancelled caller does not get it
        raise
    finally:
        del job  # its exception's traceback refers to this function


async def wait_all(jobs: Iterable[Awaitable[Any]]) -> list[BaseException]:
    """Wait until every one of ``jobs`` has ended; return the errors of those that failed."""
    errors: list[BaseException] = []
    for job in jobs:
        try:
            await job
        except Exception as error:  # noqa: BLE001 - returned, for the caller to raise
            errors.append(error)
    return errors


def when_done(job: asyncio.Future[Any]) -> Completion[None]:
    """Return a completion that resolves when ``job`` has ended, with or without an error."""
    loop = job.get_loop()
    ended: Completion[None] = Completion(loop=loop)
    job.add_done_callback(lambda _: call_surely(loop, ended.resolve, None))
    return ended


async def let_go(
    engine: Engine, loop: asyncio.AbstractEventLoop, job: asyncio.Future[Any] | None = None
) -> None:
    """Wait until what is in flight now has ended, and ``job``, if it is known.

    A signal handler raised between a request and its ``await``: the kernel may have the caller's frame, and
    nobody knows the request any more.
    """
    left = engine.sinks()
    while left or (job is not None and not job.done()):
        engine.poll()  # it also submits what the handler has kept from being submitted
        there = engine.sinks()
        left = [sink for sink in left if sink in there]
        pause: Completion[None] = Completion(loop=loop)
        loop.call_later(tuning.RESULTS_PAUSE_S, pause.resolve, None)
        with contextlib.suppress(asyncio.CancelledError):  # the call ends with the handler's exception
            await pause
