"""Who may use an asynchronous store: the process and the event loop that opened it, until it is closed."""

from __future__ import annotations

import asyncio
import os

from uringblob.completion import Completion
from uringblob.errors import StoreClosed
from uringblob.store.core import Core


class Belonging:
    """What an asynchronous store checks before it does anything."""

    _core: Core
    _loop: asyncio.AbstractEventLoop
    _pid: int
    _closing: Completion[None] | None

    @property
    def left_behind(self) -> bool:
        """Whether it is open and its event loop is closed: nothing but ``aclose`` is of use then."""
        return self._core.file.fd >= 0 and self._loop.is_closed()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"the store {self._core.file.path} was opened before fork(): open it again in the child"
            )

    def _check_usable(self) -> None:
        self._check_process()
        if self._closing is not None:
            raise StoreClosed(f"the store {self._core.file.path} is closed: open it again")

    def _check_loop(self) -> None:
        if os.getpid() != self._pid or self._closing is not None:
            self._check_usable()
        if running_loop() is not self._loop:
            if self._loop.is_closed():
                raise RuntimeError(
                    f"the store {self._core.file.path} belongs to an event loop that is closed: await its "
                    "aclose() on this one, which frees it without a flush, and open it again"
                )
            raise RuntimeError(
                f"the store {self._core.file.path} belongs to another event loop: use it on the loop "
                "that opened it, or use FileBlobStore from threads"
            )


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
