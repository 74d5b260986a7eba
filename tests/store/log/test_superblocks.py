"""Two superblocks, rewritten one after the other: at any moment one is whole, and no change is lost."""

from __future__ import annotations

import asyncio
import errno

import pytest

from uringblob import BlobStoreIOError
from uringblob.store.format import BLOCK_SIZE, SUPERBLOCK_OFFSETS, SlotRun, Superblock, decode_superblock
from uringblob.store.io.repairs import Repairs
from uringblob.store.log.superblocks import Superblocks

EXTENTS = [SlotRun(2, 240), SlotRun(500, 16)]


class FileIO:
    """Both places on a medium; each write and flush takes a round, and may fail on request."""

    def __init__(self, version=2):
        self.first = Superblock(
            4096,
            b"0123456789abcdef",
            7,
            99,
            SlotRun(2, 16),
            floor=5,
            version=version,
            label=b"thumbnails" * (version > 1),
        )
        self.places = {offset: self.first.encode(offset) for offset in SUPERBLOCK_OFFSETS}
        self.events = []
        self.poison_cause = None
        self.path = "some.blobs"
        self.repairs = Repairs(self)
        self.failing = None
        self.superblocks = Superblocks(self, self.first, 0)

    async def write(self, offset, data, _what):
        await self._pass(("write", offset))
        self.places[offset] = bytes(data)

    async def sync(self, _what):
        await self._pass(("sync",))

    async def _pass(self, event):
        await asyncio.sleep(0)
        if len(self.events) == self.failing:
            raise BlobStoreIOError(errno.EIO, "a test's request")
        self.events.append(event)

    def poison(self, error):
        self.poison_cause = error

    def read(self):
        return [decode_superblock(self.places[offset], offset) for offset in SUPERBLOCK_OFFSETS]


async def test_the_older_is_written_first_and_flushed_before_the_newer_is_touched():
    medium = FileIO()
    await medium.superblocks.change(floor=9)
    assert medium.events == [("write", 4096), ("sync",), ("write", 0), ("sync",)]
    assert [(s.floor, s.revision) for s in medium.read()] == [(9, 9), (9, 8)]
    await medium.superblocks.change(floor=10)
    assert medium.events[4:] == [("write", 4096), ("sync",), ("write", 0), ("sync",)]
    assert medium.superblocks.current == medium.read()[0]


async def test_changes_made_at_once_follow_each_other_and_none_takes_anothers_back():
    """A compaction names its log while the space records an extent."""
    medium = FileIO()
    superblocks = medium.superblocks
    await asyncio.gather(
        superblocks.change(log_id=1234, head=SlotRun(66, 16), floor=6),
        superblocks.record_extents(EXTENTS),
        superblocks.seal(8),
    )
    for found in medium.read():
        assert (found.log_id, found.head, found.floor) == (1234, SlotRun(66, 16), 8)
        assert found.log_space == tuple(EXTENTS)
        assert found.label == b"thumbnails"
    assert [what for what, *_ in medium.events] == ["write", "sync"] * 6
    assert [offset for _, *rest in medium.events for offset in rest] == [4096, 0] * 3
    assert max(found.revision for found in medium.read()) == 7 + 6


async def test_a_store_of_version_1_has_no_list_of_log_space_and_its_seal_leaves_it_version_1():
    medium = FileIO(version=1)
    await medium.superblocks.record_extents(EXTENTS)
    assert medium.events == []
    await medium.superblocks.seal(9)
    assert {(found.version, found.floor, found.log_space) for found in medium.read()} == {(1, 9, ())}
    await medium.superblocks.change(version=2, log_space=tuple(EXTENTS))
    assert {(found.version, found.floor, found.log_space) for found in medium.read()} == {
        (2, 9, tuple(EXTENTS))
    }


@pytest.mark.parametrize("failing", range(4))
async def test_a_change_that_fails_poisons_and_leaves_one_superblock_that_is_true(failing):
    medium = FileIO()
    medium.failing = failing
    with pytest.raises(BlobStoreIOError) as raised:
        await medium.superblocks.change(floor=9)
    assert medium.poison_cause is raised.value
    assert len(medium.events) == failing
    found = medium.read()
    assert None not in found
    assert {superblock.floor for superblock in found} <= {5, 9}
    assert max(found, key=lambda superblock: superblock.revision).floor == (9 if failing else 5)


async def test_a_store_that_is_sealed_already_stays_as_it_is():
    medium = FileIO()
    await medium.superblocks.seal(5)
    assert medium.events == []
    await medium.superblocks.write_newest_again()
    assert medium.events == [("write", 0)]
    assert medium.places[0] == medium.first.encode(0)
    assert len(medium.places[0]) == BLOCK_SIZE
