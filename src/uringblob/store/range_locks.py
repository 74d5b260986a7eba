"""Locks by which the processes that have one store open know of each other (docs/maintainers/format.md).

They are OFD locks on single bytes beyond every byte that a file has, held by the open file that the engines
use: the kernel drops them when its last descriptor is closed, so also when a process is killed.

* A reader of the state after group ``N`` holds byte ``READERS + N``; one that begins or
  moves on, ``READERS + 0``.
* The writer holds the bytes from ``WRITER`` to ``WRITER + N``: it *announces* that group ``N`` is durable.

Whether another open file holds any of a range is one call, and it names the lock that it found.
(Checked on Linux 6.18: ext4, xfs, tmpfs.)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import struct
from collections.abc import Iterator
from typing import Protocol

READERS = 1 << 62
WRITER = READERS | 1 << 61
#: ``struct flock``: type, whence, start, length, process.
_FLOCK = struct.Struct("hhqqi")
_SET, _GET = getattr(fcntl, "F_OFD_SETLK", None), getattr(fcntl, "F_OFD_GETLK", None)
#: Groups that can be announced: no real store reaches the limit.
_SEQ_LIMIT = 1 << 60
#: Another open file has a lock there.
_TAKEN = (errno.EAGAIN, errno.EACCES)


class Locks(Protocol):
    """What a store asks of these locks; simulated disks have their own."""

    #: Whether readers in other processes can be known.
    usable: bool
    #: The last group that this writer announced; ``None``: no reader can begin.
    announced: int | None
    #: Why the last announcement was refused, as an errno, or 0.
    refused: int

    def announce(self, seq: int) -> None:
        """Let readers see the groups up to ``seq``, which are durable."""

    def none_between(self, low: int, high: int) -> bool:
        """Whether no reader, present or future, is at a state from group ``low`` on and before ``high``."""

    def ask(self) -> int | None:
        """Return what the writer of this store has announced, or ``None``."""

    def register(self, seq: int) -> bool:
        """Register a reader of the state after group ``seq``, 0 for any; false where that is refused."""

    def release(self, seq: int) -> None:
        """Undo :meth:`register`."""

    def registered(self) -> list[int]:
        """Return the states at which readers are registered."""

    def close(self) -> None:
        """Let go of everything."""

    def abandon(self) -> None:
        """Make no call any more, and let go of nothing."""


class RangeLocks:
    """The locks of one open file.  ``fd`` stays the caller's; without one, none is usable."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.announced: int | None = None
        self.refused = 0
        self.usable = False
        if fd >= 0 and _GET is not None:
            with contextlib.suppress(OSError):  # the file system has no such locks
                self._find(fcntl.F_WRLCK, READERS, 1)
                self.usable = True

    def _lock(self, kind: int, start: int, length: int) -> None:
        assert _SET is not None
        fcntl.fcntl(self._fd, _SET, _FLOCK.pack(kind, 0, start, length, 0))

    def _find(self, kind: int, start: int, length: int) -> tuple[int, int] | None:
        """Return start and length of a lock of another open file in the way of this one, or ``None``."""
        assert _GET is not None
        answer = fcntl.fcntl(self._fd, _GET, _FLOCK.pack(kind, 0, start, length, 0))
        found, _, start, length, _ = _FLOCK.unpack(answer)
        return None if found == fcntl.F_UNLCK else (start, length)

    # --- the writer's ----------------------------------------------------------------------

    def announce(self, seq: int) -> None:
        """Do what :meth:`Locks.announce` says; where the system refuses it, readers stay where they are."""
        if not self.usable:
            return
        try:  # for every group, so the call is written out
            fcntl.fcntl(self._fd, _SET or 0, _FLOCK.pack(fcntl.F_WRLCK, 0, WRITER, seq + 1, 0))
        except OSError as error:
            if error.errno is None:
                raise  # no answer of the system: a signal handler raised it
            # Readers stay at what was announced before, and nothing that they may read is freed.
            self.refused = error.errno
        else:
            self.announced, self.refused = seq, 0

    def none_between(self, low: int, high: int) -> bool:
        """Return what :meth:`Locks.none_between` says; false, too, where it is not known."""
        if not self.usable or high <= 0:
            return True
        # Without an announcement none begins.
        if self.announced is not None and self.announced < high:
            return False
        try:
            # First the byte of those that begin: they lock the one of their state before they unlock it.
            for start, length in ((0, 1), (low, high - low)) if low else ((0, high),):
                asked = _FLOCK.pack(fcntl.F_WRLCK, 0, READERS + start, length, 0)
                if _FLOCK.unpack(fcntl.fcntl(self._fd, _GET or 0, asked))[0] != fcntl.F_UNLCK:
                    return False
        except OSError as error:
            if error.errno is None:
                raise
            return False  # not known
        return True

    # --- a reader's ------------------------------------------------------------------------

    def ask(self) -> int | None:
        """Return what the writer of this store has announced, or ``None``."""
        found = self._find(fcntl.F_RDLCK, WRITER, _SEQ_LIMIT) if self.usable else None
        return None if found is None else found[1] - 1

    def register(self, seq: int) -> bool:
        """Register a reader.

        :raises OSError: EAGAIN or EACCES: somebody has locked all bytes of the file.
        """
        if not self.usable or seq >= _SEQ_LIMIT:
            return False
        try:
            self._lock(fcntl.F_RDLCK, READERS + seq, 1)
        except OSError as error:
            if error.errno is None or error.errno in _TAKEN:
                raise
            return False
        return True

    def release(self, seq: int) -> None:
        """Undo :meth:`register`; nothing once all was let go of."""
        if self.usable:
            self._lock(fcntl.F_UNLCK, READERS + seq, 1)

    # --- both ------------------------------------------------------------------------------

    def registered(self) -> list[int]:
        """Return the states at which others are registered, each once, in order; [] once it is closed."""
        found: list[int] = []
        with contextlib.suppress(OSError):
            if self.usable:
                found += sorted(set(self._registered(READERS, 1 << 61)))
        return found

    def _registered(self, start: int, length: int) -> Iterator[int]:
        ranges = [(start, length)]
        while ranges:
            start, length = ranges.pop()
            conflict = self._find(fcntl.F_WRLCK, start, length) if length > 0 else None
            if conflict is not None:
                first, count = conflict  # neighbouring bytes of one open file are one lock
                first, end = max(first, start), min(first + count, start + length)
                yield from range(first - READERS, end - READERS)
                ranges += [(start, first - start), (end, start + length - end)]

    def close(self) -> None:
        """Let go of everything; a second call does nothing."""
        fd, usable = self._fd, self.usable
        self.abandon()
        if usable:
            fcntl.fcntl(fd, _SET or 0, _FLOCK.pack(fcntl.F_UNLCK, 0, READERS, 0, 0))

    def abandon(self) -> None:
        """Make no call any more: the number may be another file's soon."""
        self._fd, self.usable, self.announced = -1, False, None
