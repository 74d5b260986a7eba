"""What is durable, by the one rule there is: a flush counts for what was complete when it began.

Time is a counter of events.  A *unit* (a slot, or a block) is durable when all of its bytes were
written before a flush began that has returned 0, if no other flush that overlapped this one failed.
"""

from __future__ import annotations

import errno

#: Answers after which the same write is tried again: it moved nothing, or never began.
AGAIN = frozenset({-errno.EINTR, -errno.EAGAIN, -errno.ECANCELED})
#: Answers after which the room may be used again at once.
NO_ROOM = frozenset({-errno.ENOSPC, -errno.EDQUOT, -errno.EFBIG})


class Unit:
    """A stretch that is written as a whole: ``ended`` is when it was, or 0.

    ``reached`` is how far; ``busy`` counts the writes in flight into it; ``failed`` says that one
    failed for another reason than room; ``blank`` that what is written are zeroes; ``checksum`` is that of
    the frame that is written, or ``None``.
    """

    __slots__ = ("blank", "busy", "checksum", "end", "ended", "failed", "reached", "start")

    def __init__(self, start: int, end: int, *, blank: bool = False) -> None:
        self.start = self.reached = start
        self.end = end
        self.ended = 0
        self.busy = 0
        self.failed = False
        self.blank = blank
        self.checksum: int | None = None


class Clock:
    """Counts events, and knows up to which of them writes are durable."""

    def __init__(self) -> None:
        self.now = 1
        #: What ended before this is durable.
        self.flushed = 1
        #: A flush failed: no later one proves anything.
        self.broken = False
        self._syncing: set[int] = set()
        self._overlapped: list[tuple[int, set[int]]] = []

    def tick(self) -> int:
        self.now += 1
        return self.now

    def is_durable(self, unit: Unit) -> bool:
        return 0 < unit.ended < self.flushed

    # --- writes --------------------------------------------------------------------------

    def write_ends(self, offset: int, size: int, units: list[Unit], rc: int) -> None:
        """The write of ``size`` bytes, which touches ``units``, was answered with ``rc``."""
        now = self.tick()
        for unit in units:
            unit.busy -= 1
            if rc > 0 and offset <= unit.reached < offset + rc:
                unit.reached = min(unit.end, offset + rc)
                if unit.reached == unit.end:
                    unit.ended = now
            if rc <= 0 and rc not in AGAIN and rc not in NO_ROOM:
                unit.failed = True

    # --- flushes -------------------------------------------------------------------------

    def sync_begins(self) -> int:
        began = self.tick()
        self._syncing.add(began)
        return began

    def sync_ends(self, began: int, rc: int) -> bool:
        """Tell whether more is durable now."""
        self.tick()
        self._syncing.discard(began)
        if rc < 0:
            self.broken = True
        if self.broken:
            return False
        if not self._syncing and not self._overlapped:
            more, self.flushed = began > self.flushed, max(self.flushed, began)
            return more
        # The system tells one flush of a lost page: this one counts when those beside it are through.
        self._overlapped.append((began, set(self._syncing)))
        return self._one_less(began)

    def sync_never_began(self, began: int) -> bool:
        """A broken link cancelled it; tell whether more is durable now, because it was waited for."""
        self._syncing.discard(began)
        return not self.broken and self._one_less(began)

    def _one_less(self, began: int) -> bool:
        more = False
        for start, others in list(self._overlapped):
            others.discard(began)
            if not others:
                self._overlapped.remove((start, others))
                more |= start > self.flushed
                self.flushed = max(self.flushed, start)
        return more
