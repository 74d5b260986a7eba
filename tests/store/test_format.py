"""The bytes of superblocks and log blocks, as tables."""

from __future__ import annotations

import dataclasses
import itertools
import random
import struct

import pytest
import xxhash

from uringblob import units
from uringblob.store.features import feature_names, unknown_features
from uringblob.store.format import (
    BLOCK_SIZE,
    CHECKSUM_MASK,
    EXTENTS_MAX,
    LABEL_BYTES_MAX,
    META_CELLS_MAX,
    RECORDS_PER_BLOCK,
    SECTOR_SIZE,
    VERSION,
    BlockType,
    EntryWithMeta,
    SlotRun,
    Superblock,
    blocks_for,
    decode_block,
    decode_superblock,
    delete_record,
    encode_block,
    entry_meta,
    entry_slot,
    find_stale_sectors,
    first_slot,
    is_sound,
    meta_cells,
    pack_entry,
    packed,
    set_record,
    superblock_version,
)

STORE_ID = b"0123456789abcdef"
SUPERBLOCK = Superblock(4096, STORE_ID, 7, 0xABCDEF, SlotRun(2, 64), floor=5)
EXTENTS = tuple(SlotRun(2 + 40 * n, 16 + n) for n in range(EXTENTS_MAX))
ALL = (1 << 64) - 1
#: Every field of version 2 at its least, at its most, and between.
OF_VERSION_2 = [
    {},
    {"log_space": EXTENTS[:1]},
    {"log_space": EXTENTS},
    {"log_space": tuple(SlotRun((1 << 64) - 1 - n, (1 << 63) + n) for n in range(EXTENTS_MAX))},
    {"incompatible": 1, "read_only_compatible": 1 << 63},
    {"incompatible": ALL, "read_only_compatible": ALL, "compatible": ALL, "created_ns": ALL},
    {"compatible": 1, "log_space": EXTENTS},
    {"created_ns": 1_900_000_000_123_456_789, "label": b"thumbnails"},
    {"label": "Fotos für später".encode(), "log_space": EXTENTS[:3]},
    {"label": b"x" * LABEL_BYTES_MAX, "log_space": EXTENTS},
]


def block(offset=8192, **changes):
    fields = {"log_id": 99, "block_type": BlockType.GROUP, "seq": 12, "records": [set_record(b"g" * 16, 5)]}
    return encode_block(STORE_ID, offset, **{**fields, **changes})


def test_a_label_that_is_too_long_is_refused_not_cut():
    assert decode_superblock(dataclasses.replace(SUPERBLOCK, label=b"x" * 64).encode(0), 0).label == b"x" * 64
    with pytest.raises(ValueError, match="64 bytes, not 65"):
        dataclasses.replace(SUPERBLOCK, label=b"x" * 65).encode(0)


@pytest.mark.parametrize("offset", [0, 4096])
def test_a_superblock_survives_its_bytes(offset):
    assert decode_superblock(SUPERBLOCK.encode(offset), offset) == SUPERBLOCK


@pytest.mark.parametrize("fields", OF_VERSION_2, ids=lambda fields: " ".join(fields))
@pytest.mark.parametrize("offset", [0, 4096])
def test_what_version_2_added_survives_its_bytes(fields, offset):
    superblock = dataclasses.replace(SUPERBLOCK, **fields)
    encoded = superblock.encode(offset)
    assert len(encoded) == BLOCK_SIZE
    assert is_sound(encoded)
    assert superblock_version(encoded) == VERSION == 2
    assert decode_superblock(encoded, offset) == superblock


def test_a_superblock_of_version_1_is_read_and_written_as_release_0_1_did():
    """Field by field, with this test's own hands; what version 2 added is not in it, and not asked for."""
    fields = (b"uringblb", 1, 4096, STORE_ID, 7, 4096, 0xABCDEF, 2, 64, 5, 0)
    body = struct.pack("<8sII16sQQQQQQQ", *fields).ljust(BLOCK_SIZE - 8, b"\0")
    raw = body + struct.pack("<Q", xxhash.xxh3_64_intdigest(body))
    old = dataclasses.replace(SUPERBLOCK, version=1)
    assert decode_superblock(raw, 4096) == old
    assert old.encode(4096) == raw
    assert dataclasses.replace(old, log_space=EXTENTS, label=b"no room", created_ns=5).encode(4096) == raw
    assert (old.log_space, old.incompatible, old.read_only_compatible, old.compatible) == ((), 0, 0, 0)


def test_more_extents_than_a_superblock_has_room_for_are_neither_written_nor_read():
    with pytest.raises(struct.error):
        dataclasses.replace(SUPERBLOCK, log_space=(*EXTENTS, SlotRun(1, 1))).encode(0)
    encoded = bytearray(dataclasses.replace(SUPERBLOCK, log_space=EXTENTS).encode(0))
    at = encoded.index(EXTENTS_MAX.to_bytes(8, "little"), 88)
    encoded[at : at + 8] = (EXTENTS_MAX + 1).to_bytes(8, "little")
    encoded[-8:] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(encoded[:-8])))
    assert is_sound(bytes(encoded))
    assert decode_superblock(bytes(encoded), 0) is None


@pytest.mark.parametrize("version", [0, 3, 1 << 31])
def test_a_superblock_of_another_version_is_sound_and_not_ours(version):
    encoded = dataclasses.replace(SUPERBLOCK, version=version).encode(0)
    assert is_sound(encoded)
    assert superblock_version(encoded) == version
    assert decode_superblock(encoded, 0) is None


def test_a_superblock_is_good_only_in_its_own_place():
    assert decode_superblock(SUPERBLOCK.encode(0), 4096) is None


def test_every_flipped_bit_of_a_superblock_is_noticed():
    good = dataclasses.replace(SUPERBLOCK, log_space=EXTENTS, label=b"thumbnails", created_ns=1).encode(0)
    for bit in range(BLOCK_SIZE * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert decode_superblock(bytes(bad), 0) is None, f"bit {bit}"


def test_every_flipped_bit_of_a_log_block_is_noticed():
    good = block()
    for bit in range(BLOCK_SIZE * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert decode_block(STORE_ID, 8192, bytes(bad)) is None, f"bit {bit}"


def test_a_block_is_good_only_in_its_store_and_place():
    assert decode_block(STORE_ID, 8192, block()) is not None
    assert decode_block(STORE_ID, 8192 + BLOCK_SIZE, block()) is None
    assert decode_block(b"another store...", 8192, block()) is None


@pytest.mark.parametrize("count", [0, 1, 15, 118, RECORDS_PER_BLOCK])
def test_records_survive_their_bytes(count):
    guids = [index.to_bytes(16, "little") for index in range(count)]
    records = [set_record(guid, pack_entry(index + 1, index * 3)) for index, guid in enumerate(guids)]
    found = decode_block(STORE_ID, 8192, block(records=records))
    assert list(found.entries()) == [(guid, pack_entry(i + 1, i * 3)) for i, guid in enumerate(guids)]
    assert found.meta_cells == 0


def with_metas(lengths):
    """Return entries by guid, whose metadata has these lengths."""
    return {
        n.to_bytes(16, "little"): pack_entry(n + 1, n * 7, bytes([n % 251 + 1]) * length)
        for n, length in enumerate(lengths)
    }


def metas_of(entries):
    return [(guid, entry, entry_meta(entry)) for guid, entry in entries]


@pytest.mark.parametrize(
    "lengths",
    [[1], [255] * 13, [32, 33, 0, 31, 255, 0], [0] * 118, [0] * 110 + [255], [255] + [0] * 110, [1] * 59],
    ids=str,
)
def test_metadata_survives_its_bytes(lengths):
    entries = with_metas(lengths)
    found = decode_block(STORE_ID, 8192, block(records=[*itertools.starmap(set_record, entries.items())]))
    assert metas_of(found.entries()) == metas_of(entries.items())
    assert found.meta_cells == sum(-(-length // 32) for length in lengths)
    assert [type(entry) for _, entry in found.entries()] == [
        EntryWithMeta if length else int for length in lengths
    ]


def test_every_flipped_bit_of_metadata_is_noticed():
    good = block(records=[*itertools.starmap(set_record, with_metas([40, 255, 0, 1]).items())])
    for bit in range(BLOCK_SIZE * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert decode_block(STORE_ID, 8192, bytes(bad)) is None, f"bit {bit}"


def signed(raw):
    """Return a block with whatever was written into it, and the checksum that goes with it."""
    raw[32:40] = bytes(8)
    raw[32:40] = struct.pack("<Q", xxhash.xxh3_64_intdigest(STORE_ID + struct.pack("<Q", 8192) + raw))
    return bytes(raw)


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (52, 1, "the head says that there is less metadata than records have"),
        (52, 3, "more"),
        (52, 118, "more than the block has cells"),
        (48, 119, "more records than cells are left"),
        (64 + 23, 255, "a record has more metadata than the head says"),
        (64 + 23, 0, "less"),
    ],
)
def test_a_block_whose_metadata_does_not_add_up_is_none(at, value, why):
    """Its checksum is right: what wrote it was not this library."""
    raw = bytearray(block(records=[set_record(bytes(16), pack_entry(5, 6, b"x" * 40))]))
    assert decode_block(STORE_ID, 8192, signed(raw)) is not None
    raw[at] = value
    assert decode_block(STORE_ID, 8192, signed(raw)) is None, why


@pytest.mark.parametrize("seed", range(20))
def test_records_are_packed_into_as_many_blocks_as_were_counted_or_fewer(seed):
    rng = random.Random(seed)
    worst = [255, *[0] * 103]  # 112 cells, so that the next one with much metadata does not fit
    lengths = rng.choices((0, 1, 32, 33, 255), k=rng.randint(0, 700)) if seed else worst * 5
    entries = with_metas(lengths)
    blocks = blocks_for(len(entries), sum(meta_cells(entry_meta(entry)) for entry in entries.values()))
    parts = packed(itertools.starmap(set_record, entries.items()))
    found = []
    for _ in range(blocks):
        part = next(parts)
        assert sum(map(len, part)) <= RECORDS_PER_BLOCK * 32
        found += decode_block(STORE_ID, 8192, block(records=part)).entries()
    assert next(parts) == []
    assert metas_of(found) == metas_of(entries.items())


def test_a_feature_flag_is_named_by_its_kind_and_bit():
    flags = dataclasses.replace(
        SUPERBLOCK, incompatible=1 | 1 << 63, read_only_compatible=4, compatible=1 << 9
    )
    assert unknown_features(flags) == (
        "incompatible feature 0, incompatible feature 63, read-only compatible feature 2"
    )
    assert feature_names(flags)[0] == "compatible feature 9"
    assert feature_names(SUPERBLOCK) == []


def test_the_label_and_the_metadata_have_room_for_what_the_store_takes():
    assert units.LABEL_BYTES_MAX == LABEL_BYTES_MAX
    assert (
        len(set_record(bytes(16), pack_entry(1, 2, bytes(units.META_BYTES_MAX)))) == 32 + 32 * META_CELLS_MAX
    )


def test_a_block_names_its_store_and_frame_size():
    raw = block(page_size=12288)
    halves = [raw[at + 24 : at + 32] for at in range(0, BLOCK_SIZE, SECTOR_SIZE)]
    assert b"".join(halves) == STORE_ID * 4
    assert decode_block(STORE_ID, 8192, raw).page_size == 12288


def test_a_deletion_is_slot_zero():
    found = decode_block(STORE_ID, 8192, block(records=[delete_record(b"x" * 16)]))
    assert [(guid, entry_slot(entry)) for guid, entry in found.entries()] == [(b"x" * 16, 0)]


def test_no_sector_of_a_block_is_blank_and_each_names_its_group():
    for records in ([], [set_record(bytes(16), 0)]):
        raw = block(records=records, seq=77)
        for sector in range(0, BLOCK_SIZE, SECTOR_SIZE):
            torn = bytearray(BLOCK_SIZE)
            torn[sector : sector + SECTOR_SIZE] = raw[sector : sector + SECTOR_SIZE]
            assert [trace.seq for trace in find_stale_sectors(bytes(torn), 8192, 99)] == [77]


def test_a_trace_of_another_log_or_of_garbage_bears_no_number():
    assert [t.seq for t in find_stale_sectors(block()[:SECTOR_SIZE], 0, log_id=98)] == [None]
    assert [t.seq for t in find_stale_sectors(b"\x01" * SECTOR_SIZE, 0, log_id=99)] == [None]
    assert find_stale_sectors(bytes(BLOCK_SIZE), 0, log_id=99) == []


def test_entries_pack_slot_and_checksum():
    for slot, checksum in [(1, 0), (1 << 40, (1 << 64) - 1), (3, 1)]:
        entry = pack_entry(slot, checksum)
        assert (entry_slot(entry), entry & CHECKSUM_MASK) == (slot, checksum)


@pytest.mark.parametrize(("page_size", "slot"), [(4096, 2), (8192, 1), (524288, 1)])
def test_the_first_slot_lies_behind_the_superblocks(page_size, slot):
    assert first_slot(page_size) == slot


@pytest.mark.parametrize(("records", "blocks"), [(0, 1), (1, 1), (119, 1), (120, 2), (238, 2), (239, 3)])
def test_a_group_takes_as_many_blocks_as_its_records_need(records, blocks):
    assert blocks_for(records) == blocks


def test_a_segment_ends_where_the_next_slot_begins():
    assert SlotRun(7, 3).end == 10


def test_revisions_and_floors_are_part_of_the_checksum():
    other = dataclasses.replace(SUPERBLOCK, floor=6)
    assert other.encode(0)[-8:] != SUPERBLOCK.encode(0)[-8:]
