"""What other processes say of a store with their locks, as docs/maintainers/format.md has it."""

from __future__ import annotations

import fcntl
import struct

_READERS = 2**62
_WRITER = 2**62 + 2**61
_FLOCK = struct.Struct("hhqqi")


class NoReaders:
    """A store that nobody reads in another process; ``size_at_opening`` is its file's."""

    size_at_opening = 0

    def announced(self) -> int | None:
        """Return what its writer has announced, or ``None``."""
        return None

    def between(self, low: int, high: int) -> bool:
        """Whether a reader is registered at a state from group ``low`` on and before group ``high``.

        One that has only begun is not: it may have begun after the writer knew that no older one is there.
        """
        return False


class RealReaders(NoReaders):
    """Asks the kernel; of a writer's own announcement it knows nothing."""

    def __init__(self, engine) -> None:
        self._engine = engine
        self.size_at_opening = max(0, engine.file_size())

    def _ask(self, kind: int, start: int, length: int):
        try:
            asked = _FLOCK.pack(kind, 0, start, length, 0)
            answer = _FLOCK.unpack(fcntl.fcntl(self._engine._fd, fcntl.F_OFD_GETLK, asked))
        except (OSError, AttributeError):
            return None  # closed, or a system without such locks
        return None if answer[0] == fcntl.F_UNLCK else answer

    def announced(self) -> int | None:
        found = self._ask(fcntl.F_RDLCK, _WRITER, 2**60)
        return None if found is None else found[3] - 1

    def between(self, low: int, high: int) -> bool:
        low = max(low, 1)
        return high > low and self._ask(fcntl.F_WRLCK, _READERS + low, high - low) is not None


class SimReaders(NoReaders):
    """Looks into the simulated table."""

    def __init__(self, disk) -> None:
        self._table = disk.locks
        self.size_at_opening = disk.live.size

    def announced(self) -> int | None:
        return max(self._table.announced.values(), default=None)

    def between(self, low: int, high: int) -> bool:
        return any(max(low, 1) <= at < high for states in self._table.readers.values() for at in states)


def readers_of(engine) -> NoReaders:
    disk = getattr(engine, "disk", None)
    return RealReaders(engine) if disk is None else SimReaders(disk)
