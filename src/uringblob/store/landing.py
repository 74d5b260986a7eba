"""Frames on their way to their slots, for whoever needs to know them there.

A commit does not wait for its own frames: its group does, together with everybody else's.  So a
write that ends as it should resumes nobody.  With a job for each, 64 committers' completions, which
a virtual disk may report by one interrupt, took 0.9 ms until the group could be flushed, and the
disk had nothing to do meanwhile (Python 3.11, Linux 6.18).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any

from uringblob.completion import Completion
from uringblob.store.job import Job
from uringblob.store.medium import Medium


class Landing:
    """Awaited, it ends when every frame is wholly written, or raises why one is not.

    As often as wanted, by whomever, also by two at once.
    """

    __slots__ = ("_answer", "_finish", "_job", "_medium", "_size_bytes")

    def __init__(
        self,
        medium: Medium,
        answer: Completion[int],
        size_bytes: int,
        finish: Callable[[int], Coroutine[Any, Any, None]],
    ) -> None:
        """Say of one request that was made: ``finish(answer)`` brings it to its end where it fell short."""
        self._medium = medium
        answer.light = True
        self._answer = answer
        self._size_bytes = size_bytes
        self._finish: Callable[[int], Coroutine[Any, Any, None]] | None = finish
        self._job: Job[None] | None = None

    def __repr__(self) -> str:
        state = "done" if self.done() else "under way"
        return f"<Landing of {self._size_bytes} bytes, {state}>"

    def done(self) -> bool:
        """Whether nothing is in flight that anybody has asked for so far."""
        return self._answer.done() if self._job is None else self._job.done()

    @property
    def whole(self) -> bool:
        """Whether the one request was enough, and has ended."""
        return self._answer.done() and self._answer.result() == self._size_bytes

    def __await__(self) -> Generator[Any, None, None]:
        if self._job is None:
            got = yield from self._answer.__await__()
            if got != self._size_bytes and self._job is None and self._finish is not None:
                self._job = self._medium.start(self._finish(got))
            # It holds the caller's buffers, who wants to release them when his call returns.
            self._finish = None
        if self._job is not None:
            yield from self._job.__await__()
