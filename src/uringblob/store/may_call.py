"""Who may call an asynchronous file store: the process and the loop that opened it, while it is open."""

from __future__ import annotations

import asyncio
import os
from asyncio import _get_running_loop

from uringblob.completion import Completion
from uringblob.errors import StoreClosed
from uringblob.owner import StoreOwner
from uringblob.store.core import Core


class MayCall(StoreOwner):
    """The checks of :class:`~uringblob.store.async_store.AsyncFileBlobStore`, whose attributes these are."""

    _core: Core
    _loop: asyncio.AbstractEventLoop
    _pid: int
    _closing: Completion[None] | None

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
