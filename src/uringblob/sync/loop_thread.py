"""The thread behind a synchronous store: one asyncio loop, which lives as long as the store.

Everything about a call is decided in this thread (:meth:`LoopThread._dispatch`), so there is no
lock, and a finalizer or a signal handler may submit at any time.

The thread is a daemon: any other would keep an interpreter alive whose user forgot to close, and one
that ``atexit`` stopped would end before the user's exit handlers, which may close their stores.  So
a store that is open when the interpreter ends is as after a kill: not flushed, not torn, not locked.

The thread does not refer to the synchronous store, whose finalizer requests the shutdown.
"""

from __future__ import annotations

import asyncio
import selectors
import signal
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from uringblob import fork
from uringblob.completion import persist
from uringblob.errors import StoreClosed
from uringblob.logs import logger
from uringblob.owner import StoreOwner
from uringblob.sync.call import LoopCall

#: Signals that a thread raises itself by a fault: blocked, they would kill without a traceback.
FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP}

CLOSED = "the store is closed: open it again"


class NoThread(RuntimeError):
    """The system has no thread for a store's loop."""


class LoopedCore(Protocol):
    """An asynchronous store, as far as its thread knows it."""

    @property
    def closed(self) -> bool: ...
    @property
    def path(self) -> str: ...
    @property
    def _interrupted_read(self) -> bool:
        """Whether a signal handler that runs in this thread interrupted a read that closing would wait for."""

    async def aclose(self, flush: bool = True) -> None: ...


S = TypeVar("S", bound=LoopedCore)


class LoopThread(StoreOwner, Generic[S]):
    """An asyncio loop in a thread of its own, and the asynchronous store that runs on it."""

    def __init__(self, opener: Callable[[], Coroutine[Any, Any, S]], name: str) -> None:
        self.core: S | None = None
        self._opener = opener
        self._submitted: deque[LoopCall[Any]] = deque()
        self._running: set[LoopCall[Any]] = set()
        #: Calls that close the core; the first one does, the others wait for the thread's end.
        self._closers: list[LoopCall[Any]] = []
        self._core_closed = False
        self._made_in = threading.get_native_id()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._selector = selectors.DefaultSelector()
        try:
            self._loop = asyncio.SelectorEventLoop(self._selector)
        except BaseException:
            self._selector.close()
            raise
        fork.remember(self)

    # -- from any thread, signal handler or finalizer -----------------------------------------

    def start(self) -> None:
        """Start the thread.

        :raises NoThread: the system has none.
        :raises RuntimeError: ``threading`` was patched and starts none.
        """
        try:
            self.thread.start()
        except RuntimeError as error:
            if error.__context__ is not None:
                # A signal handler raised while threading waited for the thread, and upset its lock:
                # the thread runs, and the caller gets what the handler raised.
                raise error.__context__ from None
            self._loop.close()
            raise NoThread(str(error)) from error
        if self.thread.native_id == self._made_in:
            self._loop.close()
            raise RuntimeError(
                "a synchronous store needs a thread of its own, and threading.Thread gave none: it was patched "
                "to run greenlets (gevent.monkey, eventlet).  Leave threading unpatched "
                "(gevent.monkey.patch_all(thread=False)), or open the store in another process"
            )

    def submit(self, call: LoopCall[Any]) -> None:
        """Have the thread dispatch ``call``: begin it, or cancel it if it was interrupted."""
        self._submitted.append(call)
        try:
            self._loop.call_soon_threadsafe(self._dispatch_submitted)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            self._reject_submitted()

    def request_shutdown(self) -> None:
        """Submit a close of the core without a flush, which ends the thread; do not wait."""
        self.submit(self.shutdown_call(flush=False))

    def shutdown_call(self, *, flush: bool) -> LoopCall[None]:
        """Return the call that closes the core and ends the thread, and ends with it."""
        return LoopCall(self._close, flush, uncancellable=True)

    # -- in the thread ------------------------------------------------------------------------

    async def open_core(self) -> None:
        """Open the asynchronous store."""
        self.core = await self._opener()

    async def _close(self, flush: bool) -> None:
        core = self.core
        while core is not None and not core.closed:
            try:
                await core.aclose(flush)
            except MemoryError:
                if core.closed:
                    raise  # else it did not even begin: try again

    def _dispatch_submitted(self) -> None:
        while self._submitted:
            call = self._submitted.popleft()
            try:
                self._dispatch(call)
            except Exception as error:  # noqa: BLE001 - no memory, most likely: it ends this call alone
                if call.uncancellable:
                    self._submitted.append(call)  # closing must begin: dispatch it again
                else:
                    self._running.discard(call)
                    call.reject(error)

    def _dispatch(self, call: LoopCall[Any]) -> None:
        if call.ended or (call.begun and call.task is None):
            pass  # submitted once more than needed, or begun without a task: it ends by itself
        elif call.task is not None:
            if call.interrupted_by is not None and not call.uncancellable:
                call.task.cancel()
                if not call.begun:  # then it never begins
                    call.task = None
                    self._done(call)
        elif call.uncancellable:
            if call not in self._closers:
                self._closers.append(call)
            # An interrupted caller submits again, also between the core's end and the thread's.
            if self._closers[0] is call and not self._core_closed:
                call.begin(self._loop, self._closed)
        elif call.interrupted_by is not None:
            call.reject(None)
        elif self._core_closed:
            call.reject(StoreClosed(CLOSED))
        else:
            self._running.add(call)
            call.alone = not self._submitted and len(self._running) == 1
            call.begin(self._loop, self._done)

    def _done(self, call: LoopCall[Any]) -> None:
        self._running.discard(call)
        call.notify()

    def _closed(self, call: LoopCall[Any]) -> None:
        self._core_closed = True
        try:
            if call.error is not None:
                path = "a store" if self.core is None else self.core.path
                logger.warning(
                    "closing %s failed: %s", path, call.error, extra={"event": "close_failed", "path": path}
                )
        finally:
            self._loop.stop()

    def _run(self) -> None:
        if threading.get_native_id() == self._made_in:
            return  # a greenlet in the caller's own thread, whose signals must not be blocked
        # Handlers run in the main thread; a signal delivered here would not wake it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - FAULTS)
        try:
            self._loop.run_forever()
            while self._running:
                persist(self._cancel_running)
        finally:
            try:
                self._loop.close()
            finally:
                fork.forget(self)
                self._core_closed = True
                self._submitted.extend(self._running)  # none, unless an error ended the loop
                self._reject_submitted()

    def _cancel_running(self) -> None:
        """Cancel the calls that still run: the closed core has no operation in flight."""
        for call in list(self._running):
            if call.task is not None:
                call.task.cancel()
            if call.task is None or not call.begun:
                self._running.discard(call)
                call.reject(StoreClosed(CLOSED))
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()

    def _reject_submitted(self) -> None:
        # A call submitted before the loop was closed is rejected by this thread, a later one by its
        # own caller, who finds the loop closed.
        while self._submitted:
            try:
                call = self._submitted.popleft()
            except IndexError:
                break  # another thread took it
            if call not in self._closers:
                call.reject(None if call.uncancellable else StoreClosed(CLOSED))
        for call in self._closers:
            call.notify()

    # -- in a forked child --------------------------------------------------------------------

    def abandon(self) -> None:
        """Close this process's copy of the selector, and end every call.

        The loop is not closed: that would remove its descriptors from the epoll set, which is
        shared with the parent.
        """
        self._selector.close()
        for call in [*self._running, *self._submitted, *self._closers]:
            call.reject(RuntimeError("this call began before fork(), in the parent"))
