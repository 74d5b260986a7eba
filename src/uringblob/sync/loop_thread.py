"""The thread behind a synchronous store: one asyncio loop, which lives as long as the store.

Everything about a call is decided in this thread (:meth:`LoopThread._take`), so there is no
lock to hold, and a finalizer or a signal handler may post at any time.

The thread is a daemon.  A thread that is not would keep an interpreter alive whose user forgot to
close; one that ``atexit`` stops would be gone before the user's own exit handlers, which may want
to close their stores.  So leaving an open store to the interpreter's end is what killing the
process is: nothing is flushed, nothing is torn, and the kernel lets the lock go.

The thread keeps this object and the store's core alive, and never the facade: a facade that
nobody holds is collected, and asks this thread to leave.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import selectors
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from uringblob.completion import persist
from uringblob.errors import StoreClosed
from uringblob.logs import logger
from uringblob.owner import StoreOwner
from uringblob.sync.call import Call

if TYPE_CHECKING:
    from uringblob.store.async_store import AsyncFileBlobStore

#: Signals that a thread raises itself by a fault: blocked, they would kill without a traceback.
FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP}

CLOSED = "the store is closed: open it again"


class NoThread(RuntimeError):
    """The system has no thread to give for a store's loop."""


class LoopThread(StoreOwner):
    """An asyncio loop in a thread of its own, and the asynchronous store that lives on it."""

    def __init__(self, opener: Callable[[], Coroutine[Any, Any, AsyncFileBlobStore]], name: str) -> None:
        self.core: AsyncFileBlobStore | None = None
        self._opener = opener
        self._posted: deque[Call[Any]] = deque()
        self._running: set[Call[Any]] = set()
        self._leaving: list[Call[Any]] = []
        self._core_closed = False
        self._made_in = threading.get_native_id()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        # It has no thread before it is given work.
        self._executor = concurrent.futures.ThreadPoolExecutor(thread_name_prefix=name)
        self._selector = selectors.DefaultSelector()
        try:
            self._loop = asyncio.SelectorEventLoop(self._selector)
        except BaseException:
            self._selector.close()
            raise
        self._loop.set_default_executor(self._executor)
        _loops.add(self)

    # -- from any thread, signal handler or finalizer -----------------------------------------

    def start(self) -> None:
        """Start the thread.

        :raises NoThread: the system has none to give.
        :raises RuntimeError: ``threading`` was patched to give none.
        """
        try:
            self.thread.start()
        except RuntimeError as error:
            if error.__context__ is not None:
                # A signal handler raised while threading waited for the thread, and upset its lock:
                # the thread runs, and what the handler raised is what the caller shall see.
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

    def post(self, call: Call[Any]) -> None:
        """Have the thread look at ``call``: begin it, or cancel it if it was struck."""
        self._posted.append(call)
        try:
            self._loop.call_soon_threadsafe(self._look)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            self._refuse()

    def leave(self) -> None:
        """Ask the thread to close the core without a flush and to end; do not wait."""
        self.post(self.leave_call(flush=False))

    def open_call(self) -> Call[None]:
        """Return the call that opens the core."""
        return Call(self._open)

    def leave_call(self, *, flush: bool) -> Call[None]:
        """Return the call that closes the core and ends the thread; it rings at the very end."""
        return Call(self._close, flush, sturdy=True)

    # -- in the thread ------------------------------------------------------------------------

    async def _open(self) -> None:
        self.core = await self._opener()

    async def _close(self, flush: bool) -> None:
        core = self.core
        while core is not None and not core.closed:
            try:
                await core.aclose(flush)
            except MemoryError:
                if core.closed:
                    raise  # else it could not even begin, and nobody would come back for it

    def _look(self) -> None:
        while self._posted:
            call = self._posted.popleft()
            try:
                self._take(call)
            except Exception as error:  # noqa: BLE001 - no memory, most likely: it is this call's alone
                self._not_begun(call, error)

    def _not_begun(self, call: Call[Any], error: Exception) -> None:
        """``call`` could not be begun: it ends with ``error``, but closing is tried until it begins."""
        if call.sturdy:
            self._posted.append(call)
        else:
            self._running.discard(call)
            call.refuse(error)

    def _take(self, call: Call[Any]) -> None:
        if call.ended:
            pass  # posted once more than needed
        elif call.task is not None:
            if call.struck is not None and not call.sturdy:
                call.task.cancel()
                if not call.begun:  # nor will it ever be
                    call.task = None
                    self._done(call)
        elif call.sturdy:
            if call not in self._leaving:
                self._leaving.append(call)
            # A struck caller posts again, also between the core's end and the bell at the thread's own.
            if self._leaving[0] is call and not self._core_closed:
                call.begin(self._loop, self._closed)
        elif call.struck is not None:
            call.refuse(None)
        elif self._core_closed:
            call.refuse(StoreClosed(CLOSED))
        else:
            self._running.add(call)
            call.begin(self._loop, self._done)

    def _done(self, call: Call[Any]) -> None:
        self._running.discard(call)
        call.ring()

    def _closed(self, call: Call[Any]) -> None:
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
            return  # a greenlet in the caller's own thread, whose signals are not to be blocked
        # Handlers run in the main thread; a signal delivered here would not wake it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - FAULTS)
        try:
            self._loop.run_forever()
            while self._running:
                persist(self._wind_up)
        finally:
            try:
                # Not shutdown_default_executor(), which starts a thread: there may be none to be had.
                self._executor.shutdown()
                self._loop.close()
            finally:
                _loops.discard(self)
                self._core_closed = True
                self._posted.extend(self._running)  # none, unless something broke the loop
                self._refuse()

    def _wind_up(self) -> None:
        """Cancel what runs still: the core has settled every operation, so it waits for nothing."""
        for call in list(self._running):
            if call.task is not None:
                call.task.cancel()
            if call.task is None or not call.begun:
                self._running.discard(call)
                call.refuse(StoreClosed(CLOSED))
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()

    def _refuse(self) -> None:
        # Whoever posted before the loop was closed is found here by the thread; whoever comes
        # later finds the loop closed and does this himself.
        while self._posted:
            try:
                call = self._posted.popleft()
            except IndexError:
                break  # another thread took it
            if call not in self._leaving:
                call.refuse(None if call.sturdy else StoreClosed(CLOSED))
        for call in self._leaving:
            call.ring()

    # -- in a forked child --------------------------------------------------------------------

    def abandon(self) -> None:
        """Close this process's copies of descriptors; touch nothing that the parent shares.

        The loop is not closed: that would take its descriptors out of the epoll set, which is
        the parent's too.
        """
        if self.core is not None:
            self.core.abandon()
        self._selector.close()
        for call in [*self._running, *self._posted, *self._leaving]:
            call.refuse(RuntimeError("this call began before fork(), in the parent"))


_loops: weakref.WeakSet[LoopThread] = weakref.WeakSet()


def _abandon_all() -> None:
    for loop in list(_loops):
        loop.abandon()


os.register_at_fork(after_in_child=_abandon_all)
