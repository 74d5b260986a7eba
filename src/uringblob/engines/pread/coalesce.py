"""Writes that wait for a thread and follow one another in the file become one call.

64 committers give the pool 64 frames that lie side by side, and eight threads took them one by
one: the interpreter lock changes hands several times for each.  Put together, 1.8 times as many
frames of 4 KiB are written a second, 1.4 times as many of 64 KiB, and 1.03 to 1.15 of 512 KiB
(Python 3.11, Linux 6.18).  No write is held back for company: it is put to what no thread has taken yet.

There is no lock.  The loop's thread adds a part and then looks whether the run was taken; a worker
takes the run and then empties it.  So what the worker missed is what the loop has just added, and
the loop takes that back; a part goes to one of them, because ``deque.remove`` and ``popleft`` give it
to one only.  What does lie side by side is seen from the parts themselves, when all of them are there.
"""

from __future__ import annotations

import collections
import errno
from collections.abc import Callable, Iterator
from typing import Any, Final

from uringblob.completion import Completion
from uringblob.engines.base import IoCounters
from uringblob.engines.pread.results import ResultQueue

#: A larger run would keep one thread busy while others have nothing to do.
RUN_BYTES_MAX: Final = 2 * 1024 * 1024
#: ``pwritev`` takes 1,024 pieces; small frames need not come near it.
RUN_PARTS_MAX: Final = 64

#: Writes views from an offset on; returns bytes, ``-errno`` or an exception.
Write = Callable[["list[memoryview]", int], Any]


_NO_VIEWS: Final[list[memoryview]] = []


class Part:
    """One write of a run; its completion yields what it would have yielded alone."""

    __slots__ = ("completion", "offset", "result", "size_bytes", "views")

    def __init__(
        self, completion: Completion[int], offset: int, views: list[memoryview], size_bytes: int
    ) -> None:
        self.completion = completion
        self.offset = offset
        self.views = views
        self.size_bytes = size_bytes
        self.result: Any = -errno.ENOMEM  # what it is if there is no memory to say what came of it

    def __repr__(self) -> str:
        return f"<Part of {self.size_bytes} bytes at {self.offset}, result {self.result!r}>"

    @staticmethod
    def count(counters: IoCounters, result: int) -> None:
        """Count the bytes that were moved."""
        counters.bytes_written += max(result, 0)


class CoalescedWrite:
    """Writes that follow one another, on their way to one thread; see :class:`.crew.Work`."""

    __slots__ = ("_end", "_mailbox", "_mine", "_parts", "_posted", "_size_bytes", "_taken", "_write")

    def __init__(self, first: Part, write: Write, mailbox: ResultQueue) -> None:
        """Begin a run; ``write(views, offset)`` returns bytes, ``-errno`` or an exception."""
        self._write = write
        self._mailbox = mailbox
        self._parts = collections.deque([first])
        self._size_bytes = first.size_bytes
        self._end = first.offset + first.size_bytes
        self._taken = False
        #: The worker's: what it has taken, behind that ``None``.
        self._mine: list[Part | None] = [None]
        self._posted = 0

    def __repr__(self) -> str:
        state = "taken" if self._taken else "waiting"
        return f"<CoalescedWrite of {self._size_bytes} bytes up to {self._end}, {state}>"

    def add(self, part: Part) -> bool:
        """Add ``part`` if it follows and a worker may still come for it.  On the loop's thread.

        Ask :meth:`missed` afterwards.
        """
        if (
            self._taken
            or part.offset != self._end
            or len(self._parts) >= RUN_PARTS_MAX
            or self._size_bytes + part.size_bytes > RUN_BYTES_MAX
        ):
            return False
        self._size_bytes += part.size_bytes
        self._end += part.size_bytes
        self._parts.append(part)
        return True

    def missed(self, part: Part) -> bool:
        """Take ``part`` back if a worker has been here and did not see it.  On the loop's thread."""
        while self._taken:
            try:
                self._parts.remove(part)
            except ValueError:
                return False  # the worker has it
            except IndexError:
                continue  # the worker took another one meanwhile
            return True
        return False

    def work(self) -> None:
        """Write what there is; nothing is added any more.  In a worker."""
        self._taken = True
        self._take()
        for stretch in _stretches([part for part in self._mine if part is not None]):
            _write_together(stretch, self._write)

    def _take(self) -> None:
        mine = self._mine
        while self._parts:
            mine.append(None)  # room first: a part that was taken and not kept would be nobody's
            try:
                mine[-1] = self._parts.popleft()
            except IndexError:
                break  # the loop was quicker

    def post(self) -> None:
        """Post what came of each part.  In a worker; again, if there was no memory for it."""
        self._take()  # none, unless there was no memory before
        while self._posted < len(self._mine):
            part = self._mine[self._posted]
            if part is not None:
                part.views = _NO_VIEWS  # let go before the result is seen
                self._mailbox.post(part)
            self._posted += 1


def _stretches(parts: list[Part]) -> Iterator[list[Part]]:
    """Divide ``parts`` where one does not lie behind the one before.

    :meth:`CoalescedWrite.add` adds none that does not; but a signal handler that writes, or raises, may
    come in the middle of it, and no byte may go to another's place for that.
    """
    stretch: list[Part] = []
    for part in parts:
        if stretch and part.offset != stretch[-1].offset + stretch[-1].size_bytes:
            yield stretch
            stretch = []
        stretch.append(part)
    if stretch:
        yield stretch


def _write_together(parts: list[Part], write: Write) -> None:
    """Write ``parts`` by one call; give each what it would have got alone.

    Where the one call falls short or fails, each is written by itself: so an error goes to whom it
    belongs.
    """
    if len(parts) > 1:
        try:
            views = [view for part in parts for view in part.views]
            if write(views, parts[0].offset) == sum(part.size_bytes for part in parts):
                for part in parts:
                    part.result = part.size_bytes
                return
        except MemoryError:
            pass  # there may be enough for one at a time
    for part in parts:
        part.result = write(part.views, part.offset)
