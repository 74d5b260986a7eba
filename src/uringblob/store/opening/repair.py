"""What a writable open writes before it hands out a slot (docs/maintainers/format.md, rules 4, 9, 10 and 12).

After a failed flush Linux, macOS and the BSDs keep the lost pages as clean ones, and no later flush writes
them out.  An opener drops the cache where the system can, but macOS cannot, a FUSE server may have a cache
of its own, and a mapped page stays.  So where reads may be a cache's, it writes again what the last flush
of the store's life may have lost (rule 12).
"""

from __future__ import annotations

from collections.abc import Sequence

from uringblob.store.format import BLANK_BLOCK, BLOCK_SIZE, Superblock
from uringblob.store.io.file_io import FileIO
from uringblob.store.log.superblocks import Superblocks
from uringblob.store.opening.recover import RecoveredLog

_GROUP = "confirming the last group"
_CHAIN = "confirming the log's chain"


async def repair(
    file_io: FileIO, found: RecoveredLog, superblocks: Superblocks, both: Sequence[Superblock | None]
) -> None:
    """Do what must be durable before the first slot is handed out; ``both`` are as they were read.

    1. Where reads are a cache's, what they show is written again.
    2. Both superblocks name the log in use, and the last group as the floor: what follows that group
       proves it durable, and the next step removes this proof.
    3. The tail is wiped.
    """
    if found.cached:
        await _write_again(file_io, found, superblocks)
    await _raise_floor(found, superblocks, both)
    for offset in found.tail.dirty_blocks:
        await file_io.write(offset, BLANK_BLOCK, "wiping the log's tail")
    if found.tail.dirty_blocks:
        await file_io.sync("recovery")


async def _write_again(file_io: FileIO, found: RecoveredLog, superblocks: Superblocks) -> None:
    page_size = superblocks.current.page_size
    await superblocks.write_newest_again()
    if found.is_unproved() and found.dropped is None:
        for slot in found.last_slots() if found.in_doubt else ():
            await _copy(file_io, slot * page_size, page_size, _GROUP)
        for offset, _ in found.last_group:
            await _copy(file_io, offset, BLOCK_SIZE, _GROUP)
    await _copy(file_io, found.reader.segments[-1].slot * page_size, BLOCK_SIZE, _CHAIN)
    await file_io.sync("recovery")


async def _copy(file_io: FileIO, offset: int, size: int, what: str) -> None:
    await file_io.write(offset, await file_io.read(offset, size, what), what)


async def _raise_floor(
    found: RecoveredLog, superblocks: Superblocks, both: Sequence[Superblock | None]
) -> None:
    log_id, extents = found.reader.log_id, found.log_space
    if all(
        s is not None and s.log_id == log_id and s.floor >= found.seq and s.log_space == extents for s in both
    ):
        return
    await superblocks.change(log_id=log_id, head=found.reader.segments[0], floor=found.seq, log_space=extents)
