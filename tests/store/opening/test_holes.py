"""Free slots whose blocks the file system has back: which ones an opener sets aside, and what filling them costs."""

from __future__ import annotations

import ctypes
import os

import pytest

from uringblob import AsyncFileBlobStore, BlobGuid
from uringblob.engines import transfers
from uringblob.store.format import entry_slot

pytestmark = pytest.mark.one_interpreter

PAGE = 65536
FRAME = bytes(range(256)) * (PAGE // 256)
PUNCH_HOLE_KEEP_SIZE = 3
KEPT = 8
GUIDS = [BlobGuid(n.to_bytes(16, "big")) for n in range(64)]


@pytest.fixture
async def emptied(needs_direct, store_path, engine):
    """A closed store of a few blobs, and the slots of others, all of them written, that it had before."""
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE) as store:
        await store.commit([(guid, FRAME) for guid in GUIDS])
        slots = sorted(entry_slot(store._core.index.find(bytes(guid))) for guid in GUIDS[KEPT:])
        await store.commit(deletes=GUIDS[KEPT:])
    return store_path, slots


def punch(path, slots):
    """Give the blocks of ``slots`` back to the file system, as a vacuum does."""
    system = ctypes.CDLL(None)
    fd = os.open(path, os.O_RDWR)
    try:
        for slot in slots:
            if system.fallocate(fd, PUNCH_HOLE_KEEP_SIZE, ctypes.c_long(slot * PAGE), ctypes.c_long(PAGE)):
                pytest.skip("n/a: this file system punches no holes")
    finally:
        os.close(fd)


@pytest.fixture
def allocations(monkeypatch):
    """The offsets at which blocks are allocated."""
    asked = []
    real = transfers.allocate

    async def allocate(engine, offset, size, what):
        asked.append(offset)
        await real(engine, offset, size, what)

    monkeypatch.setattr(transfers, "allocate", allocate)
    return asked


async def test_only_slots_without_blocks_are_holes(emptied, engine):
    """Found by the benchmark: with one hole, or fresh space behind it, all of a run of free slots was set aside."""
    path, slots = emptied
    holes = [slots[1], *slots[10:14], slots[-3]]
    punch(path, holes)
    async with AsyncFileBlobStore.open(path, engine=engine) as store:
        states = store._core.index.slots
        aside = [slot for slot in slots if states.state(slot).name == "HOLE"]
        assert aside == holes
        assert {states.state(slot).name for slot in slots if slot not in holes} == {"FREE"}


async def test_commits_into_slots_that_were_written_allocate_nothing(emptied, engine, allocations):
    """An allocation costs the file system a commit of its journal, which is a second flush."""
    path, slots = emptied
    punch(path, slots[-1:])
    async with AsyncFileBlobStore.open(path, engine=engine) as store:
        for _ in range(4):
            for guid in GUIDS[:KEPT]:
                await store.commit([(guid, FRAME)])
        assert allocations == []
        assert len(slots) > store.stats().slots_free > 0


async def test_a_hole_is_filled_in_steps_like_those_of_growth(emptied, engine, allocations, monkeypatch):
    path, slots = emptied
    punch(path, slots)
    monkeypatch.setattr("uringblob.tuning.GROWTH_BYTES_MIN", 8 * PAGE)
    async with AsyncFileBlobStore.open(path, engine=engine) as store:
        limit = store.stats().file_bytes
        for guid in GUIDS[KEPT : KEPT + 32]:
            await store.commit([(guid, FRAME)])
        assert store.stats().file_bytes == limit
        assert 1 <= len(allocations) <= 6, allocations
        found = bytearray(PAGE)
        for guid in GUIDS[: KEPT + 32]:
            await store.read_blob(guid, found)
            assert found == FRAME
