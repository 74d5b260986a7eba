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

A signal handler may raise between any two bytecodes of the caller, so the store's thread decides
whether a call begins and whether it has ended; submitting and notifying are idempotent.  A caller
returns only when the call has ended: until then the kernel may have its buffers.  ``docs/maintainers/design.md``
has a table of where a handler can raise.

The wake-up is a lock that the caller acquires and the store's thread releases.  Signals interrupt
the wait in the main thread (checked on CPython 3.10 to 3.13), and the release allocates nothing.
"""

from __future__ import annotations

import _thread
import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from uringblob.errors import StoreClosed

T = TypeVar("T")

#: Progress reports queued for a slow callback; of more, the oldest are dropped.
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
        """Start the coroutine, once; its end, unless cancelled before :attr:`begun`, calls ``done(self)``."""
        running = self._run(done)
        try:
            self.task = loop.create_task(running)
        except BaseException:
            running.close()
            raise

    async def _run(self, done: Callable[[LoopCall[Any]], object]) -> None:
        # ``done`` is no callback of the task: asyncio drops those that it has no memory to schedule.
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
            # The task must not be freed in the caller's thread: freeing it calls weak references back,
            # and Python ignores what a signal handler raises in one.
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
    """Raise ``RecursionError`` if the stack has no room for submitting, which would fail half-way."""
    if depth:
        _check_stack(depth - 1)
