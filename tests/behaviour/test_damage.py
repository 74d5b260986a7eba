"""Stores that lost a part of themselves: superblocks, one or both; the end of the file."""

from __future__ import annotations

import os
import shutil

import pytest

from behaviour.work import fill, frame, guid, missing
from uringblob import AsyncFileBlobStore, BlobCorrupt, StoreCorrupt

pytestmark = pytest.mark.one_interpreter

BLOCK = 4096

#: Ways to destroy one superblock.
RUINS = {
    "zeroed": lambda block: bytes(BLOCK),
    "torn": lambda block: block[:512] + bytes(BLOCK - 512),
    "unreadable version": lambda block: block[:8] + b"\xff" + block[9:],
}


def ruin(path, number, how):
    """Destroy superblock ``number``."""
    with open(path, "r+b") as file:
        file.seek(number * BLOCK)
        block = file.read(BLOCK)
        file.seek(number * BLOCK)
        file.write(RUINS[how](block))


async def make(path, engine, compactions, *, clean=True):
    """Make a store of 30 blobs at version ``compactions``; leave it closed, or as a kill would."""
    store = await AsyncFileBlobStore.open(path, engine=engine, page_size=BLOCK, buffers=4)
    await fill(store, range(30))
    for version in range(1, compactions + 1):
        await store._core.maintenance.start_compaction()
        await fill(store, range(30), version)
    shutil.copyfile(path, f"{path}.unclean")
    assert store.stats().compactions == compactions
    await store.aclose()
    if not clean:
        os.replace(f"{path}.unclean", path)


async def check_all_there(path, engine, version):
    async with AsyncFileBlobStore.open(path, engine=engine, buffers=4) as store:
        assert not await missing(store, range(30), version)
        await store.commit([(guid(30), frame(30, BLOCK))])
    # That opening has mended what was destroyed: the other superblock may now be lost as well.
    ruin(path, 0, "zeroed")
    async with AsyncFileBlobStore.open(path, engine=engine, buffers=4) as store:
        assert not await missing(store, range(30), version)
        assert not await missing(store, [30])


@pytest.mark.parametrize("clean", [True, False], ids=["closed", "killed"])
@pytest.mark.parametrize("compactions", [0, 1, 2])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("how", RUINS)
async def test_one_superblock_is_enough(store_path, engine, how, number, compactions, clean):
    """The newest acknowledged commit is there, whichever is lost, however often the log moved."""
    await make(store_path, engine, compactions, clean=clean)
    ruin(store_path, number, how)
    await check_all_there(store_path, engine, version=compactions)


@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
async def test_a_read_only_opener_mends_nothing(store_path, engine, read_only):
    await make(store_path, engine, 1)
    ruin(store_path, 0, "zeroed")
    async with AsyncFileBlobStore.open(store_path, engine=engine, read_only=read_only) as store:
        assert not await missing(store, range(30), 1)
    with open(store_path, "rb") as file:
        assert (file.read(BLOCK) == bytes(BLOCK)) is read_only


@pytest.mark.parametrize("how", RUINS)
async def test_without_any_superblock_it_is_corrupt_and_untouched(store_path, engine, how):
    await make(store_path, engine, 1)
    for number in (0, 1):
        ruin(store_path, number, how)
    with open(store_path, "rb") as file:
        before = file.read()
    with pytest.raises(StoreCorrupt, match=store_path):
        await AsyncFileBlobStore.open(store_path, engine=engine)
    with open(store_path, "rb") as file:
        assert file.read() == before


# ---- truncation -------------------------------------------------------------------------------


async def slots_of(path, engine):
    """Return each blob's slot, and the first byte behind the log."""
    async with AsyncFileBlobStore.open(path, engine=engine, read_only=True) as store:
        core = store._core
        slots = {number: core.index.find(guid(number)) >> 64 for number in range(30)}
        log_end = max(segment.slot + segment.slots for segment in core.log.chain) * BLOCK
    return slots, log_end


@pytest.mark.parametrize("cut", [0, 1, 4095], ids=["at a frame", "one byte", "a byte short of a frame"])
async def test_a_cut_through_the_frames_loses_those_blobs_alone(store_path, engine, cut):
    await make(store_path, engine, 0)
    slots, log_end = await slots_of(store_path, engine)
    by_slot = sorted(slots, key=slots.get)
    assert slots[by_slot[0]] * BLOCK >= log_end
    os.truncate(store_path, slots[by_slot[20]] * BLOCK + cut)
    kept, lost = by_slot[:20], by_slot[20:]

    for options in ({"read_only": True}, {}):
        async with AsyncFileBlobStore.open(store_path, engine=engine, **options) as store:
            assert len(await store.list_blobs()) == 30
            assert any("10 blobs are lost" in note for note in store.stats().notes)
            assert not await missing(store, kept)
            wrong = await missing(store, lost)
            assert {type(error) for error in wrong.values()} == {BlobCorrupt}
            assert {error.guid for error in wrong.values()} == {guid(number) for number in lost}
            report = await store.verify()
            assert {blob for blob, _ in report.bad} == {guid(number) for number in lost}

    # Writing them again makes the store whole.
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert set(await missing(store, lost)) == set(lost)
        await fill(store, lost)
        await store.commit(deletes=[guid(by_slot[0])])
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert not await missing(store, by_slot[1:])
        assert (await store.verify()).ok
        assert store.stats().notes == ()


@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
async def test_a_cut_through_the_log_is_corrupt_and_untouched(store_path, engine, read_only):
    await make(store_path, engine, 0)
    _, log_end = await slots_of(store_path, engine)
    for size in (log_end - 1, log_end - 100_000, 3 * BLOCK, 2 * BLOCK, BLOCK + 1):
        os.truncate(store_path, size)
        with open(store_path, "rb") as file:
            before = file.read()
        with pytest.raises(StoreCorrupt, match=store_path):
            await AsyncFileBlobStore.open(store_path, engine=engine, read_only=read_only)
        with open(store_path, "rb") as file:
            assert file.read() == before
