"""The locks of a simulated file: those of :mod:`uringblob.store.range_locks`, and the flock."""

from __future__ import annotations

import collections
import fcntl

from uringblob.store.file import StoreFile


class LockTable:
    """Who holds what of one simulated file."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drop every lock: all processes are dead."""
        self.announced: dict[SimLocks, int] = {}
        self.readers: dict[SimLocks, set[int]] = collections.defaultdict(set)
        self.exclusive: SimFile | None = None
        self.shared: set[SimFile] = set()


class SimLocks:
    """The locks of one open file; see :class:`uringblob.store.range_locks.Locks`."""

    refused = 0

    def __init__(self, table: LockTable) -> None:
        self._table = table
        self.announced: int | None = None
        self.usable = True

    def announce(self, seq: int) -> None:
        """Let readers see the groups up to ``seq``."""
        if self.usable:
            self.announced = self._table.announced[self] = seq

    def none_between(self, low: int, high: int) -> bool:
        """Whether no reader, present or future, is at a state from group ``low`` on and before ``high``."""
        if self.announced is not None and self.announced < high:
            return False
        return not any(at == 0 or low <= at < high for at in self.registered()) or high <= 0

    def ask(self) -> int | None:
        """Return what another open file has announced."""
        return next((seq for holder, seq in self._table.announced.items() if holder is not self), None)

    def register(self, seq: int) -> bool:
        """Register a reader of the state after group ``seq``."""
        if self.usable:
            self._table.readers[self].add(seq)
        return self.usable

    def release(self, seq: int) -> None:
        """Undo :meth:`register`."""
        self._table.readers[self].discard(seq)

    def registered(self) -> list[int]:
        """Return the states at which others are registered."""
        others = (at for holder, at in self._table.readers.items() if holder is not self)
        return sorted(set().union(*others))

    def close(self) -> None:
        """Let go of everything."""
        self.announced, self.usable = None, False
        self._table.announced.pop(self, None)
        self._table.readers.pop(self, None)

    abandon = close  # the process has died


class SimFile(StoreFile):
    """A simulated disk's file, as one process has it open."""

    def __init__(self, table: LockTable, *, read_only: bool) -> None:
        super().__init__(-1, "simulated", read_only=read_only)
        self._table = table
        self.locks = SimLocks(table)

    def _try_flock(self, operation: int) -> bool:
        table = self._table
        if table.exclusive not in (None, self) or (operation == fcntl.LOCK_EX and table.shared - {self}):
            return False
        if operation == fcntl.LOCK_EX:
            table.exclusive = self
        else:
            table.shared.add(self)
        return True

    def unlock(self) -> None:
        """Let writers in again."""
        super().unlock()
        self._table.shared.discard(self)
        if self._table.exclusive is self:
            self._table.exclusive = None

    def close(self) -> None:
        """Let go of every lock."""
        super().close()
        self.unlock()

    def abandon(self) -> None:
        """Do the same: its process has died."""
        super().abandon()
        if hasattr(self, "_table"):
            self.unlock()
