"""Writes that must reach the medium before any other change, and for which there was no room so far.

A group that failed is wiped before its place in the log, or one of its slots, is reused (rule 5); an
opener wipes the log's tail before it hands out a slot (rule 4); a log that was switched to is named by
both superblocks before it is written (rule 9).  Each overwrites existing blocks.  Where overwriting
allocates (copy-on-write file systems, blocks shared with a snapshot), a full disk can refuse it.

The medium's state is known then, so the store is not poisoned: the repair stays *due*.  Until it is done,
no slot and no segment is handed out, and no group and no superblock is written; every call that needs
one tries the repair first, and is refused for lack of room where that fails.  Reads continue.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import Protocol

from uringblob.errors import NO_SPACE_ERRNOS, BlobStoreError, BlobStoreIOError, errno_name
from uringblob.store.io.job import Lock

Repair = Callable[[], Awaitable[None]]


class Poisonable(Protocol):
    """The file that repairs belong to."""

    path: str
    poison_cause: BaseException | None

    def poison(self, cause: BaseException) -> None:
        """Refuse every change from now on."""


class Repairs:
    """The repairs that are due on one file, oldest first."""

    def __init__(self, file_io: Poisonable) -> None:
        self._file_io = file_io
        #: What must be repaired before the next change, oldest first.
        self.due: list[Repair] = []
        self._repairing = Lock()
        self._errno = errno.ENOSPC

    async def make(self, repair: Repair) -> None:
        """Repair before anything else changes the file; ``repair`` may be run more than once.

        :raises BlobStoreIOError: there is no room for it, and it is due from now on.
        """
        self.due.append(repair)
        await self.finish()

    async def finish(self) -> None:
        """Do what is due.  Any failure but lack of room poisons.

        :raises BlobStoreIOError: there is still no room.
        """
        while self.due:
            await self._repairing.run(self._repair_first)

    async def _repair_first(self) -> None:
        if not self.due:
            return
        try:
            await self.due[0]()
        except BlobStoreError as error:
            if not isinstance(error, BlobStoreIOError) or not self.lacks_room(error):
                self._file_io.poison(error)
                raise
            self._errno = error.errno or errno.ENOSPC
            raise self.refusal() from error
        del self.due[0]

    def lacks_room(self, error: BlobStoreIOError) -> bool:
        """Whether ``error`` is a write for which there was no room; a sync that failed has poisoned."""
        return error.errno in NO_SPACE_ERRNOS and self._file_io.poison_cause is None

    def refusal(self) -> BlobStoreIOError:
        """Return the error that refuses a change while something is due."""
        return BlobStoreIOError(self._errno, f"{self._file_io.path}: {self._words()}")

    def notes(self) -> list[str]:
        """Return what is due as ``stats().notes``."""
        return [self._words()] if self.due else []

    def _words(self) -> str:
        return (
            "changes are refused, because the file system has no room to overwrite blocks of the log "
            f"({errno_name(self._errno)}). Every blob stays readable; make room in the file system, "
            "or raise the quota, and repeat the change"
        )
