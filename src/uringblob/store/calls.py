"""The calls of an asynchronous file store: who may make them, how they run, and whether any is left.

The process and the loop that opened the store may, while it is open.
"""

from __future__ import annotations

import asyncio
import os
from asyncio import _get_running_loop
from collections.abc import Coroutine
from typing import Any, TypeVar

from uringblob.completion import Completion, call_surely, persist
from uringblob.errors import BlobStoreError, StoreClosed
from uringblob.owner import StoreOwner
from uringblob.store.core import Core
from uringblob.store.io.job import Job, join, let_go

T = TypeVar("T")


#: They leave without the frames of the read, which hold a view of the caller's buffer: the buffer is free
#: now, but asyncio holds a task's error until the loop's next iteration, and in ``wait_for`` and ``TaskGroup``
#: in a cycle until the garbage collector runs (CPython 3.11).
ENDS_OF_READS = (asyncio.CancelledError, BlobStoreError, GeneratorExit)


class Calls(StoreOwner):
    """The part of :class:`~uringblob.store.async_store.AsyncFileBlobStore`, whose attributes these are."""

    _core: Core
    _loop: asyncio.AbstractEventLoop
    _pid: int
    _closing: Completion[None] | None
    #: Calls that have begun and not ended, and what ``aclose`` waits for while there are any.
    _active: int
    _idle: Completion[None] | None

    @property
    def path(self) -> str:
        """The store file, symbolic links resolved."""
        return self._core.file.path

    @property
    def left_behind(self) -> bool:
        """Whether it is open and its event loop is closed: only ``aclose`` is of use then."""
        return self._core.file.fd >= 0 and self._loop.is_closed()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(f"the store {self.path} was opened before fork(): open it again in the child")

    def _check_open(self) -> None:
        """Raise if the store is closed, or was inherited through a fork."""
        self._check_process()
        if self._closing is not None:
            raise StoreClosed(f"the store {self.path} is closed: open it again")

    def _check_loop(self) -> None:
        """Raise, also, unless this runs on the store's own loop."""
        if os.getpid() != self._pid or self._closing is not None:
            self._check_open()
        if _get_running_loop() is self._loop:
            return
        if self._loop.is_closed():
            raise RuntimeError(
                f"the store {self.path} belongs to an event loop that is closed: await its "
                "aclose() on this one, which frees it without a flush, and open it again"
            )
        raise RuntimeError(
            f"the store {self.path} belongs to another event loop: use it on the loop "
            "that opened it, or use FileBlobStore from threads"
        )

    # --- who runs it ---------------------------------------------------------------------

    async def _change(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a change as a job: once begun it ends, even if the caller is cancelled."""
        self._active += 1
        job: Job[T] | None = None
        try:
            job = self._core.file_io.start(coroutine)
            return await join(job)
        except GeneratorExit:
            if job is not None and not job.done():
                # The caller was dropped: the job counts until it has ended.
                self._active += 1
                persist(job.add_immediate_callback, self._one_less)
            raise
        except ENDS_OF_READS:
            raise
        except BaseException:
            await let_go(self._core.file_io.engine, self._loop, job)  # a signal handler's
            raise
        finally:
            del job  # its exception's traceback refers to this function
            # Not a call first, in which a signal handler may raise.
            self._active -= 1
            self._resolve_idle()

    async def _read(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a read in the caller's task."""
        self._active += 1
        try:
            return await coroutine
        except ENDS_OF_READS as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same error
        except BaseException:
            await let_go(self._core.file_io.engine, self._loop)
            raise
        finally:
            self._active -= 1
            self._resolve_idle()

    def _one_less(self, _ended: object) -> None:
        self._active -= 1
        self._resolve_idle()

    def _resolve_idle(self) -> None:
        if self._active == 0 and self._idle is not None and not self._loop.is_closed():
            call_surely(self._loop, self._idle.resolve, None)
