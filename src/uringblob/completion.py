"""A future that cannot be cancelled: it resolves only when its I/O completes.

``Task.cancel()`` cancels the future that the task awaits.  For I/O that is wrong: the kernel still
owns the buffer.  A :class:`Completion` refuses to be cancelled, so a cancelled task is resumed with
``CancelledError`` only when the operation has completed (asyncio sets the task's cancel flag and
delivers it at the next step; checked on CPython 3.10 to 3.13).

Where there is no memory to schedule a callback, asyncio drops it and all behind it, and the future
counts as done: the awaiter would never be resumed.  :func:`set_outcome` schedules them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from uringblob.owner import Owner

__all__ = ["Completion", "Sink", "call_surely", "persist", "set_outcome"]

T = TypeVar("T")
R = TypeVar("R")

#: How often :func:`persist` tries.
TRIES: Final = 100

#: The base class's own, to be given to :func:`set_outcome`.
set_bare_result: Any = asyncio.Future.set_result
set_bare_exception: Any = asyncio.Future.set_exception


def persist(function: Callable[..., R], *args: Any, **options: Any) -> R:
    """Call ``function``; try again after a ``MemoryError``, with which it must have had no effect."""
    for _ in range(TRIES - 1):
        try:
            return function(*args, **options)
        except MemoryError:
            continue
    return function(*args, **options)


def call_surely(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> None:
    """Schedule ``callback``, which must be idempotent, twice.

    If a signal handler raises before its first line, the loop drops the first one.
    """
    persist(loop.call_soon, callback, *args)
    persist(loop.call_soon, callback, *args)


def set_outcome(completion: Completion[Any], set_bare: Callable[[Any, Any], object], outcome: object) -> None:
    """Resolve a completion that is not done, and schedule each of its callbacks."""
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
        # One by one: asyncio does not say how many it had scheduled when it failed.
        for callback, _ in waiters:
            completion.remove_done_callback(callback)
        set_bare(completion, outcome)
        for callback, context in waiters:
            persist(completion.add_done_callback, callback, context=context)


class Sink(Protocol):
    """Where the result of one operation goes.

    ``keep`` holds the operation's memory until :meth:`complete`.  ``light``: what it does then takes next to
    no time, so its bytes do not count for ``tuning.COMPLETED_BYTES_AT_ONCE``: else 64 writes of one group
    that ended together took 16 iterations, while the disk was idle.
    """

    keep: object

    @property
    def light(self) -> bool:
        """Whether its bytes do not count for those that one reaping completes."""

    def complete(self, result: int, mismatch: int = 0) -> None:
        """Take the result: bytes, or 0, or ``-errno``; idempotent.

        ``mismatch``: the frame was read wholly, and has another checksum than wanted.
        """

    def reject(self, error: BaseException, /) -> None:
        """Take an exception that is no answer of the system: a fault of this library."""


class Completion(Owner, asyncio.Future[T]):
    """A future that resolves when its operation completes, never earlier.

    Belongs to one event loop; only that loop's thread may use it.
    """

    __slots__ = ()

    light = False

    #: The memory of the operation, until it is complete.
    keep: object = None

    _resumes: list[Callable[[Completion[T]], object]] | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Refuse: only the operation itself resolves a completion."""
        return False

    def add_immediate_callback(self, callback: Callable[[Completion[T]], object]) -> None:
        """Call ``callback(self)`` inside the call that resolves this, not a loop iteration later.

        A commit is a chain of half a dozen awaits, and a trip through the loop costs each of them
        10 to 20 µs.  Only before the completion is resolved.
        """
        if self._resumes is None:
            self._resumes = []
        self._resumes.append(callback)

    def forward(self, sink: Sink) -> None:
        """Give ``sink`` the result, or the exception, when there is one."""

        def end(completion: Completion[Any]) -> None:
            error = completion.exception()
            if error is None:
                sink.complete(completion.result())
            else:
                sink.reject(error)

        if self.done():
            end(self)
        else:
            self.add_immediate_callback(end)

    def resolve(self, result: T) -> None:
        """Set the result and run the callbacks; idempotent, so that an interrupted reaper can start over."""
        if not self.done():
            set_outcome(self, set_bare_result, result)
        if self._resumes:
            self._resume_all()

    def reject(self, error: type | BaseException, /) -> None:
        """Set the exception; otherwise as :meth:`resolve`."""
        if not self.done():
            set_outcome(self, set_bare_exception, error)
        if self._resumes:
            self._resume_all()

    set_result = resolve
    set_exception = reject

    def complete(self, result: Any, mismatch: int = 0) -> None:
        """Resolve with an operation's result; see :class:`Sink`."""
        self.keep = None
        self.resolve(result)

    def _resume_all(self) -> None:
        resumes = self._resumes
        while resumes:
            callback = resumes.pop(0)
            try:
                callback(self)
            except BaseException:
                job: object = callback
                if isinstance(job, Completion):
                    # It is idempotent, and a signal handler may have raised before its first line.
                    call_surely(self.get_loop(), callback, self)
                raise
