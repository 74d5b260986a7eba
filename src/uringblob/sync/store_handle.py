"""Handle to the store's loop thread; dropping the last reference shuts the thread down."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from uringblob.errors import StoreClosed
from uringblob.owner import StoreOwner
from uringblob.sync.call import LoopCall, PlainCall
from uringblob.sync.loop_thread import CLOSED, LoopedCore, LoopThread

T = TypeVar("T")
S = TypeVar("S", bound=LoopedCore)


class StoreHandle(StoreOwner, Generic[S]):
    """Opens an asynchronous store in a loop thread of its own, and runs calls on it.

    :param opener: the coroutine function that opens the store; its errors are raised here.
    :param name: the thread's name.

    Every method may be called from any thread and from signal handlers.
    """

    def __init__(self, opener: Callable[[], Coroutine[Any, Any, S]], name: str) -> None:
        self.closed = True  # until there is something to close
        self._pid = os.getpid()
        self._loop: LoopThread[S] = LoopThread(opener, name)
        try:
            self.closed = False
            self._loop.start()
            self._wait(LoopCall(self._loop.open_core))
            assert self._loop.core is not None
            self.core = self._loop.core
        except BaseException:
            self.close(flush=False)
            raise

    @property
    def inherited(self) -> bool:
        """Whether this process is a forked child of the one that opened the store."""
        return os.getpid() != self._pid

    def check(self) -> None:
        """Raise if the store is closed, or was inherited through a fork."""
        if self.inherited:
            raise RuntimeError("this store was inherited through fork(): open it anew in the child")
        if self.closed:
            raise StoreClosed(CLOSED)

    def run(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        """Run ``function(*args)`` on the store's loop and wait for its end.

        :raises StoreClosed: the store is closed, or was closed meanwhile.
        :raises RuntimeError: in a forked child, in the store's own thread, at interpreter exit.
        """
        self.check()
        return self._wait(LoopCall(function, *args))

    def run_plain(
        self, start: Callable[..., bool], function: Callable[..., Coroutine[Any, Any, None]], *args: object
    ) -> None:
        """Do what :meth:`run` does, without a task where ``start`` can begin it; see :class:`PlainCall`."""
        self.check()
        self._wait(PlainCall(start, function, *args))

    def run_with_progress(
        self,
        function: Callable[[Callable[[int, int], object] | None], Coroutine[Any, Any, T]],
        progress: Callable[[int, int], object] | None,
    ) -> T:
        """Do the same with ``function(report)``; ``progress`` gets its reports, in this thread."""
        self.check()

        def report(done: int, total: int) -> None:
            call.report_progress(done, total)

        call: LoopCall[T] = LoopCall(function, None if progress is None else report, progress=progress)
        return self._wait(call)

    def run_in_caller(self, function: Callable[..., int], *args: object) -> int:
        """Call ``function(*args)`` here, which needs nothing of the store's thread.

        Raises what :meth:`run` raises.
        """
        self.check()
        self._check_caller()
        answer = function(*args)
        if self.inherited:
            self.check()  # a signal handler forked meanwhile, and the descriptor read from was closed
        return answer

    def close(self, *, flush: bool) -> None:
        """Close the store and end the thread; a second call waits for the first's end, silently.

        :raises RuntimeError: in the store's own thread, or in a signal handler that interrupted a
            read of this thread's; the store stays open.
        """
        self._check_thread()
        loop = self._loop
        if not self.inherited and loop.core is not None and loop.core._interrupted_read:
            raise RuntimeError(
                "close() waits for the read_blob() of this thread that the signal handler interrupted: "
                "close the store when that has returned"
            )
        if not (self.closed or self.inherited or sys.is_finalizing()):
            try:
                self._shut_down(flush=flush)
            except BaseException:
                # It may have failed before the shutdown was submitted.  A second one is harmless.
                self._loop.request_shutdown()
                self.closed = True
                raise
        self.closed = True

    def _shut_down(self, *, flush: bool) -> None:
        if self._loop.thread.ident is None:
            self._loop.request_shutdown()  # not started, or only just: nothing was opened
            return
        shutdown = self._loop.shutdown_call(flush=flush)
        try:
            self._wait(shutdown)
        finally:
            # A handler may have raised before the call was submitted; submitting twice is harmless.
            self._loop.submit(shutdown)
            self._loop.thread.join()

    def _check_thread(self) -> None:
        thread = self._loop.thread
        # A thread begun after the store's own has ended may have its identifier.
        if threading.get_ident() == thread.ident and thread.is_alive():
            raise RuntimeError("the store's own thread cannot wait for the store")

    def _check_caller(self) -> None:
        self._check_thread()
        if sys.is_finalizing():
            raise RuntimeError("the interpreter is exiting and the store's thread is gone")

    def _wait(self, call: LoopCall[T]) -> T:
        self._check_caller()
        return call.wait(self._loop.submit)

    def __del__(self) -> None:
        if not (getattr(self, "closed", True) or self.inherited or sys.is_finalizing()):
            self._loop.request_shutdown()
