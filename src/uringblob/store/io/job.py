"""A coroutine that the store drives itself, from its first step to its last.

A :class:`Job` is not an asyncio task, on purpose: it starts at once (no trip through the loop),
it is not in ``asyncio.all_tasks()``, and nothing cancels it, also not the end of
``asyncio.run``.  So the core of the store has no cancellation paths at all: a change, once
begun, is wholly done or has failed.  Cancelling a *caller* means waiting for its job's end
(:func:`join`).

A job may await completions and other jobs, which resume it at once, and any other asyncio
future, which resumes it through the loop.  ``Future.__await__`` yields the future,
``add_done_callback`` resumes the job.
Checked on CPython 3.10 to 3.13, and with uvloop.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from uringblob.completion import Completion, call_surely, persist
from uringblob.errors import BlobStoreError

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

#: What a job awaits that runs, or has ended.
_NOTHING: Final = object()


class Job(Completion[T]):
    """Drives ``coroutine``; resolves with its result or its exception.

    ``struck`` is told of an exception that no core raises: a signal handler's.
    Belongs to ``loop``'s thread.  An exception that is never looked at is logged by asyncio.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        struck: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._struck = struck
        self._coroutine = coroutine
        #: What resumes it; before the first step ``None``.
        self._awaited: object = None
        self._ended = False
        self._value: Any = None
        self._failure: BaseException | None = None
        try:
            super().__init__(loop=loop)
            self(None)
        except BaseException:
            if self._awaited is None:
                coroutine.close()  # it never began
            raise

    def __call__(self, resolved: asyncio.Future[Any] | None) -> None:
        """Go on after ``resolved``; if that was done already, change nothing."""
        if resolved is not self._awaited:
            if self._awaited is _NOTHING and not self._ended:
                self._strike(RuntimeError("between two steps"))  # what came of the last one was not noted
            self._end()
            return
        try:
            self._awaited = _NOTHING
            self._wait_for(self._coroutine.send(None))
        except StopIteration as stop:
            self._value, self._ended = stop.value, True
        except asyncio.CancelledError as error:
            # A Future may not hold CancelledError as its exception; nothing in the core raises it.
            self._failure, self._ended = RuntimeError(f"a store job was cancelled: {error!r}"), True
        except Exception as error:  # noqa: BLE001 - it is the job's outcome
            # Bare before it is stored: up to CPython 3.11 the task that it wakes keeps the traceback.
            self._failure, self._ended = bare(error), True
        except BaseException as error:
            # A signal handler raised inside the core, which only happens on a loop in the main
            # thread.  What this coroutine was about to do is lost, so the store may not go on as if
            # nothing had happened; the loop sees the exception, as it would from any callback.
            self._strike(error)
            self._end()
            raise
        # Resolving resumes whoever waits, at once.  Not inside an except clause: what they raised
        # would have this error as its context, with all the buffers that its traceback holds.
        self._end()

    def _wait_for(self, awaited: asyncio.Future[Any]) -> None:
        self._awaited = awaited
        # What a task does, too: it says that the future was taken note of, so that a second
        # awaiter is not refused.  (The attribute is in asyncio's documentation of futures.)
        awaited._asyncio_future_blocking = False
        if isinstance(awaited, Completion):
            persist(awaited.then, self)
        else:
            for _ in range(2):  # see call_surely
                persist(awaited.add_done_callback, self)

    def _strike(self, error: BaseException) -> None:
        if self._struck is not None:
            self._struck(error)
        self._failure = RuntimeError(f"a signal handler raised inside a store job: {error!r}")
        self._ended = True

    def _end(self) -> None:
        if not self._ended:
            return
        if self._failure is None:
            self.finish(self._value)
        else:
            self.fail(self._failure)


class Lock:
    """What one job at a time may hold; first come, first served.

    Not asyncio's: where that has no memory to wake the next one, it forgets that it waits.
    """

    def __init__(self) -> None:
        self._held = False
        self._waiting: collections.deque[Completion[None]] = collections.deque()

    def locked(self) -> bool:
        """Whether some job holds it."""
        return self._held

    async def __aenter__(self) -> None:
        if self._held:
            turn: Completion[None] = Completion(loop=asyncio.get_running_loop())
            self._waiting.append(turn)
            await turn  # it is held for this one then
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        if self._waiting:
            # Through the loop: a thousand who wait would be resumed one inside the other.
            turn = self._waiting[0]
            call_surely(turn.get_loop(), turn.finish, None)
            self._waiting.popleft()
        else:
            self._held = False


def bare(error: E) -> E:
    """Return ``error`` without its way through the core, which keeps the caller's buffers alive.

    An error that is a fault of ours keeps it.  Not ``traceback.clear_frames``: the committer's frame may
    be on that way, suspended in its next group by now, and before CPython 3.13 clearing a
    suspended frame ends its coroutine.
    """
    if isinstance(error, (BlobStoreError, asyncio.CancelledError)):
        error.__traceback__ = None
    return error


async def join(job: asyncio.Future[T]) -> T:
    """Wait for ``job``; if the waiting task is cancelled, wait on, then raise ``CancelledError``.

    ``job`` must refuse to be cancelled (a :class:`Completion` does), so asyncio delivers the
    cancellation only when the job is done.
    """
    try:
        return await job
    except asyncio.CancelledError:
        if job.done() and not job.cancelled():
            # The caller asked to be cancelled: the job's own error, if any, is not its concern.
            job.exception()
        raise


async def settle(jobs: Iterable[Awaitable[Any]]) -> list[BaseException]:
    """Wait until every one of ``jobs`` has ended; return the errors of those that failed."""
    errors: list[BaseException] = []
    for job in jobs:
        try:
            await job
        except Exception as error:  # noqa: BLE001 - returned, for the caller to raise
            errors.append(error)
    return errors


def end_of(job: asyncio.Future[Any]) -> Completion[None]:
    """Return a completion that resolves when ``job`` has ended, well or badly."""
    loop = job.get_loop()
    ended: Completion[None] = Completion(loop=loop)
    job.add_done_callback(lambda _: call_surely(loop, ended.finish, None))
    return ended
