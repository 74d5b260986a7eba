"""The timeline of groups, made of blocks that stand in no file."""

from __future__ import annotations

import pytest

from uringblob.salvage.history import History
from uringblob.salvage.scan import FoundBlock, Scan
from uringblob.store.format import BlockType, decode_block, encode_block, pack_entry, set_record

STORE = b"s" * 16
A = b"a" * 16
OLD, NEW = 11, 12
FIRST = [(OLD, BlockType.SNAPSHOT, 0, {}), (OLD, BlockType.CARRY, 1, {})]


def history(*units, stale=None) -> History:
    """Return the history that (log, type, number, slots by guid) make."""
    found = Scan(stale=stale or {})
    for log_id, kind, seq, slots in units:
        records = [set_record(guid, pack_entry(slot, 0)) for guid, slot in slots.items()]
        raw = encode_block(STORE, 0, log_id=log_id, block_type=kind, seq=seq, records=records)
        found.blocks.append(FoundBlock(0, STORE, decode_block(STORE, 0, raw)))
    made = History(found, STORE, [])
    made.settle_last_group(lambda _version: True)
    return made


def test_the_carry_of_a_compaction_that_was_given_up_is_older_than_the_group_of_its_number():
    made = history(
        *FIRST,
        (OLD, BlockType.GROUP, 2, {A: 5}),
        (OLD, BlockType.GROUP, 3, {A: 6}),
        (NEW, BlockType.SNAPSHOT, 1, {}),
        (NEW, BlockType.CARRY, 3, {A: 5}),
    )
    assert made.newest()[A].slot == 6


def test_a_carry_stands_for_the_group_of_its_number_only_if_its_log_was_adopted():
    lost_3 = [*FIRST, (OLD, BlockType.GROUP, 2, {A: 5}), (OLD, BlockType.GROUP, 4, {A: 7})]
    given_up = (NEW, BlockType.SNAPSHOT, 1, {}), (NEW, BlockType.CARRY, 3, {A: 5})
    assert history(*lost_3, *given_up).gaps() == [(3, 3)]
    adopted = (NEW, BlockType.GROUP, 4, {A: 7})
    assert history(*lost_3[:-1], *given_up, adopted).gaps() == []


@pytest.mark.parametrize("number", [3, 7])
def test_one_sector_of_a_later_group_tells_which_groups_are_missing(number):
    made = history(*FIRST, (OLD, BlockType.GROUP, 2, {A: 5}), stale={OLD: number})
    assert made.gaps() == ([(3, number - 1)] if number > 3 else [])


def test_gaps_before_a_whole_snapshot_are_none():
    made = history(
        (NEW, BlockType.SNAPSHOT, 40, {A: 5}), (NEW, BlockType.CARRY, 42, {}), (NEW, BlockType.GROUP, 43, {})
    )
    assert made.gaps() == []
    assert made.newest()[A].slot == 5
