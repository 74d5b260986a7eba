"""One call of the synchronous face: posted, begun, ended; or struck.

::

    caller's thread                         the store's thread
    ---------------                         ------------------
    post ──────────────────────────────────► take: begin the coroutine
    wait on the call's own inbox                 │
       ▲  a handler raises here                  │
       │  strike, post again ──────────────► take: cancel it; never begin it if not begun
       │                                         ▼
    outcome ◄────────────────────────────── end: ring the inbox

Python runs signal handlers in the main thread between any two steps, and lets them raise there.
So nothing here is owned by the caller's step: whether a call begins, and when it has ended, is
decided in the store's thread alone; posting twice is harmless; ringing twice is harmless; and the
waiting loop stands in a second one, because the first one's own ``except`` can be struck too.
A caller leaves only when the call has ended, so its buffers are never left to the kernel.

The inbox is a ``queue.SimpleQueue``: written in C, safe to enter again from a signal handler, and
a wait in it is interrupted by signals in the main thread (checked on CPython 3.10 to 3.13).
"""

from __future__ import annotations

import _thread
import asyncio
import queue
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from uringblob.errors import StoreClosed

T = TypeVar("T")
Listener = Callable[[int, int], object]


class Call(Generic[T]):
    """A coroutine to run in the store's thread, and what became of it.

    :param sturdy: once asked for it happens, struck or not: closing is such a call.
    :param listener: called in the caller's thread with what the coroutine gives to :meth:`tell`.
    """

    def __init__(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: object,
        sturdy: bool = False,
        listener: Listener | None = None,
    ) -> None:
        self.sturdy = sturdy
        #: What a signal handler, or the listener, raised in the caller's thread.
        self.struck: BaseException | None = None
        self.ended = False
        self.task: asyncio.Task[T] | None = None
        self._function = function
        self._args = args
        self._listener = listener
        self._inbox: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self._result: Any = None
        self._error: BaseException | None = None

    # -- in the caller's thread ---------------------------------------------------------------

    def see_through(self, post: Callable[[Call[Any]], None]) -> T:
        """Post the call, wait for its end whatever strikes, and return or raise its outcome."""
        while not self._over():
            try:
                while not self._over():
                    try:
                        post(self)
                        self._wait()
                    except BaseException as error:  # noqa: BLE001 - kept, and raised by _outcome
                        if isinstance(error, RecursionError) and self.struck is not None:
                            self._post_elsewhere(post)
                        self.struck = error if self.struck is None else self.struck
            except BaseException as error:  # noqa: BLE001 - the same, one belt further out
                self.struck = error if self.struck is None else self.struck
        return self._outcome()

    def _post_elsewhere(self, post: Callable[[Call[Any]], None]) -> None:
        """Post in another thread: the stack of this one is used up."""
        _thread.start_new_thread(post, (self,))
        self._inbox.get()

    def _over(self) -> bool:
        return self.ended and (self.struck is not None or self._inbox.empty())

    def _wait(self) -> None:
        while not self._over():
            news = self._inbox.get()
            if news is not None and self._listener is not None and self.struck is None:
                self._listener(*news)

    def _outcome(self) -> T:
        struck, error = self.struck, self._error
        try:
            if struck is not None:
                if error is not None and struck.__cause__ is None:
                    struck.__cause__ = error
                raise struck
            if error is not None:
                raise error
            result: T = self._result
            return result
        finally:
            # The exception's traceback knows this frame, and would keep the caller's buffers.
            del struck, error
            self.struck = self._error = None
            self._args = ()

    # -- in the store's thread ----------------------------------------------------------------

    def begin(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[T]:
        """Start the coroutine; once only."""
        self.task = loop.create_task(self._function(*self._args))
        return self.task

    def tell(self, done: int, total: int) -> None:
        """Have the listener called, in the caller's thread, with this."""
        self._inbox.put((done, total))

    def settle(self, task: asyncio.Task[T]) -> None:
        """Keep what the task came to, and let go of it.

        Its end calls weak references back, and Python swallows what a signal handler raises in
        one; so the task must not end in the caller's thread.
        """
        self.task = None
        if task.cancelled():
            # Nobody but closing cancels a call that was not struck.
            struck = self.struck is not None
            self._error = None if struck else StoreClosed("the store was closed during this call")
        elif (error := task.exception()) is not None:
            # Its traceback would keep the core's views of the caller's buffers alive.  It is dropped,
            # not cleared: the committer's frame may be on it, and clearing a suspended one ends it.
            self._error = error.with_traceback(None)
        else:
            self._result = task.result()

    def refuse(self, error: BaseException | None) -> None:
        """End a call that was never begun, with ``error``."""
        if not self.ended:
            self._error = error
            self.ring()

    def ring(self) -> None:
        """Say that the call has ended; saying it twice is harmless."""
        self.ended = True
        self._inbox.put(None)
