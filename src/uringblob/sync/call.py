"""One call of the synchronous face: posted, begun, ended; or struck.

::

    caller's thread                         the store's thread
    ---------------                         ------------------
    post ──────────────────────────────────► take: begin the coroutine
    wait for the call's own bell                 │
       ▲  a handler raises here                  │
       │  strike, post again ──────────────► take: cancel it; never begin it if not begun
       │                                         ▼
    outcome ◄────────────────────────────── end: ring the bell

Python runs signal handlers in the main thread between any two steps, and lets them raise there.
So nothing here is owned by the caller's step: whether a call begins, and when it has ended, is
decided in the store's thread alone; posting twice is harmless; ringing twice is harmless; and the
waiting loop stands in a second one, because the first one's own ``except`` can be struck too.
A caller leaves only when the call has ended, so its buffers are never left to the kernel.

The bell is a lock that the caller takes and the store's thread releases.  A wait for it is
interrupted by signals in the main thread (checked on CPython 3.10 to 3.13), and ringing allocates
nothing: an end that there is no memory to say is a caller who waits for ever.
"""

from __future__ import annotations

import _thread
import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from uringblob.errors import StoreClosed

T = TypeVar("T")
Listener = Callable[[int, int], object]

#: What a slow listener has not been called with yet; of more, the oldest are left out.
UNHEARD_MAX = 1024


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
        self.task: asyncio.Task[None] | None = None
        self.begun = False
        #: What ended it; raised in the caller's thread.
        self.error: BaseException | None = None
        self._function = function
        self._args = args
        self._listener = listener
        self._news: deque[tuple[int, int]] = deque(maxlen=UNHEARD_MAX)
        self._bell = _thread.allocate_lock()
        self._bell.acquire()
        self._result: Any = None

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
        self._bell.acquire()

    def _over(self) -> bool:
        return self.ended and (self.struck is not None or not self._news)

    def _wait(self) -> None:
        while not self._over():
            if self._news and self._listener is not None and self.struck is None:
                self._listener(*self._news.popleft())
            else:
                self._bell.acquire()

    def _outcome(self) -> T:
        struck, error = self.struck, self.error
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
            self.struck = self.error = None
            self._args = ()

    # -- in the store's thread ----------------------------------------------------------------

    def begin(self, loop: asyncio.AbstractEventLoop, done: Callable[[Call[Any]], object]) -> None:
        """Start the coroutine; once only.  ``done(self)`` is called at its end.

        A call whose task is cancelled before :attr:`begun` never begins, and has no end.
        """
        running = self._run(done)
        try:
            self.task = loop.create_task(running)
        except BaseException:
            running.close()
            raise

    async def _run(self, done: Callable[[Call[Any]], object]) -> None:
        # The end is said in here and not in a callback of the task's: asyncio loses all of those
        # when there is no memory to schedule one.
        self.begun = True
        try:
            self._result = await self._function(*self._args)
        except asyncio.CancelledError:
            # Nobody but closing cancels a call that was not struck.
            struck = self.struck is not None
            self.error = None if struck else StoreClosed("the store was closed during this call")
        except GeneratorExit:
            self.error = StoreClosed("the store's thread ended during this call")
            raise
        except BaseException as error:  # noqa: BLE001 - it is the caller's
            # Its traceback would keep the core's views of the caller's buffers alive.  It is dropped,
            # not cleared: the committer's frame may be on it, and clearing a suspended one ends it.
            self.error = error.with_traceback(None)
        finally:
            # Its end calls weak references back, and Python swallows what a signal handler raises in
            # one; so the task must not end in the caller's thread.
            self.task = None
            done(self)

    def tell(self, done: int, total: int) -> None:
        """Have the listener called, in the caller's thread, with this, if it does not lag far behind."""
        self._news.append((done, total))
        self._wake()

    def refuse(self, error: BaseException | None) -> None:
        """End a call that was never begun, with ``error``."""
        if not self.ended:
            self.error = error
            self.ring()

    def ring(self) -> None:
        """Say that the call has ended; saying it twice is harmless."""
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        try:
            self._bell.release()
        except (RuntimeError, MemoryError):
            return  # it has rung already, and the caller has not come to it
