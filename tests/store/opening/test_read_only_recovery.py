"""What a read-only opener shows of a store that was not closed (rule 14): what a writable one keeps, or less.

The stores here are copies of files that are open: what a disk holds when the power fails and nothing
is in flight.
"""

from __future__ import annotations

import dataclasses
import os
import shutil

import pytest

from behaviour.mounts import MIB, ext4, tmpfs
from behaviour.work import frame, guid
from uringblob import AsyncFileBlobStore
from uringblob.store.io.file_io import FileIO
from uringblob.store.log import group
from uringblob.store.opening import open as opening

PAGE = 4096
FIRST = {guid(0): frame(0, PAGE), guid(1): frame(1, PAGE)}


async def left_at(path, engine, **last) -> dict[bytes, int]:
    """Make a store of two blobs, commit ``last``, and leave at ``path`` what a power cut leaves.

    Returns where each frame lies in the file.
    """
    async with AsyncFileBlobStore.open(f"{path}.live", engine=engine, page_size=PAGE) as store:
        await store.commit(list(FIRST.items()))
        await store.commit(**last)
        shutil.copyfile(f"{path}.live", path)
        find = store._core.index.find
        return {name: (find(name) >> 64) * PAGE for name in await store.list_blobs()}


async def seen(path, engine, **options):
    """Return what an opener finds, and what it says was left out."""
    async with AsyncFileBlobStore.open(path, engine=engine, **options) as store:
        found = {}
        for name in await store.list_blobs():
            room = bytearray(PAGE)
            await store.read_blob(name, room)
            found[name] = bytes(room)
        return found, store.stats().notes


NEW = {guid(1): frame(11, PAGE), guid(2): frame(12, PAGE)}
#: What the last commit is, and what is there when it counts.
LAST = {
    "frames": ({"writes": list(NEW.items())}, {**FIRST, **NEW}),
    "deletions": ({"deletes": [guid(1)]}, {guid(0): FIRST[guid(0)]}),
    "both": ({"writes": list(NEW.items()), "deletes": [guid(0)]}, NEW),
}


@pytest.fixture(params=LAST)
def last(request):
    return LAST[request.param]


@pytest.mark.parametrize("verify", [True, False])
async def test_where_reads_are_direct_nothing_acknowledged_is_missing(
    needs_direct, store_path, engine, last, verify
):
    changes, after = last
    await left_at(store_path, engine, **changes)
    status = os.stat(store_path)
    assert await seen(store_path, engine, read_only=True, verify=verify) == (after, ())
    assert os.stat(store_path).st_mtime_ns == status.st_mtime_ns
    assert await seen(store_path, engine) == (after, ())


async def test_through_the_page_cache_what_nothing_proves_is_left_out(
    needs_direct, disk_dir, store_path, engine, last
):
    """Whatever it holds: a block of deletions can be lost, too.  A writable opener writes it again, and proves it."""
    changes, after = last
    await left_at(store_path, engine, **changes)
    found, (note,) = await seen(store_path, engine, read_only=True, direct=False)
    assert found == FIRST
    assert "read through the page cache" in note
    assert "without read_only" in note
    assert await seen(store_path, engine, direct=False) == (after, ())
    assert await seen(store_path, engine, read_only=True, direct=False) == (after, ())


async def test_a_group_whose_frames_were_flushed_is_not_read_again(
    needs_direct, store_path, engine, monkeypatch
):
    """Flag 1 speaks of its frames and not of its block: through the page cache it is left out all the same."""
    monkeypatch.setattr(group, "LARGE_GROUP_BYTES", PAGE)
    await left_at(store_path, engine, writes=list(NEW.items()))
    verified = []
    read = FileIO.read

    async def reading(self, offset, size, what):
        verified.append(what)
        return await read(self, offset, size, what)

    monkeypatch.setattr(FileIO, "read", reading)
    assert await seen(store_path, engine, read_only=True) == ({**FIRST, **NEW}, ())
    assert "verifying the last group" not in verified
    assert (await seen(store_path, engine, read_only=True, direct=False))[0] == FIRST


@pytest.mark.parametrize("damage", ["torn", "behind the end of the file"])
async def test_a_group_with_a_bad_frame_never_happened_for_readers_and_writers(
    needs_direct, store_path, engine, damage
):
    places = await left_at(store_path, engine, writes=list(NEW.items()))
    bad = max(NEW, key=places.__getitem__)  # where the memory of the frames decides which is the last
    with open(store_path, "r+b") as file:
        if damage == "torn":
            file.seek(places[bad] + 512)
            file.write(bytes(512))
        else:
            assert max(places.values()) == places[bad]
            file.truncate(places[bad] + 512)
    of_reader = await seen(store_path, engine, read_only=True)
    assert of_reader == (
        FIRST,
        (f"group 3, the last one, is left out: the frame of blob {bad} was not wholly written",),
    )
    assert await seen(store_path, engine) == of_reader


async def test_what_a_reader_has_shown_no_writer_drops(needs_direct, store_path, engine):
    """Reader, power cut, reader, writer through the page cache, power cut, writer: one state."""
    await left_at(store_path, engine, writes=list(NEW.items()))
    shown, _ = await seen(store_path, engine, read_only=True)
    shutil.copyfile(store_path, f"{store_path}.again")
    assert await seen(f"{store_path}.again", engine, read_only=True) == (shown, ())
    async with AsyncFileBlobStore.open(f"{store_path}.again", engine=engine, direct=False):
        shutil.copyfile(f"{store_path}.again", store_path)
    assert await seen(store_path, engine) == (shown, ())


async def test_a_file_system_that_was_mounted_read_only(needs_root, needs_direct, disk_dir, engine):
    with ext4(disk_dir / "place", 16 * MIB) as directory:
        path = directory / "store"
        await left_at(path, engine, writes=list(NEW.items()))
        os.system(f"mount -o remount,ro {directory}")
        try:
            assert await seen(path, engine, read_only=True) == ({**FIRST, **NEW}, ())
            # It may have become read-only because a write failed, with the lost pages still in the cache.
            assert (await seen(path, engine, read_only=True, direct=False))[0] == FIRST
        finally:
            os.system(f"mount -o remount,rw {directory}")


async def test_in_memory_there_is_no_other_medium_than_the_cache(needs_root, disk_dir, engine):
    with tmpfs(disk_dir / "place", 16 * MIB) as directory:
        await left_at(directory / "store", engine, writes=list(NEW.items()))
        assert await seen(directory / "store", engine, read_only=True, direct=False) == ({**FIRST, **NEW}, ())


async def test_a_last_group_without_records_is_not_missed(needs_direct, store_path, engine):
    """It is written on a full disk, to prove the one before it; that nothing proves it takes nothing away."""
    async with AsyncFileBlobStore.open(f"{store_path}.live", engine=engine, page_size=PAGE) as store:
        await store.commit(list(FIRST.items()))
        await store._core.queue.commit_empty_group()
        shutil.copyfile(f"{store_path}.live", store_path)
    assert await seen(store_path, engine, read_only=True, direct=False) == (FIRST, ())


async def test_a_superblock_that_only_the_page_cache_holds_is_not_trusted(
    needs_direct, store_path, engine, monkeypatch
):
    """The page size must be known before there is an engine; all else is read again past the cache."""
    await left_at(store_path, engine, writes=list(NEW.items()))
    real = opening.read_superblocks

    def cached(file):
        newest = max(filter(None, real(file)), key=lambda superblock: superblock.revision)
        return [dataclasses.replace(newest, revision=newest.revision + 1, floor=newest.floor + 99)] * 2

    monkeypatch.setattr(opening, "read_superblocks", cached)
    assert await seen(store_path, engine, read_only=True) == ({**FIRST, **NEW}, ())
    assert await seen(store_path, engine) == ({**FIRST, **NEW}, ())
