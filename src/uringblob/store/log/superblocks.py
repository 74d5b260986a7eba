"""The two superblocks: at any moment one of them is whole and right.

They are rewritten one after the other, the older one first, each flushed before the next.  A write for
which there was no room (copy-on-write file systems) may be repeated, because the newest one stands.
After any other failed write it is unknown which bytes are there, so the store is poisoned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from uringblob.errors import BlobStoreError, BlobStoreIOError, StoreCorrupt
from uringblob.store.format import BLOCK_SIZE, SUPERBLOCK_OFFSETS, SlotRun, Superblock, decode_superblock
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Lock


class Superblocks:
    """Both superblocks of an open store, and their changes."""

    def __init__(self, file_io: FileIO, current: Superblock, offset: int) -> None:
        """``current`` is the newest valid superblock, read from ``offset``."""
        self._file_io = file_io
        self.current = current
        self._offset = offset
        self._writing = Lock()
        self._tried = current.revision  # the highest that may be there, by a failed write

    async def change(self, **fields: Any) -> None:
        """Rewrite both with these fields and new revisions; one change after the other."""
        await self._writing.run(self._rewrite, fields)

    async def _rewrite(self, fields: dict[str, Any]) -> None:
        new = dataclasses.replace(self.current, **fields)
        for _ in SUPERBLOCK_OFFSETS:
            await self._write_older(new)

    async def record_extents(self, extents: Sequence[SlotRun]) -> None:
        """List ``extents`` as log space in both; version 1 has no such list before its upgrade."""
        if self.current.version > 1:
            await self.change(log_space=tuple(extents))

    async def _write_older(self, new: Superblock) -> None:
        offset = sum(SUPERBLOCK_OFFSETS) - self._offset
        block = dataclasses.replace(new, revision=self.current.revision + 1)
        self._tried = block.revision
        try:
            await self._file_io.write(offset, block.encode(offset), "writing a superblock")
            await self._file_io.sync("writing a superblock")
        except BlobStoreError as error:
            if not isinstance(error, BlobStoreIOError) or not self._file_io.repairs.lacks_room(error):
                self._file_io.poison(error)
            raise
        self.current = block
        self._offset = offset

    async def check_ours(self) -> None:
        """Check that both are what this opener read or wrote; one of them may be damaged.

        :raises StoreCorrupt: the file was overwritten from outside; the store is poisoned.
        :raises BlobStoreIOError: neither can be read.
        """
        found = await self._writing.run(self._read_both)
        good = [superblock for superblock in found if superblock is not None]
        ours = [s.revision for s in good if s.store_id == self.current.store_id]
        newest = max((superblock.revision for superblock in good), default=0)
        # Where the newest is damaged, the other one is its predecessor.
        if not ours or max(ours) < self.current.revision - 1 or newest > self._tried:
            what = "its superblocks are not the last ones" if ours or not good else "it is another store's"
            corrupt = overwritten(self._file_io.path, what)
            self._file_io.poison(corrupt)
            raise corrupt

    async def _read_both(self) -> list[Superblock | None]:
        found, failure = [], None
        for offset in SUPERBLOCK_OFFSETS:
            try:
                block = await self._file_io.read(offset, BLOCK_SIZE, "reading a superblock")
            except BlobStoreIOError as error:
                failure = error
            else:
                found.append(decode_superblock(block, offset))
        if not found and failure is not None:
            raise failure
        return found

    async def write_newest_again(self) -> None:
        """Rewrite the newest in its place; nothing is flushed."""
        await self._file_io.write(self._offset, self.current.encode(self._offset), "writing a superblock")

    async def seal(self, seq: int) -> None:
        """Record that every group up to ``seq`` is durable, so that none may ever be dropped.

        Only after the flush of group ``seq`` has returned.  No change where that is recorded already.
        """
        if seq > self.current.floor:
            await self.change(floor=seq)


def overwritten(path: str, what: str) -> StoreCorrupt:
    """Return the error for an open file that something else has changed."""
    return StoreCorrupt(
        f"{path}: the open store was overwritten from outside: {what}. Nothing more is written to it: "
        "find out what wrote to the file, and restore the store from a copy"
    )
