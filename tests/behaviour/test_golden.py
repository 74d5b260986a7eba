"""Store files that earlier releases wrote open, and hold what they held."""

from __future__ import annotations

import hashlib
import json
import lzma
from pathlib import Path

import pytest

from uringblob import AsyncFileBlobStore, FileBlobStore

DATA = Path(__file__).resolve().parent.parent / "data"
GOLDEN = sorted(path.name.removesuffix(".blobs.xz") for path in DATA.glob("golden-*.blobs.xz"))


def test_there_are_some():
    of_release_2 = {"golden-0.2", "golden-0.2-12k"}
    assert {"golden-0.1", *of_release_2} | {
        f"{name}-killed" for name in ("golden-0.1", *of_release_2)
    } == set(GOLDEN)


def listing_of(name):
    return json.loads((DATA / f"{name.removesuffix('-killed')}.json").read_text())


def unpacked(name, directory):
    path = directory / "store"
    path.write_bytes(lzma.decompress((DATA / f"{name}.blobs.xz").read_bytes()))
    return path


@pytest.fixture(params=GOLDEN)
def golden(request, disk_dir):
    """A copy of a golden store, and what it must hold: guid to SHA-256."""
    listing = listing_of(request.param)
    return unpacked(request.param, disk_dir), listing["page_size"], listing["sha256"]


async def contents(store):
    found = {}
    with store.alloc_blob_buf_uninit() as buffer:
        for guid in await store.list_blobs():
            await store.read_blob(guid, buffer)
            found[guid.hex()] = hashlib.sha256(buffer.view).hexdigest()
    return found


async def metadata(store):
    return {guid.hex(): stat.meta.hex() async for guid, stat in store.iter_blobs(meta=True) if stat.meta}


@pytest.mark.parametrize("name", GOLDEN)
async def test_metadata_label_and_version_are_what_they_were(name, engine, disk_dir):
    """Before the first change, after it (which upgrades a store of version 1), and after a compaction."""
    path, listing = unpacked(name, disk_dir), listing_of(name)
    expected, new = listing.get("meta", {}), {}
    old = name.startswith("golden-0.1")
    for turn in range(3):
        async with AsyncFileBlobStore.open(path, engine=engine) as store:
            assert await metadata(store) == {**expected, **new}
            stats = store.stats()
            assert stats.label == listing.get("label", "")
            assert (stats.created_ns == 0) is old
            assert stats.format_version == (1 if old and not turn else 2)
            key, meta = bytes([turn]) * 16, bytes([turn + 1]) * 100
            await store.commit([(key, bytes(store.page_size), meta)])
            new[key.hex()] = meta.hex()
            if turn:
                await store._core.maintenance.start_compaction()
            assert (await store.verify()).ok


@pytest.mark.parametrize("read_only", [True, False], ids=["read-only", "writable"])
async def test_it_opens_and_is_what_it_was(golden, engine, read_only):
    path, page_size, expected = golden
    for _ in range(2):  # a writable opening may change the file: it opens again
        async with AsyncFileBlobStore.open(path, engine=engine, read_only=read_only) as store:
            assert store.page_size == page_size
            assert await contents(store) == expected
            assert (await store.verify()).ok
            assert store.stats().notes == ()


async def test_it_goes_on(golden, engine):
    path, page_size, expected = golden
    expected = dict(expected)
    async with AsyncFileBlobStore.open(path, engine=engine) as store:
        for number in range(50):
            gone = next(iter(expected))
            key, data = bytes([number]) * 16, bytes([number]) * page_size
            await store.commit([(key, data)], deletes=[bytes.fromhex(gone)])
            del expected[gone]
            expected[key.hex()] = hashlib.sha256(data).hexdigest()
        await store._core.maintenance.start_compaction()
    async with AsyncFileBlobStore.open(path, engine=engine) as store:
        assert await contents(store) == expected


def test_the_synchronous_store_reads_it_too(golden):
    path, page_size, expected = golden
    with FileBlobStore.open(path, read_only=True) as store:
        buffer = bytearray(page_size)
        for guid, digest in expected.items():
            store.read_blob(bytes.fromhex(guid), buffer)
            assert hashlib.sha256(buffer).hexdigest() == digest
