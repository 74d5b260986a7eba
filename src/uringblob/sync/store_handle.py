"""What a facade holds: the right to post calls, which ends when nobody holds the facade."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from uringblob.errors import StoreClosed
from uringblob.owner import StoreOwner
from uringblob.sync.call import Call, Listener
from uringblob.sync.loop_thread import CLOSED, LoopThread

if TYPE_CHECKING:
    from uringblob.store.async_store import AsyncFileBlobStore

T = TypeVar("T")


class StoreHandle(StoreOwner):
    """Opens an asynchronous store on a completion loop of its own and steers it.

    :param opener: the coroutine function that opens the store; its errors are raised here.
    :param name: the thread's name.

    Every method may be called from any thread and from signal handlers.
    """

    def __init__(self, opener: Callable[[], Coroutine[Any, Any, AsyncFileBlobStore]], name: str) -> None:
        self.closed = True  # until there is something to close
        self._pid = os.getpid()
        self._loop = LoopThread(opener, name)
        try:
            self.closed = False
            self._loop.start()
            self._see_through(self._loop.open_call())
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
        """Raise if the store may not be used here."""
        if self.inherited:
            raise RuntimeError("this store was inherited through fork(): open it anew in the child")
        if self.closed:
            raise StoreClosed(CLOSED)

    def run(
        self,
        function: Callable[..., Coroutine[Any, Any, T]],
        *args: object,
    ) -> T:
        """Run ``function(*args)`` on the store's loop and wait for its end.

        :raises StoreClosed: the store is closed, or was closed meanwhile.
        :raises RuntimeError: in a forked child, in the store's own thread, at interpreter exit.
        """
        self.check()
        return self._see_through(Call(function, *args))

    def visit(self, function: Callable[..., int], *args: object) -> int:
        """Call ``function(*args)`` here, which waits for nothing that the store's thread does.

        Raises what :meth:`run` raises.
        """
        self.check()
        self._check_caller()
        try:
            answer = function(*args)
        except BaseException as error:
            _let_go(error)
            raise
        if self.inherited:
            self.check()  # a signal handler forked meanwhile, and the descriptor read from was closed
        return answer

    def run_telling(
        self,
        function: Callable[[Listener | None], Coroutine[Any, Any, T]],
        listener: Listener | None,
    ) -> T:
        """Do the same with ``function(tell)``; what it tells, ``listener`` hears in this thread."""
        self.check()
        if listener is None:
            return self._see_through(Call(function, None))

        def tell(done: int, total: int) -> None:
            call.tell(done, total)

        call: Call[T] = Call(function, tell, listener=listener)
        return self._see_through(call)

    def close(self, *, flush: bool) -> None:
        """Close the store and end the thread; a second call waits for the first's end, silently.

        :raises RuntimeError: in the store's own thread, or in a signal handler that interrupted a
            read of this thread's; the store stays open.
        """
        self._check_thread()
        try:
            interrupted = self._interrupts_a_read()
            # A child's descriptors were closed when it began.
            if not (interrupted or self.closed or self.inherited):
                self._end(flush=flush)
        except BaseException:
            # A handler may have raised before the end was asked for.  Asking twice is harmless, and
            # whoever is struck here still counts as open, so that its finalizer asks once more.
            if not self.inherited:
                self._loop.leave()
            self.closed = True
            raise
        if interrupted:
            raise RuntimeError(
                "close() waits for the read_blob() of this thread that the signal handler interrupted: "
                "close the store when that has returned"
            )
        self.closed = True

    def _check_thread(self) -> None:
        thread = self._loop.thread
        # A thread begun after the store's own has ended may have got its identifier.
        if threading.get_ident() == thread.ident and thread.is_alive():
            raise RuntimeError("the store's own thread cannot wait for the store")

    def _interrupts_a_read(self) -> bool:
        core = self._loop.core
        return core is not None and not self.inherited and core._caller_reads.interrupted

    def _check_caller(self) -> None:
        self._check_thread()
        if sys.is_finalizing():
            raise RuntimeError("the interpreter is exiting and the store's thread is gone")

    def _see_through(self, call: Call[T]) -> T:
        self._check_caller()
        return call.see_through(self._loop.post)

    def _end(self, *, flush: bool) -> None:
        if sys.is_finalizing():
            return  # the thread is frozen for ever
        if self._loop.thread.ident is None:
            self._loop.leave()  # not started, or only just: nothing was opened
            return
        leaving = self._loop.leave_call(flush=flush)
        try:
            self._see_through(leaving)
        finally:
            # A handler may have struck before the call was posted, and then nobody has asked the thread
            # to end; where it has rung, it has nothing left to do.  Posting twice is harmless.
            self._loop.post(leaving)
            self._loop.thread.join()

    def __del__(self) -> None:
        if not (getattr(self, "closed", True) or self.inherited or sys.is_finalizing()):
            self._loop.leave()


def _let_go(error: BaseException) -> None:
    """Clear our own frames that ``error`` came through: they know the caller's memory.

    The handler's frames stay: whoever looks for a fault in the handler needs them.
    """
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_globals.get("__name__", "").startswith("uringblob."):
            with contextlib.suppress(RuntimeError):  # those that run still
                step.tb_frame.clear()
                # A tracer's or debugger's copy of the locals stays on CPython 3.10 until it is asked for.
                _ = step.tb_frame.f_locals
        step = step.tb_next
