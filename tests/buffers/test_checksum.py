"""``checksum(guid)``: the same number from every store, without I/O from a file store."""

from __future__ import annotations

import os

import pytest
import xxhash

from uringblob import AsyncFileBlobStore, BlobGuid, BlobNotFound, FileBlobStore, MemoryBlobStore
from uringblob.buffers.checksum import frame_checksum

FRAME = os.urandom(4096)
GUID = BlobGuid.random()


@pytest.fixture(params=["file", "memory"])
def store(request, store_path):
    made = FileBlobStore.open(store_path, page_size=4096)
    with made if request.param == "file" else MemoryBlobStore(page_size=4096) as store:
        yield store
    made.close()


def test_it_is_the_xxh3_of_the_visible_frame(store):
    store.write_blob(GUID.uuid, FRAME)
    assert store.checksum(GUID) == store.checksum(bytes(GUID)) == xxhash.xxh3_64_intdigest(FRAME)
    store.commit([(GUID, bytes(4096))])
    assert store.checksum(GUID) == frame_checksum(bytes(4096))
    store.delete_blob(GUID)
    with pytest.raises(BlobNotFound) as caught:
        store.checksum(GUID)
    assert caught.value.guid == GUID


def test_wrong_guids_are_refused(store):
    with pytest.raises(ValueError):
        store.checksum(b"short")


async def test_a_file_store_answers_without_io_also_after_reopening(store_path):
    async with AsyncFileBlobStore.open(store_path, page_size=4096) as store:
        await store.commit([(GUID, FRAME)])
    async with AsyncFileBlobStore.open(store_path) as store:
        before = store.stats()
        assert await store.checksum(GUID) == frame_checksum(FRAME)
        assert store.stats().reads == before.reads
