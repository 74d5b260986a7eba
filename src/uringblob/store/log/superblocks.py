"""The two superblocks: at any moment one of them is whole and tells the truth.

They are rewritten one after the other, each flushed before the next is touched, the older one
first.  One for which there was no room (copy-on-write file systems) may be written again: the older
one is touched, the newest stands.  Any other failed write poisons the store: which of its bytes landed
is unknown.
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
    """What both superblocks say, and how to make them say something else."""

    def __init__(self, medium: FileIO, current: Superblock, offset: int) -> None:
        """``current`` is the newest valid superblock, read from ``offset``."""
        self._medium = medium
        self.current = current
        self._offset = offset
        self._writing = Lock()
        self._tried = current.revision  # the highest that may be there: a write that failed may have landed

    def __repr__(self) -> str:
        return f"<Superblocks revision={self.current.revision} floor={self.current.floor}>"

    async def change(self, **fields: Any) -> None:
        """Give both these fields; revisions are counted up here.  One change after the other."""
        async with self._writing:
            new = dataclasses.replace(self.current, **fields)
            for _ in SUPERBLOCK_OFFSETS:
                await self._write_older(new)

    async def record_extents(self, extents: Sequence[SlotRun]) -> None:
        """Make both list ``extents`` as log space; version 1 has no such list before its upgrade."""
        if self.current.version > 1:
            await self.change(log_space=tuple(extents))

    async def _write_older(self, new: Superblock) -> None:
        offset = SUPERBLOCK_OFFSETS[1] if self._offset == SUPERBLOCK_OFFSETS[0] else SUPERBLOCK_OFFSETS[0]
        block = dataclasses.replace(new, revision=self.current.revision + 1)
        self._tried = block.revision
        try:
            await self._medium.write(offset, block.encode(offset), "writing a superblock")
            await self._medium.sync("writing a superblock")
        except BlobStoreError as error:
            if not isinstance(error, BlobStoreIOError) or not self._medium.repairs.lacks_room(error):
                self._medium.poison(error)
            raise
        self.current = block
        self._offset = offset

    async def check_ours(self) -> None:
        """Look whether both are what this opener read or wrote; one of them may be damaged.

        :raises StoreCorrupt: the file was overwritten from outside; the store is poisoned.
        :raises BlobStoreIOError: neither can be read.
        """
        async with self._writing:  # one that is being written is newer than what is known
            found = await self._read_both()
        good = [superblock for superblock in found if superblock is not None]
        ours = [s.revision for s in good if s.store_id == self.current.store_id]
        newest = max((superblock.revision for superblock in good), default=0)
        # Where the newest is damaged, the other one is its predecessor.
        if not ours or max(ours) < self.current.revision - 1 or newest > self._tried:
            what = "its superblocks are not the last ones" if ours or not good else "it is another store's"
            corrupt = overwritten(self._medium.path, what)
            self._medium.poison(corrupt)
            raise corrupt

    async def _read_both(self) -> list[Superblock | None]:
        found, failure = [], None
        for offset in SUPERBLOCK_OFFSETS:
            try:
                block = await self._medium.read(offset, BLOCK_SIZE, "reading a superblock")
            except BlobStoreIOError as error:
                failure = error
            else:
                found.append(decode_superblock(block, offset))
        if not found and failure is not None:
            raise failure
        return found

    async def write_newest_again(self) -> None:
        """Write the newest as it is, in its place; nothing is flushed."""
        await self._medium.write(self._offset, self.current.encode(self._offset), "writing a superblock")

    async def seal(self, seq: int) -> None:
        """Record that every group up to ``seq`` was durable: none of them may ever be dropped.

        Only after the flush of group ``seq`` has returned.  A store that is sealed already stays
        as it is.
        """
        if seq > self.current.floor:
            await self.change(floor=seq)


def overwritten(path: str, what: str) -> StoreCorrupt:
    """Return the error that says that somebody else changed the open file."""
    return StoreCorrupt(
        f"{path}: the open store was overwritten from outside: {what}. Nothing more is written to it: "
        "find out what wrote to the file, and restore the store from a copy"
    )
