"""Where reads are a cache's they may show what the disk does not hold: a writable opener writes it again.

After a failed flush Linux, macOS and the BSDs keep the lost pages as clean ones, and no later flush
writes them out.  The process that was told poisons its store; the next opener is told nothing.  It
drops the cache where the system can (see ``store_file``), and does not rely on that: macOS cannot,
a FUSE server may have a cache of its own, and a page somebody holds stays.

Nothing is written after a flush has failed, so what it may have lost is what the last flush of a
store's life was to cover, and recovery relies on these parts of it:

* the last group, if nothing proves it, whatever it holds: with the floor above a lost one the next
  opener would call it damaged;
* the header of the last segment, which may have ridden on that flush;
* the newest superblock: with that one torn on the disk, and the other one being written, there would
  be none.
"""

from __future__ import annotations

from uringblob.store.format import BLOCK_SIZE
from uringblob.store.io.file_io import FileIO
from uringblob.store.log.superblocks import Superblocks
from uringblob.store.opening.recover import RecoveredLog

_GROUP = "confirming the last group"
_CHAIN = "confirming the log's chain"


async def write_again(medium: FileIO, found: RecoveredLog, superblocks: Superblocks) -> None:
    """Write again what the last flush may have lost, as the cache shows it, and flush."""
    page_size = superblocks.current.page_size
    await superblocks.write_newest_again()
    if found.is_unproved() and found.dropped is None:
        for _, block in found.last_group if found.in_doubt else ():
            for _, slot, _ in block.entries():
                if slot:
                    await _copy(medium, slot * page_size, page_size, _GROUP)
        for offset, _ in found.last_group:
            await _copy(medium, offset, BLOCK_SIZE, _GROUP)
    await _copy(medium, found.reader.segments[-1].slot * page_size, BLOCK_SIZE, _CHAIN)
    await medium.sync("recovery")


async def _copy(medium: FileIO, offset: int, size: int, what: str) -> None:
    await medium.write(offset, await medium.read(offset, size, what), what)
