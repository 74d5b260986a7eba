"""A promise that an operation in flight will end, which nobody can break.

``Task.cancel()`` cancels the future that the task awaits.  For I/O that is a lie: the kernel
still owns the buffer.  A :class:`Completion` refuses to be cancelled, so a cancelled task is
resumed with ``CancelledError`` only when the operation has really ended (asyncio sets the
task's cancel flag and delivers it at the next step; checked on CPython 3.10 to 3.13).

Nor is one who awaits it forgotten.  Where there is no memory to schedule a callback, asyncio drops it
and all behind it, and the future counts as done: the awaiter would sleep for ever (:func:`resolve`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from uringblob.owner import Owner

__all__ = ["Completion", "call_surely", "persist", "resolve"]

T = TypeVar("T")
R = TypeVar("R")

#: How often :func:`persist` tries.
TRIES: Final = 100

#: The base class's own, to be given to :func:`resolve`.
set_bare_result: Any = asyncio.Future.set_result
_set_bare_exception: Any = asyncio.Future.set_exception


def persist(function: Callable[..., R], *args: Any, **options: Any) -> R:
    """Call what somebody's waking hangs on; where there is no memory for it, again and again.

    ``function`` must not have begun when it raises ``MemoryError``.
    """
    for _ in range(TRIES - 1):
        try:
            return function(*args, **options)
        except MemoryError:
            continue
    return function(*args, **options)


def call_surely(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> None:
    """Have ``loop`` call ``callback``, for which a second call must change nothing.

    It is scheduled twice.  A signal handler that raises before the first line of a callback takes it away
    from the loop; then the other one comes.
    """
    persist(loop.call_soon, callback, *args)
    persist(loop.call_soon, callback, *args)


def resolve(completion: Completion[Any], set_bare: Callable[[Any, Any], object], outcome: object) -> None:
    """Resolve one that is not done, and have each of its callbacks scheduled."""
    waiters = completion._callbacks
    if not waiters:
        set_bare(completion, outcome)
    elif len(waiters) == 1:
        try:
            set_bare(completion, outcome)
        except MemoryError:
            if not completion.done():
                raise
            callback, context = waiters[0]
            persist(completion.add_done_callback, callback, context=context)
    else:
        # One by one: asyncio would not say how many it had scheduled when it failed.
        for callback, _ in waiters:
            completion.remove_done_callback(callback)
        set_bare(completion, outcome)
        for callback, context in waiters:
            persist(completion.add_done_callback, callback, context=context)


class Completion(Owner, asyncio.Future[T]):
    """A future that ends when its operation ends, never earlier.

    Belongs to one event loop; only that loop's thread may touch it.
    """

    __slots__ = ()

    #: Handing it out costs nothing while no job awaits it: see :data:`uringblob.ring.completions.BYTES_AT_ONCE`.
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
        resolve(self, set_bare_result, result)
        if self._resumes:
            self._resume_all()

    def set_exception(self, error: type | BaseException, /) -> None:
        """Resolve with ``error``, and resume whoever asked with :meth:`then`."""
        resolve(self, _set_bare_exception, error)
        if self._resumes:
            self._resume_all()

    def _resume_all(self) -> None:
        resumes = self._resumes
        while resumes:
            resume = resumes.pop(0)
            try:
                resume(self)
            except BaseException:
                job: object = resume
                if isinstance(job, Completion):
                    # It may have been struck before its first line, and knows whether it was.
                    call_surely(self.get_loop(), resume, self)
                raise

    def finish(self, result: T) -> None:
        """Resolve with ``result``; once resolved, further calls change nothing.

        Being idempotent lets a reaper that a signal handler interrupted start over.
        """
        if not self.done():
            resolve(self, set_bare_result, result)
        if self._resumes:
            self._resume_all()

    def fail(self, error: BaseException) -> None:
        """Resolve with ``error``; once resolved, further calls change nothing."""
        if not self.done():
            resolve(self, _set_bare_exception, error)
        if self._resumes:
            self._resume_all()
