"""A damaged store's file, only ever read, and every log block that stands in it.

The store's own reader follows the chain of segments, and refuses a log whose chain or snapshot is broken.
Here the chain is not needed: a block names its store, log, group and place in the group, and its checksum
covers all of it and the block's offset.  So the file is searched for blocks, wherever they stand.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import struct
from typing import NamedTuple

from uringblob.engines.posix_calls import next_data
from uringblob.errors import StoreCorrupt
from uringblob.store.file import StoreFile, judge_superblocks
from uringblob.store.format import (
    BLOCK_SIZE,
    HEADER_SIZE,
    SECTOR_SIZE,
    SUPERBLOCK_OFFSETS,
    VERSIONS,
    Block,
    Superblock,
    decode_block,
    decode_superblock,
    is_sound,
    superblock_version,
)
from uringblob.units import check_page_size

_MARK = b"ublk"
_READ_BYTES = 1 << 20
#: Of a sector's header: mark, number of the group, log id; then a half of the store id.
_SECTOR_HEADER = struct.Struct("<4s4xQQ")


class Source:
    """The damaged file; what cannot be read counts as damaged, and is never an error."""

    def __init__(self, file: StoreFile) -> None:
        self._file = file  # it is closed when it is collected
        self.path = file.path
        self.size = os.fstat(file.fd).st_size
        if hasattr(os, "posix_fadvise"):  # a cache may hide what the disk lacks
            os.posix_fadvise(file.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def read_into(self, offset: int, room: memoryview) -> str:
        """Fill ``room``; return why that was not possible, or ""."""
        if offset >= self.size:
            return "the file ends before it"
        done = 0
        while done < len(room):
            try:
                moved = os.preadv(self._file.fd, [room[done:]], offset + done)
            except OSError as error:
                return f"it cannot be read: {os.strerror(error.errno or 0)}"
            if not moved:
                return "the file ends within it"
            done += moved
        return ""

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes from ``offset`` on; zeroes in place of blocks that cannot be read."""
        size = max(0, min(size, self.size - offset))
        room = bytearray(size)
        if self.read_into(offset, memoryview(room)) and size > BLOCK_SIZE:
            return b"".join(self.read(at, BLOCK_SIZE) for at in range(offset, offset + size, BLOCK_SIZE))
        return bytes(room)

    def next_data(self, offset: int) -> int:
        """Return where the first bytes from ``offset`` on are that lie in no hole, or the file's end."""
        answer = next_data(self._file.fd, offset)
        if answer == -errno.ENXIO:
            return self.size
        return offset if answer < 0 else answer  # a file system that does not answer: all of it is read

    def superblocks(self) -> list[Superblock]:
        """Return the good ones.

        :raises StoreCorrupt: a newer release wrote them.
        """
        header = self.read(0, HEADER_SIZE).ljust(HEADER_SIZE, b"\0")
        blocks = {offset: header[offset : offset + BLOCK_SIZE] for offset in SUPERBLOCK_OFFSETS}
        newer = any(
            is_sound(block) and superblock_version(block) not in VERSIONS for block in blocks.values()
        )
        if not newer and not any(decode_superblock(block, offset) for offset, block in blocks.items()):
            return []
        return [superblock for superblock in judge_superblocks(header, self.path) if superblock is not None]


class FoundBlock(NamedTuple):
    """A good log block, where it stands, and whose it is."""

    offset: int
    store_id: bytes
    block: Block


@dataclasses.dataclass
class Scan:
    """What stands in a file.

    ``stale`` has, for each log that a sector of a damaged block names, the highest group named there.
    """

    blocks: list[FoundBlock] = dataclasses.field(default_factory=list)
    stale: dict[int, int] = dataclasses.field(default_factory=dict)


def scan(source: Source, superblocks: list[Superblock]) -> Scan:
    """Search the file for log blocks of any store that a superblock or the block itself names."""
    known = {superblock.store_id for superblock in superblocks}
    found = Scan()
    for start, end in _ranges(source, superblocks):
        offset = start
        while (offset := max(offset, source.next_data(offset) // BLOCK_SIZE * BLOCK_SIZE)) < end:
            data = source.read(offset, min(_READ_BYTES, end - offset))
            at = data.find(_MARK)
            while at >= 0:
                if at % SECTOR_SIZE == 0:
                    at -= at % BLOCK_SIZE
                    raw = data[at : at + BLOCK_SIZE].ljust(BLOCK_SIZE, b"\0")
                    _examine(raw, offset + at, known, found)
                    at = data.find(_MARK, at + BLOCK_SIZE)
                else:
                    at = data.find(_MARK, at + 1)
            offset += _READ_BYTES
    return found


def _ranges(source: Source, superblocks: list[Superblock]) -> list[tuple[int, int]]:
    """Return where logs can be: log space if both superblocks agree on it, else anywhere."""
    extents = {(superblock.page_size, superblock.log_space) for superblock in superblocks}
    if len(superblocks) == len(SUPERBLOCK_OFFSETS) and len(extents) == 1:
        ((page_size, log_space),) = extents
        if log_space:
            return [(extent.slot * page_size, extent.end * page_size) for extent in log_space]
    return [(HEADER_SIZE, source.size)]


def _examine(raw: bytes, offset: int, known: set[bytes], found: Scan) -> None:
    halves = raw[24:32], raw[SECTOR_SIZE + 24 : SECTOR_SIZE + 32]
    for store_id in {b"".join(halves)} | known:
        block = decode_block(store_id, offset, raw)
        if block is not None:
            found.blocks.append(FoundBlock(offset, store_id, block))
            return
    for at in range(0, BLOCK_SIZE, SECTOR_SIZE):
        mark, seq, log_id = _SECTOR_HEADER.unpack_from(raw, at)
        if mark == _MARK:
            found.stale[log_id] = max(found.stale.get(log_id, 0), seq)


def choose_store(
    source: Source, superblocks: list[Superblock], found: Scan, wanted: bytes | None
) -> tuple[bytes, int]:
    """Return id and frame size of the store that is to be saved.

    :raises StoreCorrupt: there is none, or several and ``wanted`` does not say which.
    """
    stores = {(superblock.store_id, superblock.page_size) for superblock in superblocks}
    if not stores:
        stores = {
            (block.store_id, block.block.page_size)
            for block in found.blocks
            if _is_possible(block.block.page_size)
        }
    if wanted is not None:
        stores = {store for store in stores if store[0] == wanted}
    if not stores:
        logs = f", and {len(found.stale)} logs have blocks that cannot be checked" if found.stale else ""
        raise StoreCorrupt(
            f"{source.path}: nothing can be saved: no superblock is good, no log block names "
            f"{'its store' if wanted is None else f'store {wanted.hex()}'}{logs} (in format version 1 none names "
            "it). Restore the store from a copy"
        )
    if len(stores) > 1:
        names = ", ".join(f"{store_id.hex()} (frames of {size} bytes)" for store_id, size in sorted(stores))
        raise StoreCorrupt(
            f"{source.path}: there are log blocks of several stores, perhaps kept as frames: say with --store-id "
            f"which one to save: {names}"
        )
    return stores.pop()


def _is_possible(page_size: int) -> bool:
    try:
        return check_page_size(page_size) > 0
    except ValueError:
        return False  # 0: a block of version 1, which does not name it
