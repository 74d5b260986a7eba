"""One call of the synchronous store: submitted, begun, ended; or interrupted by a signal handler.

::

    caller's thread                         the store's thread
    ---------------                         ------------------
    submit ────────────────────────────────► dispatch: begin the coroutine
    wait for the call's wake-up                  │
       ▲  a handler raises here                  │
       │  interrupted_by, submit again ─────► dispatch: cancel it; if not begun, never begin it
       │                                         ▼
    outcome ◄────────────────────────────── end: notify

Python runs signal handlers in the main thread between any two bytecodes, and they may raise there.
So the caller's thread decides nothing: whether a call begins, and whether it has ended, is decided
in the store's thread.  Submitting twice and notifying twice are harmless.
A caller returns only when the call has ended, so the kernel never has a buffer whose call is over.
``docs/design.md`` has a table of where a handler can raise.

The wake-up is a lock that the caller acquires and the store's thread releases.  Signals interrupt
the wait for it in the main thread (checked on CPython 3.10 to 3.13), and the release allocates
nothing, so it cannot fail.
"""

from __future__ import annotations

import _thread
import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from uringblob.errors import StoreClosed

T = TypeVar("T")

#: Progress reports that a slow callback has not had yet; of more, the oldest are dropped.
PROGRESS_QUEUED_MAX = 1024

#: Stack frames that submitting needs, with asyncio's debug mode.
_SUBMIT_DEPTH = 30


class LoopCall(Generic[T]):
    """A coroutine to run in the store's thread, and its outcome.

    :param uncancellable: once submitted it runs, interrupted or not: closing is such a call.
    :param progress: called in the caller's thread with the arguments of :meth:`report_progress`.
    """

    def __init__(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: object,
        uncancellable: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> None:
        self.uncancellable = uncancellable
        #: What a signal handler, or ``progress``, raised in the caller's thread.
        self.interrupted_by: BaseException | None = None
        self.ended = False
        self.task: asyncio.Task[None] | None = None
        self.begun = False
        #: The coroutine's exception, to be raised in the caller's thread.
        self.error: BaseException | None = None
        self._function = function
        self._args = args
        self._progress = progress
        self._reports: deque[tuple[int, int]] = deque(maxlen=PROGRESS_QUEUED_MAX)
        self._wakeup = _thread.allocate_lock()
        self._wakeup.acquire()
        self._result: Any = None

    # -- in the caller's thread ---------------------------------------------------------------

    def wait(self, submit: Callable[[LoopCall[Any]], None]) -> T:
        """Submit the call, wait until it has ended, and return or raise its outcome.

        :raises RecursionError: the stack has no room to submit it; it does not begin.
        """
        _check_stack(_SUBMIT_DEPTH)
        while not self._over():
            try:
                while not self._over():
                    try:
                        submit(self)
                        self._wait()
                    except BaseException as error:  # noqa: BLE001 - kept, and raised by _outcome
                        self._interrupt(error)
            except BaseException as error:  # noqa: BLE001 - of two signals pending at once, the second
                self._interrupt(error)
        return self._outcome()

    def _interrupt(self, error: BaseException) -> None:
        if self.interrupted_by is None:
            self.interrupted_by = error

    def _over(self) -> bool:
        return self.ended and (self.interrupted_by is not None or not self._reports)

    def _wait(self) -> None:
        while not self._over():
            if self._reports and self._progress is not None and self.interrupted_by is None:
                self._progress(*self._reports.popleft())
            else:
                self._wakeup.acquire()

    def _outcome(self) -> T:
        interrupt, error = self.interrupted_by, self.error
        try:
            if interrupt is not None:
                if error is not None and interrupt.__cause__ is None:
                    interrupt.__cause__ = error
                raise interrupt
            if error is not None:
                raise error
            result: T = self._result
            return result
        finally:
            # The exception's traceback refers to this function: a cycle, with the caller's buffers.
            del interrupt, error
            self.interrupted_by = self.error = None

    # -- in the store's thread ----------------------------------------------------------------

    def begin(self, loop: asyncio.AbstractEventLoop, done: Callable[[LoopCall[Any]], object]) -> None:
        """Start the coroutine, once; ``done(self)`` is called at its end.

        A call whose task is cancelled before :attr:`begun` never begins, and has no end.
        """
        running = self._run(done)
        try:
            self.task = loop.create_task(running)
        except BaseException:
            running.close()
            raise

    async def _run(self, done: Callable[[LoopCall[Any]], object]) -> None:
        # ``done`` is called in here and not by a callback of the task's: asyncio drops those where
        # there is no memory to schedule them.
        self.begun = True
        try:
            self._result = await self._function(*self._args)
        except asyncio.CancelledError:
            # Closing cancels calls that were not interrupted.
            if self.interrupted_by is None:
                self.error = StoreClosed("the store was closed during this call")
        except GeneratorExit:
            self.error = StoreClosed("the store's thread ended during this call")
            raise
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self.error = error
        finally:
            # A task that ends calls weak references back, and Python ignores what a signal handler
            # raises in one; so the task must not end in the caller's thread.
            self.task = None
            done(self)

    def report_progress(self, done: int, total: int) -> None:
        """Queue a call of ``progress`` in the caller's thread."""
        self._reports.append((done, total))
        self._wake()

    def reject(self, error: BaseException | None) -> None:
        """End a call that was never begun, with ``error``."""
        if not self.ended:
            self.error = error
            self.notify()

    def notify(self) -> None:
        """Note that the call has ended, and wake the caller; idempotent."""
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        try:
            self._wakeup.release()
        except (RuntimeError, MemoryError):
            return  # it is released already: the caller has not resumed yet


def _check_stack(depth: int) -> None:
    """Raise ``RecursionError`` if the stack has no room for so many calls.

    Submitting a call could fail half-way for lack of it, and again with every attempt to cancel it.
    """
    if depth:
        _check_stack(depth - 1)
