"""What a writable open does before it hands out a slot (rules 4, 9, 10 and 12)."""

from __future__ import annotations

from collections.abc import Sequence

from uringblob.store.format import BLANK_BLOCK, Superblock
from uringblob.store.io.file_io import FileIO
from uringblob.store.log.superblocks import Superblocks
from uringblob.store.opening.recover import RecoveredLog
from uringblob.store.opening.write_again import write_again


async def repair(
    medium: FileIO, found: RecoveredLog, superblocks: Superblocks, both: Sequence[Superblock | None]
) -> None:
    """Do what must be durable before the first slot is handed out; ``both`` are as they were read.

    1. Where reads are a cache's they may show what the disk does not hold, so that is written again
       before it is believed.
    2. Both superblocks name the log in use, and the last group as the floor: whatever follows it
       proves that it is durable, and the next step takes that proof away.
    3. The tail is wiped.
    """
    if found.cached:
        await write_again(medium, found, superblocks)
    await _raise_floor(found, superblocks, both)
    for offset in found.tail.dirty_blocks:
        await medium.write(offset, BLANK_BLOCK, "wiping the log's tail")
    if found.tail.dirty_blocks:
        await medium.sync("recovery")


async def _raise_floor(
    found: RecoveredLog, superblocks: Superblocks, both: Sequence[Superblock | None]
) -> None:
    head = found.reader.segments[0]
    log_id, extents = found.reader.log_id, found.log_space
    if all(
        s is not None and s.log_id == log_id and s.floor >= found.seq and s.log_space == extents for s in both
    ):
        return
    await superblocks.change(
        log_id=log_id, head_slot=head.slot, head_slots=head.slots, floor=found.seq, log_space=extents
    )
