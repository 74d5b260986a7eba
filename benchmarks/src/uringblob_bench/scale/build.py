"""A store of millions of blobs on a sparse file: the map is real, the frames are holes.

The file is written byte by byte as ``docs/maintainers/format.md`` describes it.  A hole reads as zeros, and the
checksum in the map is that of a frame of zeros, so every blob can be read and verified.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import struct
from collections.abc import Iterator

from uringblob.checksums import frame_checksum

BLOCK, SECTOR, CELL = 4096, 512, 32
RECORDS = 119
_SEGMENT, _SNAPSHOT, _CARRY, _GROUP = 1, 2, 3, 4
_GRANULE = 65536
_VERSION = 2
_STORE_ID, _LOG_ID = b"uringblob-bench.", 1
#: Commits that a store takes before it compacts its log, if it was built for that.
COMMITS_LEFT = 64
#: A store compacts when groups take so many blocks, or twice the blocks of its snapshot.
_GROUP_BLOCKS_MIN = 1024
#: Blocks written at once.
_AT_ONCE = 256


def guid_of(number: int) -> bytes:
    """Return the name of blob ``number``: spread like random ones, the same in every run."""
    return hashlib.blake2b(number.to_bytes(8, "little"), digest_size=16).digest()


def build(path: str, blobs: int, page_size: int, *, near_compaction: bool = False) -> None:
    """Write the store; ``near_compaction`` adds empty groups until the log is nearly due for compaction."""
    snapshot = max(-(-blobs // RECORDS), 1)
    groups = max(_GROUP_BLOCKS_MIN, 2 * snapshot) - COMMITS_LEFT if near_compaction else 0
    granule = max(1, _GRANULE // page_size)

    def slots_for(blocks: int) -> int:
        return -(-blocks * BLOCK // (granule * page_size)) * granule

    # Superblocks, then the log space: one segment with all of the log, its tail, and room for other logs.
    first = -(-2 * BLOCK // page_size)
    head = slots_for(2 + snapshot + groups + COMMITS_LEFT)
    tail = slots_for(256)
    extent = head + tail + slots_for(8 * snapshot + 1024)
    frames = first + extent
    checksum = frame_checksum(bytes(page_size))
    records = (struct.pack("<16sQQ", guid_of(n), frames + n, checksum) for n in range(blobs))
    with open(path, "xb") as file:
        os.truncate(path, (frames + blobs) * page_size)
        for offset in (0, BLOCK):
            file.seek(offset)
            file.write(_superblock(offset, page_size, first, head, extent, floor=1 + groups))
        file.seek(first * page_size)
        log = _log(first * page_size, records, snapshot, groups, (first, head, tail))
        while some := b"".join(itertools.islice(log, _AT_ONCE)):
            file.write(some)
        file.flush()
        os.fsync(file.fileno())


def _superblock(offset: int, page_size: int, first: int, head: int, extent: int, *, floor: int) -> bytes:
    fixed = struct.pack(
        "<8sII16sQQQQQQ", b"uringblb", _VERSION, page_size, _STORE_ID, 1, offset, _LOG_ID, first, head, floor
    )
    content = fixed.ljust(176, b"\0") + struct.pack("<Q", 1)
    content = (content.ljust(256, b"\0") + struct.pack("<QQ", first, extent)).ljust(BLOCK - 8, b"\0")
    return content + struct.pack("<Q", frame_checksum(content))


def _log(
    offset: int, records: Iterator[bytes], snapshot: int, groups: int, segments: tuple[int, int, int]
) -> Iterator[bytes]:
    """Yield the blocks of the log: a segment header, a snapshot, an empty carry, empty groups."""
    first, head, tail = segments
    yield _block(offset, _SEGMENT, 0, 0, 1, [struct.pack("<QQQQ", 0, head, first + head, tail)])
    for index in range(snapshot):
        offset += BLOCK
        yield _block(offset, _SNAPSHOT, 0, index, snapshot, list(itertools.islice(records, RECORDS)))
    for seq in range(1, 2 + groups):
        offset += BLOCK
        yield _block(offset, _CARRY if seq == 1 else _GROUP, seq, 0, 1, [])


def _block(offset: int, kind: int, seq: int, index: int, count: int, records: list[bytes]) -> bytes:
    cells = struct.pack("<QIII", 0, index, count, len(records)).ljust(CELL, b"\0") + b"".join(records)
    cells = cells.ljust(RECORDS * CELL + CELL, b"\0")
    payload = SECTOR - CELL
    block = bytearray()
    for sector in range(BLOCK // SECTOR):
        block += struct.pack("<4sBBBBQQQ", b"ublk", kind, sector, 0, 0, seq, _LOG_ID, 0)
        block += cells[sector * payload : (sector + 1) * payload]
    block[CELL : CELL + 8] = struct.pack("<Q", frame_checksum(_STORE_ID + struct.pack("<Q", offset) + block))
    return bytes(block)
