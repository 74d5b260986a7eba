"""Whether the file is still the one that was opened: its name, its length, its contents.

The lock keeps other openers out, but not ``rm``, ``mv``, ``cp`` and a restored backup.  What is checked
before each group, before both superblocks are rewritten, and at close, with its cost and its consequence,
is a table in docs/maintainers/format.md ("What others do to an open file").

A commit into a file without its name would be durable where no opener looks, so it is refused.  That
poisons nothing, because the name may come back.
"""

from __future__ import annotations

import errno
import os

from uringblob.errors import BlobStoreIOError, StoreCorrupt, errno_name
from uringblob.store.file import StoreFile
from uringblob.store.format import BlockType
from uringblob.store.index.slots import SlotTable
from uringblob.store.io.file_io import FileIO
from uringblob.store.log.reader import LogReader
from uringblob.store.log.superblocks import Superblocks, overwritten
from uringblob.store.log.writer import Log, Place

_DELETED = "its last name was deleted: what it holds is gone when it is closed"
_REPLACED = "its path names another file now"
_MOVED = "its path names no file any more; it has another name, and goes on there"


class FileIdentity:
    """The name, length and contents of one open file.  Belongs to the loop's thread."""

    def __init__(self, file: StoreFile, file_io: FileIO, slots: SlotTable, superblocks: Superblocks) -> None:
        self._file = file
        self._file_io = file_io
        self._slots = slots
        self._superblocks = superblocks
        self._identity = (-1, -1)
        if file.fd >= 0:  # a simulated file has no descriptor, and no name to lose
            status = os.fstat(file.fd)
            self._identity = (status.st_dev, status.st_ino)
        self._log: Log | None = None
        self._mark: tuple[Place, int] = ((0, 0), 0)

    # --- the name and the length ---------------------------------------------------------

    def note(self) -> str:
        """Return what became of the file's name, or "" while it is as it was; in any thread."""
        if self._file.fd < 0:
            return ""
        try:
            return self._look()[1]
        except OSError as error:
            if error.errno is None:
                raise  # no answer of the system: a signal handler raised it
            return ""  # just closed, or a dead file system

    def check(self, log: Log) -> None:
        """Raise if a group may not be written to ``log``: the file has lost its name or its end.

        :raises BlobStoreIOError: ESTALE; nothing was changed, and it works again when the name is back.
        :raises StoreCorrupt: the file was cut; the store is poisoned.
        """
        if log is not self._log:
            # From here on the groups in it are this opener's own.
            self._log, self._mark = log, (log.position, log.seq)
        if self._file.fd < 0:
            return
        try:
            status, note = self._look()
        except OSError as error:
            number = error.errno or errno.EIO
            raise BlobStoreIOError(number, f"stat of {self._file.path}: {errno_name(number)}") from error
        if note and note is not _MOVED:
            raise BlobStoreIOError(
                errno.ESTALE,
                f"{self._file.path}: the open store was deleted or replaced ({note}), so nothing is committed to "
                "it. It stays readable: copy what you need to another store before you close it",
            )
        if status.st_size < self._slots.limit * self._file_io.engine.pool.page_size:
            raise self._overwritten(f"the file was cut to {status.st_size} bytes")

    def _look(self) -> tuple[os.stat_result, str]:
        """Return the open file's status, and what became of its name."""
        note = ""
        try:
            there = os.stat(self._file.path)
            if (there.st_dev, there.st_ino) == self._identity:
                return there, ""
            note = _REPLACED
        except (FileNotFoundError, NotADirectoryError):
            note = _MOVED
        except OSError as error:
            if error.errno is None:
                raise
            # a directory that may no longer be searched: its names are unknown
        mine = os.fstat(self._file.fd)
        return mine, _DELETED if mine.st_nlink == 0 and note is not _REPLACED else note

    # --- the contents --------------------------------------------------------------------

    async def check_contents(self, log: Log) -> None:
        """Read superblocks and this opener's groups back; no group is in flight.

        :raises StoreCorrupt: they are not what was written; the store is poisoned.
        """
        await self._superblocks.check_ours()
        if log is not self._log or log.seq == self._mark[1]:
            return  # no group was written to it
        reader = LogReader.of_log(log)
        reader.segments, reader.tail = list(log.segments), log.tail
        reader.position, seq = self._mark
        while seq < log.seq:
            if await reader.group(seq + 1, BlockType.GROUP) is None:
                offset = reader.offset_of(reader.position)
                raise self._overwritten(f"group {seq + 1} is not in the log any more (offset {offset})")
            seq += 1

    def _overwritten(self, what: str) -> StoreCorrupt:
        error = overwritten(self._file.path, what)
        self._file_io.poison(error)
        return error
