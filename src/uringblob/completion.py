"""A promise that an operation in flight will end, which nobody can break.

``Task.cancel()`` cancels the future that the task awaits.  For I/O that is a lie: the kernel
still owns the buffer.  A :class:`Completion` refuses to be cancelled, so a cancelled task is
resumed with ``CancelledError`` only when the operation has really ended (asyncio sets the
task's cancel flag and delivers it at the next step; checked on CPython 3.10 to 3.13).
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

T = TypeVar("T")


class Completion(asyncio.Future[T]):
    """A future that ends when its operation ends, never earlier.

    Belongs to one event loop; only that loop's thread may touch it.
    """

    __slots__ = ()

    def cancel(self, msg: Any | None = None) -> bool:
        """Refuse: only the operation's own end resolves a completion."""
        return False

    def finish(self, result: T) -> None:
        """Resolve with ``result``; once resolved, further calls change nothing.

        Being idempotent lets a reaper that a signal handler interrupted start over.
        """
        if not self.done():
            self.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Resolve with ``error``; once resolved, further calls change nothing."""
        if not self.done():
            self.set_exception(error)
