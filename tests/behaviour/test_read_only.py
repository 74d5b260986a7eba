"""``read_only=True``: not a byte changes, several at once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil

import pytest

from behaviour.mounts import MIB, ext4
from behaviour.work import fill, frame, guid, missing
from uringblob import AsyncFileBlobStore, StoreReadOnly

CHANGES = {
    "write_blob": lambda store: store.write_blob(guid(1), frame(1, 4096)),
    "delete_blob": lambda store: store.delete_blob(guid(1)),
    "delete_blob of none": lambda store: store.delete_blob(guid(99)),
    "write_blobs": lambda store: store.write_blobs([(guid(1), frame(1, 4096))]),
    "write_blobs_with_data_sync": lambda store: store.write_blobs_with_data_sync([(guid(1), frame(1, 4096))]),
    "commit of a write": lambda store: store.commit([(guid(1), frame(1, 4096))]),
    "commit of a deletion": lambda store: store.commit(deletes=[guid(1)]),
}


def look_of(path):
    status = os.stat(path)
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest(), status.st_mtime_ns, status.st_ctime_ns, status.st_size


async def make(path, engine, *, clean=True):
    """Make a store of 30 blobs; if not ``clean``, as a kill before the close would leave it."""
    async with AsyncFileBlobStore.open(path, engine=engine, page_size=4096) as store:
        await fill(store, range(20))
        await store._core.maintenance.start_compaction()
        await fill(store, range(20, 30))
        shutil.copyfile(path, f"{path}.unclean")
    if not clean:
        os.replace(f"{path}.unclean", path)
    else:
        os.unlink(f"{path}.unclean")


@pytest.mark.parametrize("clean", [True, False], ids=["closed", "killed"])
async def test_not_a_byte_changes(store_path, engine, clean):
    await make(store_path, engine, clean=clean)
    before = look_of(store_path)
    async with AsyncFileBlobStore.open(store_path, engine=engine, read_only=True) as store:
        absent = await missing(store, range(30))
        assert len(await store.list_blobs()) == 30 - len(absent)
        assert (await store.verify()).ok
        await store.flush()
        assert not store.needs_flush()
        assert store.stats().read_only
        for change in CHANGES.values():
            with contextlib.suppress(StoreReadOnly):
                await change(store)
        notes = store.stats().notes
    assert look_of(store_path) == before
    assert os.listdir(os.path.dirname(store_path)) == [os.path.basename(store_path)]
    # After an unclean end the last group may be left out as a whole, which is then said.
    assert set(absent) <= set(range(20, 30))
    assert bool(absent) == bool(notes)
    if clean:
        assert not absent


@pytest.mark.parametrize("change", CHANGES)
async def test_changes_are_refused(store_path, engine, change):
    await make(store_path, engine)
    async with AsyncFileBlobStore.open(store_path, engine=engine, read_only=True) as store:
        with pytest.raises(StoreReadOnly, match="read_only"):
            await CHANGES[change](store)
        assert not await missing(store, range(30))


async def test_many_readers_and_a_writer(store_path, engine):
    await make(store_path, engine)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            opening = AsyncFileBlobStore.open(store_path, engine=engine, read_only=True, buffers=2)
            assert not await missing(await stack.enter_async_context(opening), range(30))
        opening = AsyncFileBlobStore.open(store_path, engine=engine, lock_timeout=0)
        await stack.enter_async_context(opening)
        opening = AsyncFileBlobStore.open(store_path, engine=engine, read_only=True, lock_timeout=0)
        assert not await missing(await stack.enter_async_context(opening), range(30))


async def test_a_medium_that_cannot_be_written(needs_root, disk_dir, engine):
    """A file system mounted read-only, as a snapshot or an image is."""
    with ext4(disk_dir / "place", 16 * MIB) as directory:
        path = directory / "store"
        await make(path, engine)
        os.system(f"mount -o remount,ro {directory}")
        try:
            async with AsyncFileBlobStore.open(path, engine=engine, read_only=True) as store:
                assert not await missing(store, range(30))
            with pytest.raises(OSError, match="Read-only file system"):
                await AsyncFileBlobStore.open(path, engine=engine)
            with pytest.raises(OSError, match="Read-only file system"):
                await AsyncFileBlobStore.open(directory / "new", engine=engine)
        finally:
            os.system(f"mount -o remount,rw {directory}")
