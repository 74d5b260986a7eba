"""The two superblocks: at any moment one of them is whole and tells the truth.

They are rewritten one after the other, each flushed before the next is touched, the older one
first.  One for which there was no room (copy-on-write file systems) may be written again: the older
one is touched, the newest stands.  Any other failed write poisons the store: which of its bytes landed
is unknown.
"""

from __future__ import annotations

import dataclasses

from uringblob.errors import BlobStoreError, BlobStoreIOError
from uringblob.store.format import SUPERBLOCK_OFFSETS, Superblock
from uringblob.store.medium import Medium


class Superblocks:
    """What both superblocks say, and how to make them say something else."""

    def __init__(self, medium: Medium, current: Superblock, offset: int) -> None:
        """``current`` is the newest valid superblock, read from ``offset``."""
        self._medium = medium
        self.current = current
        self._offset = offset

    def __repr__(self) -> str:
        return f"<Superblocks revision={self.current.revision} floor={self.current.floor}>"

    async def write_both(self, new: Superblock) -> None:
        """Make both say ``new``; revisions are counted up here."""
        for _ in SUPERBLOCK_OFFSETS:
            await self._write_older(new)

    async def _write_older(self, new: Superblock) -> None:
        offset = SUPERBLOCK_OFFSETS[1] if self._offset == SUPERBLOCK_OFFSETS[0] else SUPERBLOCK_OFFSETS[0]
        block = dataclasses.replace(new, revision=self.current.revision + 1)
        try:
            await self._medium.write(offset, block.encode(offset), "writing a superblock")
            await self._medium.sync("writing a superblock")
        except BlobStoreError as error:
            if not isinstance(error, BlobStoreIOError) or not self._medium.repairs.lacks_room(error):
                self._medium.poison(error)
            raise
        self.current = block
        self._offset = offset

    async def write_newest_again(self) -> None:
        """Write the newest as it is, in its place; nothing is flushed."""
        await self._medium.write(self._offset, self.current.encode(self._offset), "writing a superblock")

    async def seal(self, seq: int) -> None:
        """Record that every group up to ``seq`` was durable: none of them may ever be dropped.

        Only after the flush of group ``seq`` has returned.  A store that is sealed already stays
        as it is.
        """
        if seq > self.current.floor:
            await self.write_both(dataclasses.replace(self.current, floor=seq))
