"""What an opener checks, and what it does before it hands out the first slot."""

from __future__ import annotations

import os
import pathlib
import resource
import subprocess
import sys

import pytest

from uringblob import BlobGuid, BlobNotFound, BlobStore
from uringblob.store.async_store import AsyncFileBlobStore
from uringblob.store.file import StoreFile
from uringblob.store.format import BLOCK_SIZE, decode_superblock
from uringblob.store.opening import open as opening

PAGE = 4096


def superblocks(path):
    with open(path, "rb") as file:
        header = file.read(2 * BLOCK_SIZE)
    return [decode_superblock(header[at : at + BLOCK_SIZE], at) for at in (0, BLOCK_SIZE)]


@pytest.mark.parametrize(
    "options",
    [
        {"page_size": 5000},
        {"page_size": 2048},
        {"page_size": (1 << 26) + 4096},
        {"buffers": -1},
        {"buffers": 1 << 40},
        {"queue_depth": 0},
        {"queue_depth": 5000},
        {"lock_timeout": -1},
        {"engine": "aio"},
        {"mode": -1},
        {"mode": 1 << 18},
    ],
    ids=str,
)
async def test_an_option_out_of_range_touches_nothing(store_path, options):
    with pytest.raises(ValueError, match=r"must|not"):
        AsyncFileBlobStore.open(store_path, **options)
    assert not os.path.exists(store_path)


async def test_a_trailing_slash_names_a_directory(store_path):
    with pytest.raises(IsADirectoryError):
        AsyncFileBlobStore.open(store_path + "/")


async def test_a_clean_close_makes_the_last_group_the_floor_of_both(store_path):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE) as store:
        await store.commit([(BlobGuid.random(), bytes(PAGE))])
        seq = store._core.log.seq
    assert [superblock.floor for superblock in superblocks(store_path)] == [seq, seq]


async def test_opening_a_clean_store_changes_no_byte(store_path):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE) as store:
        await store.commit([(BlobGuid.random(), bytes(PAGE))])
    before = pathlib.Path(store_path).read_bytes()
    async with AsyncFileBlobStore.open(store_path):
        pass
    assert pathlib.Path(store_path).read_bytes() == before


def abandoned_store(path):
    """Leave a store behind as a killed process does; returns the blob it committed last."""
    guid = BlobGuid.random()
    code = (
        "import asyncio, os, uringblob\n"
        "async def main():\n"
        f"    store = await uringblob.AsyncFileBlobStore.open({path!r}, page_size={PAGE})\n"
        f"    await store.commit([({bytes(guid)!r}, b'1' * {PAGE})])\n"
        f"    await store.commit([({bytes(guid)!r}, b'2' * {PAGE})])\n"
        "    os._exit(0)\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    return guid


async def test_recovery_makes_the_last_group_the_floor_before_it_hands_out_a_slot(store_path):
    """Wiping the tail takes the proof away that the group before it was durable."""
    guid = abandoned_store(store_path)
    assert [superblock.floor for superblock in superblocks(store_path)] == [1, 1]
    async with AsyncFileBlobStore.open(store_path) as store:
        assert [superblock.floor for superblock in superblocks(store_path)] == [3, 3]
        assert store._core.index.slots.awaiting_group == 0
        frame = bytearray(PAGE)
        await store.read_blob(guid, frame)
        assert frame == b"2" * PAGE


async def test_a_sparse_file_of_any_length_opens_in_bounded_memory(store_path):
    guid = abandoned_store(store_path)
    os.truncate(store_path, 1 << 42)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with AsyncFileBlobStore.open(store_path) as store:
        await store.commit([(BlobGuid.random(), bytes(PAGE))])
        assert await store.has_blob(guid)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_a_store_of_ones_own_may_know_memoryviews_only():
    """``has_blob`` and ``verify`` once handed it a buffer without the buffer protocol (3.10, 3.11)."""

    class Plain(BlobStore):
        page_size = PAGE

        def __init__(self):
            self.frames = {}

        def read_blob(self, guid, dst):
            if guid not in self.frames:
                raise BlobNotFound(guid)
            memoryview(dst)[:] = self.frames[guid]

        def write_blob(self, guid, src):
            self.frames[guid] = bytes(src)

        def delete_blob(self, guid):
            self.frames.pop(guid, None)

        def list_blobs(self):
            return [BlobGuid(guid) for guid in self.frames]

        def flush(self):
            """Memory needs none."""

    store = Plain()
    guid = BlobGuid.random()
    store.write_blob(guid, b"x" * PAGE)
    assert store.has_blob(guid)
    assert not store.has_blob(BlobGuid.random())
    assert store.verify().ok


@pytest.mark.parametrize("engine", ["auto", "pread"])
async def test_a_child_forked_during_an_opening_does_not_keep_the_lock(store_path, monkeypatch, engine):
    reader, writer = os.pipe()
    children = []
    real = opening.start_core

    async def start_core(*args, **options):
        child = os.fork()
        if not child:
            os.close(writer)
            os.read(reader, 1)  # until the parent closes its end
            os._exit(0)
        children.append(child)
        return await real(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(opening, "start_core", start_core)
        patched.setattr(StoreFile, "close", StoreFile.abandon)  # unlocks nothing, as a kill
        async with AsyncFileBlobStore.open(store_path, engine=engine):
            pass
    async with AsyncFileBlobStore.open(store_path, lock_timeout=10):
        pass
    os.close(writer)
    os.close(reader)
    os.waitpid(*children, 0)
