"""Whether the only good superblock still names the log in use.

A superblock write that went astray leaves one superblock out of date, and ruins the other.  The log that
it names was given up, and its segments may have been zeroed and used again, so that it seems to end
early, with nothing behind.  But the log that replaced it stands in log space, and its blocks name their
store and group.  A compaction that was given up leaves blocks there too, but never groups, and at most
one sequence number ahead of the log in use.
"""

from __future__ import annotations

from collections.abc import Iterator

from uringblob.errors import StoreCorrupt
from uringblob.store.format import BLANK_BLOCK, BLOCK_SIZE, BlockType, Superblock, decode_block
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.holes import parts_with_data
from uringblob.store.opening.recover import RecoveredLog

_READ_BYTES = 256 * 1024


async def check_no_newer_log(file_io: FileIO, found: RecoveredLog, superblock: Superblock) -> None:
    """Search log space for a log that replaced ``found``'s; for a store with one good superblock.

    :raises StoreCorrupt: there is one, so the superblock is out of date.
    """
    page_size = superblock.page_size
    for extent in found.log_space:
        begin, end = extent.slot * page_size, extent.end * page_size
        for start, size in parts_with_data(file_io, begin, end, _READ_BYTES):
            data = await file_io.read(start, size, "looking for a newer log")
            for offset, seq in _newer_blocks(data, start, found, superblock.store_id):
                raise StoreCorrupt(
                    f"{file_io.path}: one superblock is damaged, and the other one is out of date: it names log "
                    f"{found.reader.log_id:016x}, which ends at group {found.seq}, and group {seq} of another "
                    f"log stands at offset {offset}. Restore the store from a copy",
                    offset,
                )


def _newer_blocks(data: bytes, start: int, found: RecoveredLog, store_id: bytes) -> Iterator[tuple[int, int]]:
    # A last group that was left out stands in the log all the same.
    last = found.seq if found.dropped is None else found.dropped[0]
    for at in range(0, len(data), BLOCK_SIZE):
        raw = data[at : at + BLOCK_SIZE]
        block = None if raw == BLANK_BLOCK else decode_block(store_id, start + at, raw)
        if block is None or block.log_id == found.reader.log_id:
            continue
        group = block.type in (BlockType.GROUP, BlockType.SWITCH) and block.seq > last
        carry = block.type is BlockType.CARRY and block.seq > last + 1
        if group or carry:
            yield start + at, block.seq
