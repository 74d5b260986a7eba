"""A promise that an operation in flight will end, which nobody can break.

``Task.cancel()`` cancels the future that the task awaits.  For I/O that is a lie: the kernel
still owns the buffer.  A :class:`Completion` refuses to be cancelled, so a cancelled task is
resumed with ``CancelledError`` only when the operation has really ended (asyncio sets the
task's cancel flag and delivers it at the next step; checked on CPython 3.10 to 3.13).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

#: The base class's own, called without a detour: a read resolves one completion, and this is hot.
set_bare_result: Any = asyncio.Future.set_result


class Completion(asyncio.Future[T]):
    """A future that ends when its operation ends, never earlier.

    Belongs to one event loop; only that loop's thread may touch it.
    """

    __slots__ = ()

    #: Handing it out costs nothing while no job awaits it: see :data:`uringblob.ring.inflight.BYTES_AT_ONCE`.
    light = False

    def cancel(self, msg: Any | None = None) -> bool:
        """Refuse: only the operation's own end resolves a completion."""
        return False

    _resumes: list[Callable[[Completion[T]], object]] | None = None

    def then(self, resume: Callable[[Completion[T]], object]) -> None:
        """Call ``resume(self)`` at once when this resolves, not a loop iteration later.

        For the store's own jobs: a commit is a chain of half a dozen awaits, and a trip through
        the loop costs each of them 10 to 20 µs.  Only before the completion is resolved.
        """
        if self._resumes is None:
            self._resumes = []
        self._resumes.append(resume)

    def set_result(self, result: T) -> None:
        """Resolve with ``result``, and resume whoever asked with :meth:`then`."""
        super().set_result(result)
        if self._resumes:
            self._resume_all()

    def set_exception(self, error: type | BaseException, /) -> None:
        """Resolve with ``error``, and resume whoever asked with :meth:`then`."""
        super().set_exception(error)
        if self._resumes:
            self._resume_all()

    def _resume_all(self) -> None:
        resumes = self._resumes
        while resumes:
            resumes.pop(0)(self)

    def finish(self, result: T) -> None:
        """Resolve with ``result``; once resolved, further calls change nothing.

        Being idempotent lets a reaper that a signal handler interrupted start over.
        """
        if not self.done():
            set_bare_result(self, result)
        if self._resumes:
            self._resume_all()

    def fail(self, error: BaseException) -> None:
        """Resolve with ``error``; once resolved, further calls change nothing."""
        if not self.done():
            self.set_exception(error)
        elif self._resumes:
            self._resume_all()
