"""The bytes of a store file: no I/O, no state.

``docs/maintainers/format.md`` is the same in prose with the reasons; the two change in one commit.
All integers are little-endian and unsigned.

A *superblock* is one 4096-byte block with a checksum.  A *log block* is eight sectors of 512 bytes; each
begins with a 32-byte sector header that names type, log and sequence number, so that a single surviving
sector of a torn block still identifies its group, and none is ever all zero.  Behind the sector headers
lie 120 cells of 32 bytes: cell 0 is the block header, the rest are records, each with its blob's metadata
in whole cells behind it.  A block names its store and frame size, so it can be checked without a superblock.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import xxhash

BLOCK_SIZE = 4096
SECTOR_SIZE = 512
SECTORS = BLOCK_SIZE // SECTOR_SIZE
CELL_SIZE = 32
CELLS_PER_SECTOR = SECTOR_SIZE // CELL_SIZE - 1
#: Records that a block holds where no blob has metadata, and so the cells for records.
RECORDS_PER_BLOCK = SECTORS * CELLS_PER_SECTOR - 1
#: Cells that a blob's metadata takes at most: its length in bytes is one byte.
META_CELLS_MAX = -(-0xFF // CELL_SIZE)

MAGIC = b"uringblb"
VERSION = 2
#: What this release opens; a store of version 1 is upgraded by its first change.
VERSIONS = frozenset({1, 2})
SUPERBLOCK_OFFSETS = (0, BLOCK_SIZE)
HEADER_SIZE = 2 * BLOCK_SIZE
_MARK = b"ublk"
_SUPERBLOCK = struct.Struct("<8sII16sQQQQQQQ")
_SECTOR = struct.Struct("<4sBBBBQQ8s")
_BLOCK = struct.Struct("<QIIIIQ")
#: The sectors of a block, with nothing but their marks.
_SECTORS = struct.Struct("<" + f"4sBBBBQQ8s{SECTOR_SIZE - CELL_SIZE}x" * SECTORS)
#: Version 2, behind version 1: feature flags, time of creation, label, count of extents, the last flags.
_SUPERBLOCK_2 = struct.Struct("<QQQ64sQQ")
_EXTENT = struct.Struct("<QQ")
_EXTENTS_OFFSET = 256
#: Extents of log space that a superblock has room for.
EXTENTS_MAX = (BLOCK_SIZE - 8 - _EXTENTS_OFFSET) // _EXTENT.size
LABEL_BYTES_MAX = 64
_RECORD = struct.Struct("<16sQQ")
_LINK = struct.Struct("<QQQQ")
_U64 = struct.Struct("<Q")
_BINDING = struct.Struct("<16sQ")
#: No slot, revision or sequence number of a real store comes near it; they must be able to grow.
COUNT_LIMIT = 1 << 62

CHECKSUM_BITS = 64
CHECKSUM_MASK = (1 << CHECKSUM_BITS) - 1
#: A record's slot field has the length of the metadata in its highest byte.
_META_SHIFT = 56
_SLOT_MASK = (1 << _META_SHIFT) - 1
BLANK_BLOCK = bytes(BLOCK_SIZE)
_BLANK_SECTOR = bytes(SECTOR_SIZE)


class BlockType(enum.IntEnum):
    """What a log block holds."""

    SEGMENT = 1  #: the first block of a segment: where it lies and which segment follows
    SNAPSHOT = 2  #: the whole map at one sequence number
    CARRY = 3  #: the changes between a snapshot and the log's first group
    GROUP = 4  #: one atomic change
    SWITCH = 5  #: the log goes on elsewhere


FLAG_FRAMES_SYNCED = 1


class EntryWithMeta(int):
    """The packed entry of a blob that has metadata; that of any other blob is a plain ``int``.

    One object, so metadata is where its entry is, in every map and for every reader, and a store without
    metadata has none of it.  Arithmetic drops the metadata: make an entry of another slot with
    :func:`pack_entry`.
    """

    meta: bytes


def pack_entry(slot: int, checksum: int, meta: bytes = b"") -> int:
    """Return the map's value for a blob: slot, frame checksum and metadata in one int."""
    return with_meta(slot << CHECKSUM_BITS | checksum, meta)


def with_meta(entry: int, meta: bytes) -> int:
    """Return a packed entry with ``meta``."""
    if not meta:
        return entry
    made = EntryWithMeta(entry)
    made.meta = meta
    return made


def entry_meta(entry: int) -> bytes:
    """Return the metadata of a packed entry's blob."""
    return entry.meta if isinstance(entry, EntryWithMeta) else b""


def meta_cells(meta: bytes) -> int:
    """Return how many cells ``meta`` takes behind its record."""
    return -(-len(meta) // CELL_SIZE)


def entry_slot(entry: int) -> int:
    """Return the slot of a packed entry."""
    return entry >> CHECKSUM_BITS


def first_slot(page_size: int) -> int:
    """Return the lowest slot that does not overlap the superblocks (slot 0 never exists)."""
    return -(-HEADER_SIZE // page_size)


# --- superblocks -----------------------------------------------------------------------------


class SlotRun(NamedTuple):
    """Consecutive slots: of frames, an extent of log space, or a segment of a log."""

    slot: int
    slots: int

    @property
    def end(self) -> int:
        """The first slot behind it."""
        return self.slot + self.slots

    def contains(self, other: SlotRun) -> bool:
        """Whether all slots of ``other`` are in this run."""
        return self.slot <= other.slot and other.end <= self.end


@dataclasses.dataclass(frozen=True)
class Superblock:
    """Where the log begins, which slots are kept for logs, and up to which group nothing may be missing.

    ``log_space`` is empty in version 1, where a log's segments lie among the frames.
    A release that does not know a bit of ``incompatible`` must not open the store, of ``read_only_compatible``
    not change it; those of ``compatible`` it ignores, and keeps.  This release knows none.
    """

    page_size: int
    store_id: bytes
    revision: int
    log_id: int
    head: SlotRun  #: the log's first segment
    floor: int
    version: int = VERSION
    log_space: tuple[SlotRun, ...] = ()
    incompatible: int = 0
    read_only_compatible: int = 0
    created_ns: int = 0
    label: bytes = b""
    compatible: int = 0

    def encode(self, offset: int) -> bytes:
        """Return the 4096 bytes of this superblock for its place at ``offset``.

        :raises ValueError: the label is longer than ``LABEL_BYTES_MAX``.
        """
        if len(self.label) > LABEL_BYTES_MAX:
            raise ValueError(f"a label has at most {LABEL_BYTES_MAX} bytes, not {len(self.label)}")
        body = bytearray(BLOCK_SIZE - 8)
        numbers = self.revision, offset, self.log_id, self.head.slot, self.head.slots, self.floor, 0
        _SUPERBLOCK.pack_into(body, 0, MAGIC, self.version, self.page_size, self.store_id, *numbers)
        if self.version > 1:
            features = self.incompatible, self.read_only_compatible, self.created_ns, self.label
            counts = len(self.log_space), self.compatible
            _SUPERBLOCK_2.pack_into(body, _SUPERBLOCK.size, *features, *counts)
            for index, extent in enumerate(self.log_space):
                _EXTENT.pack_into(body, _EXTENTS_OFFSET + index * _EXTENT.size, extent.slot, extent.slots)
        return bytes(body) + _U64.pack(xxhash.xxh3_64_intdigest(body))


def decode_superblock(block: bytes, offset: int) -> Superblock | None:
    """Return the superblock that ``block`` holds, or ``None`` if it is damaged or none."""
    if not is_sound(block):
        return None
    fields = _SUPERBLOCK.unpack_from(block)
    _, version, page_size, store_id, revision, own_offset, log_id, slot, slots, floor, _ = fields
    if version not in VERSIONS or own_offset != offset:
        return None
    common = page_size, store_id, revision, log_id, SlotRun(slot, slots), floor, version
    if version == 1:
        return Superblock(*common)
    incompatible, to_write, created_ns, label, count, compatible = _SUPERBLOCK_2.unpack_from(
        block, _SUPERBLOCK.size
    )
    if count > EXTENTS_MAX:
        return None
    extents = (_EXTENT.unpack_from(block, _EXTENTS_OFFSET + i * _EXTENT.size) for i in range(count))
    log_space = tuple(SlotRun(slot, slots) for slot, slots in extents)
    label = label.rstrip(b"\0")
    return Superblock(*common, log_space, incompatible, to_write, created_ns, label, compatible)


def is_sound(block: bytes) -> bool:
    """Whether ``block`` is an undamaged superblock of any version."""
    if len(block) != BLOCK_SIZE or block[:8] != MAGIC:
        return False
    checksum: int = _U64.unpack_from(block, BLOCK_SIZE - 8)[0]
    return checksum == xxhash.xxh3_64_intdigest(block[:-8])


def superblock_version(block: bytes) -> int | None:
    """Return the format version a block claims, or ``None`` if it is no superblock."""
    if len(block) != BLOCK_SIZE or block[:8] != MAGIC:
        return None
    return int.from_bytes(block[8:12], "little")


# --- log blocks ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Block:
    """A valid log block."""

    type: BlockType
    flags: int
    seq: int
    log_id: int
    index: int
    count: int
    records: int
    payload: bytes
    meta_cells: int = 0  #: cells that metadata takes, behind the records of its blobs
    page_size: int = 0  #: 0 in blocks of version 1

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Yield ``(guid, packed entry)``; slot 0 says that the blob is deleted."""
        if self.meta_cells:
            return _entries_with_meta(self.payload, self.records)
        cells = self.payload[CELL_SIZE : CELL_SIZE * (self.records + 1)]
        return ((guid, slot << CHECKSUM_BITS | check) for guid, slot, check in _RECORD.iter_unpack(cells))

    def link(self) -> tuple[int, int, int, int]:
        """Return the four numbers of a SEGMENT or SWITCH block."""
        a, b, c, d = _LINK.unpack_from(self.payload, CELL_SIZE)
        return a, b, c, d


def _entries_with_meta(payload: bytes, records: int) -> Iterator[tuple[bytes, int]]:
    at = CELL_SIZE
    for _ in range(records):
        guid, field, checksum = _RECORD.unpack_from(payload, at)
        at, length = at + CELL_SIZE, field >> _META_SHIFT
        yield guid, pack_entry(field & _SLOT_MASK, checksum, payload[at : at + length])
        at += -(-length // CELL_SIZE) * CELL_SIZE


def _count_meta_cells(payload: bytes, records: int) -> int:
    """Return how many cells the metadata of ``records`` records takes, or -1 if the block is too short for it."""
    cells = 1
    for _ in range(records):
        if cells > RECORDS_PER_BLOCK:
            return -1
        _, field, _ = _RECORD.unpack_from(payload, cells * CELL_SIZE)
        cells += 1 - (-(field >> _META_SHIFT) // CELL_SIZE)
    return cells - 1 - records if cells <= RECORDS_PER_BLOCK + 1 else -1


def encode_block(
    store_id: bytes,
    offset: int,
    *,
    log_id: int,
    block_type: BlockType,
    seq: int,
    flags: int = 0,
    index: int = 0,
    count: int = 1,
    records: Sequence[bytes] = (),
    page_size: int = 0,
) -> bytes:
    """Return the 4096 bytes of a log block for its place at ``offset``."""
    cells = b"".join(records)
    payload = _BLOCK.pack(0, index, count, len(records), len(cells) // CELL_SIZE - len(records), page_size)
    payload += cells
    marks = [_MARK, block_type, 0, flags, 0, seq, log_id, b""] * SECTORS
    marks[2::8] = range(SECTORS)
    marks[7::8] = (store_id[:8], store_id[8:]) * (SECTORS // 2)
    block = bytearray(_SECTORS.pack(*marks))
    step = CELLS_PER_SECTOR * CELL_SIZE
    for sector in range(-(-len(payload) // step)):  # behind its end all is zero
        part, at = payload[sector * step : (sector + 1) * step], sector * SECTOR_SIZE + CELL_SIZE
        block[at : at + len(part)] = part
    # As _block_checksum() does it; written out, because every commit comes here.
    _U64.pack_into(block, CELL_SIZE, xxhash.xxh3_64_intdigest(_BINDING.pack(store_id, offset) + block))
    return bytes(block)


def _block_checksum(store_id: bytes, offset: int, block: bytes | bytearray) -> int:
    """Checksum of a block whose checksum field is zero, bound to its store and its place."""
    hasher = xxhash.xxh3_64(_BINDING.pack(store_id, offset))
    hasher.update(block)
    return hasher.intdigest()


def decode_block(store_id: bytes, offset: int, raw: bytes) -> Block | None:
    """Return the log block that ``raw`` holds, or ``None`` if it is blank, torn or of another place."""
    mark, block_type, _, flags, _, seq, log_id, _ = _SECTOR.unpack_from(raw)
    if mark != _MARK or not BlockType.SEGMENT <= block_type <= BlockType.SWITCH:
        return None
    checksum, index, count, records, meta_cells, page = _BLOCK.unpack_from(raw, CELL_SIZE)
    if records + meta_cells > RECORDS_PER_BLOCK or index >= count:
        return None
    unsigned = bytearray(raw)
    _U64.pack_into(unsigned, CELL_SIZE, 0)
    if checksum != _block_checksum(store_id, offset, unsigned):
        return None
    payload = b"".join(raw[at + CELL_SIZE : at + SECTOR_SIZE] for at in range(0, BLOCK_SIZE, SECTOR_SIZE))
    if meta_cells and _count_meta_cells(payload, records) != meta_cells:
        return None
    return Block(BlockType(block_type), flags, seq, log_id, index, count, records, payload, meta_cells, page)


def set_record(guid: bytes, entry: int) -> bytes:
    """Return the record that maps ``guid`` to a packed entry, with the cells of its metadata."""
    if not isinstance(entry, EntryWithMeta):
        return _RECORD.pack(guid, entry >> CHECKSUM_BITS, entry & CHECKSUM_MASK)
    meta = entry.meta
    field = len(meta) << _META_SHIFT | entry >> CHECKSUM_BITS
    cells = meta.ljust(meta_cells(meta) * CELL_SIZE, b"\0")
    return _RECORD.pack(guid, field, entry & CHECKSUM_MASK) + cells


def delete_record(guid: bytes) -> bytes:
    """Return the record that removes ``guid``."""
    return _RECORD.pack(guid, 0, 0)


def link_record(a: int, b: int, c: int, d: int) -> bytes:
    """Return the record of a SEGMENT (index, own slots, next slot, next slots) or SWITCH block."""
    return _LINK.pack(a, b, c, d)


# --- what a torn or stale block leaves behind ------------------------------------------------


@dataclasses.dataclass(frozen=True)
class StaleSector:
    """A sector that is not blank behind the last group.

    ``seq`` is the group that it names, or ``None`` if it is not of this log.
    """

    offset: int
    seq: int | None


def find_stale_sectors(raw: bytes, offset: int, log_id: int) -> list[StaleSector]:
    """Return the sectors of ``raw`` that are not blank; it was read from ``offset``."""
    if raw == BLANK_BLOCK:
        return []
    found = []
    for at in range(0, len(raw), SECTOR_SIZE):
        if raw[at : at + SECTOR_SIZE] != _BLANK_SECTOR:
            mark, _, _, _, _, seq, sector_log_id, _ = _SECTOR.unpack_from(raw, at)
            ours = mark == _MARK and sector_log_id == log_id
            found.append(StaleSector(offset + at, seq if ours else None))
    return found


def blocks_for(records: int, cells_of_meta: int = 0) -> int:
    """Return how many blocks are enough for ``records`` whose metadata takes so many cells; at least one.

    A record with its metadata lies in one block, so with metadata the last cells of a block may be empty.
    """
    cells = records + cells_of_meta
    if cells <= RECORDS_PER_BLOCK:
        return 1
    return -(-cells // (RECORDS_PER_BLOCK - META_CELLS_MAX if cells_of_meta else RECORDS_PER_BLOCK))


def packed(records: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the records of one block after the other, and then of empty blocks, without end."""
    block, room = list[bytes](), RECORDS_PER_BLOCK
    for record in records:
        cells = len(record) // CELL_SIZE
        if cells > room:
            yield block
            block, room = [], RECORDS_PER_BLOCK
        block.append(record)
        room -= cells
    while True:
        yield block
        block = []
