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
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Job


class PendingWrite:
    """Awaited, it ends when every frame is wholly written, or raises why one is not.

    As often as wanted, by whomever, also by two at once.
    """

    __slots__ = ("_answer", "_file_io", "_finish", "_job", "_size_bytes")

    def __init__(
        self,
        file_io: FileIO,
        answer: Completion[int],
        size_bytes: int,
        finish: Callable[[int], Coroutine[Any, Any, None]],
    ) -> None:
        """Say of one request that was made: ``finish(answer)`` brings it to its end where it fell short."""
        self._file_io = file_io
        answer.light = True
        self._answer = answer
        self._size_bytes = size_bytes
        self._finish: Callable[[int], Coroutine[Any, Any, None]] | None = finish
        self._job: Job[None] | None = None

    def __repr__(self) -> str:
        state = "done" if self.done() else "under way"
        return f"<PendingWrite of {self._size_bytes} bytes, {state}>"

    def done(self) -> bool:
        """Whether every frame is wholly written, or has failed for good."""
        return self.whole if self._job is None else self._job.done()

    @property
    def answer(self) -> Completion[int]:
        """What the engine says to the request: with it :meth:`finish_short` knows what is left to do."""
        return self._answer

    @property
    def whole(self) -> bool:
        """Whether the one request was enough, and has ended."""
        answer = self._answer
        return answer.done() and answer.exception() is None and answer.result() == self._size_bytes

    def finish_short(self) -> None:
        """Begin to finish what fell short, if that is known by now; do not wait for it."""
        answer = self._answer
        if self._job is None and answer.done() and answer.exception() is None and not self.whole:
            assert self._finish is not None  # given up only for a job, or when all was whole
            self._job = self._file_io.start(self._finish(answer.result()))
            self._finish = None

    def __await__(self) -> Generator[Any, None, None]:
        if self._job is None:
            yield from self._answer.__await__()
            self.finish_short()
        # It holds the caller's buffers, who wants to release them when his call returns.
        self._finish = None
        if self._job is not None:
            yield from self._job.__await__()
