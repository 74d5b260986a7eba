"""The bytes of a store file, read a second time: from docs/maintainers/format.md alone.

Whatever the store's own ``format.py`` gets wrong, this parser does not get wrong with it.  Nothing
here is imported from the store, and nothing of it is imported by the store.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import xxhash

BLOCK = 4096
SECTOR = 512
BLANK = bytes(BLOCK)
MARK = b"ublk"

SEGMENT, SNAPSHOT, CARRY, GROUP, SWITCH = 1, 2, 3, 4, 5
KINDS = {SEGMENT: "header", SNAPSHOT: "snapshot", CARRY: "carry", GROUP: "group", SWITCH: "switch"}
FRAMES_WERE_FLUSHED = 1

_SUPERBLOCK = struct.Struct("<8sII16s7Q")
_EXTENTS_COUNT_AT, _EXTENTS_AT = 176, 256
_SECTOR_HEAD = struct.Struct("<4sBBBxQQ")
_BLOCK_HEAD = struct.Struct("<QIIII")
_RECORD = struct.Struct("<16sQQ")
_FOUR = struct.Struct("<4Q")
_NUMBER = struct.Struct("<Q")
_CELLS_IN_FIRST_SECTOR = 14
_CELLS_MAX = 119


class Super(NamedTuple):
    """A good superblock."""

    page_size: int
    store_id: bytes
    revision: int
    log_id: int
    head: tuple[int, int]
    floor: int
    version: int
    log_space: tuple[tuple[int, int], ...]
    #: Incompatible, read-only compatible, compatible.
    features: tuple[int, int, int]
    created_ns: int
    label: bytes

    def keeps(self, slot: int) -> bool:
        """Whether ``slot`` is kept for logs."""
        return any(first <= slot < first + count for first, count in self.log_space)


class LogBlock(NamedTuple):
    """A good log block; ``records`` are (guid, slot, checksum), in a header or switch four numbers.

    ``metas`` is the metadata of the blobs that have some, by slot.
    """

    kind: int
    flags: int
    seq: int
    log_id: int
    index: int
    count: int
    records: list
    metas: dict


class _Parsed:
    """What was parsed lately.  Rigs open thousands of images with the same few blocks, and both parsers ask
    nothing but the bytes; a checksum is a good key and a bad proof, so the bytes are compared.
    """

    MOST = 1024

    def __init__(self, parse, checksum_at: int) -> None:
        self._parse = parse
        self._at = slice(checksum_at, checksum_at + 8)
        self._known: dict[tuple, tuple] = {}

    def __call__(self, raw: bytes, *where):
        key = raw[self._at], where
        known = self._known.get(key)
        if known is not None and known[0] == raw:
            return known[1]
        found = self._parse(raw, *where)
        if found is not None:
            if len(self._known) >= self.MOST:
                self._known.clear()
            self._known[key] = raw, found
        return found


def _parse_superblock(raw: bytes, offset: int) -> Super | None:
    if len(raw) != BLOCK or xxhash.xxh3_64_intdigest(raw[:4088]) != _NUMBER.unpack_from(raw, 4088)[0]:
        return None
    magic, version, page, store_id, revision, own, log_id, slot, slots, floor, _ = _SUPERBLOCK.unpack_from(
        raw
    )
    if magic != b"uringblb" or version not in (1, 2) or own != offset:
        return None
    extents, features, created_ns, label = (), (0, 0, 0), 0, b""
    if version == 2:
        features = (*struct.unpack_from("<2Q", raw, 88), *_NUMBER.unpack_from(raw, 184))
        (created_ns,) = _NUMBER.unpack_from(raw, 104)
        label = raw[112:176].rstrip(b"\0")
        (count,) = _NUMBER.unpack_from(raw, _EXTENTS_COUNT_AT)
        numbers = struct.unpack_from(f"<{2 * count}Q", raw, _EXTENTS_AT)
        extents = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    known = page, store_id, revision, log_id, (slot, slots), floor, version, extents
    return Super(*known, features, created_ns, label)


def _parse_block(raw: bytes, offset: int, store_id: bytes) -> LogBlock | None:
    _, kind, _, flags, seq, log_id = _SECTOR_HEAD.unpack_from(raw)
    if kind not in KINDS:
        return None
    checksum, index, count, records, meta_cells = _BLOCK_HEAD.unpack_from(raw, 32)
    bound = b"".join((store_id, _NUMBER.pack(offset), raw[:32], bytes(8), raw[40:]))
    cells_used = records + meta_cells
    if checksum != xxhash.xxh3_64_intdigest(bound) or cells_used > _CELLS_MAX or index >= count:
        return None
    if kind in (SEGMENT, SWITCH):
        return LogBlock(kind, flags, seq, log_id, index, count, [_FOUR.unpack_from(raw, 64)], {})
    if cells_used <= _CELLS_IN_FIRST_SECTOR:
        cells = raw[64 : 64 + 32 * cells_used]
    else:
        cells = b"".join([raw[at + 32 : at + SECTOR] for at in range(0, BLOCK, SECTOR)])[
            32 : 32 + 32 * cells_used
        ]
    if not meta_cells:
        return LogBlock(kind, flags, seq, log_id, index, count, list(_RECORD.iter_unpack(cells)), {})
    parsed = _records_with_metadata(cells, records)
    return None if parsed is None else LogBlock(kind, flags, seq, log_id, index, count, *parsed)


def _records_with_metadata(cells: bytes, records: int):
    """Return the records and their metadata; ``None`` if they do not fill ``cells`` exactly."""
    found, metas, at = [], {}, 0
    for _ in range(records):
        if at + 32 > len(cells):
            return None
        guid, field, checksum = _RECORD.unpack_from(cells, at)
        slot, length = field & ((1 << 56) - 1), field >> 56
        found.append((guid, slot, checksum))
        if length:
            metas[slot] = cells[at + 32 : at + 32 + length]
        at += 32 * (1 + (length + 31) // 32)
    return (found, metas) if at == len(cells) else None


_superblocks = _Parsed(_parse_superblock, BLOCK - 8)
_blocks = _Parsed(_parse_block, 32)


def parse_superblock(raw: bytes, offset: int) -> Super | None:
    return _superblocks(raw, offset)


def parse_block(store_id: bytes, offset: int, raw: bytes) -> LogBlock | None:
    """Return the log block that ``raw``, 4096 bytes at ``offset``, is; ``None`` if it is none."""
    return _blocks(raw, offset, store_id) if raw[:4] == MARK else None


def unmarked_sector(raw: bytes) -> int:
    """Return the index of a sector whose head does not say what the block's first one says, or -1."""
    for index in range(8):
        head = raw[index * SECTOR : index * SECTOR + 32]
        if head[:5] + head[6:24] != raw[:5] + raw[6:24] or head[5] != index:
            return index
    return -1


def names_its_store(raw: bytes, store_id: bytes, page_size: int) -> bool:
    """Whether every sector has its half of the store id, and the block the frame size."""
    halves = b"".join(raw[at + 24 : at + 32] for at in range(0, BLOCK, SECTOR))
    return halves == store_id * 4 and _NUMBER.unpack_from(raw, 56)[0] == page_size
