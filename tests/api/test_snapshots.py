"""The default snapshot, of any store that has the five methods."""

from __future__ import annotations

import pytest

from broken_stores import PAGE, Sound, SoundAsync
from uringblob import (
    AsyncBlobSnapshot,
    AsyncMemoryBlobStore,
    BlobChanged,
    BlobCorrupt,
    BlobGuid,
    BlobNotFound,
    BlobSnapshot,
    MemoryBlobStore,
    StoreClosed,
)

A, B, C = (BlobGuid(letter * 16) for letter in (b"a", b"b", b"c"))


def frame(number):
    return bytes([number]) * PAGE


@pytest.fixture
def store():
    store = Sound()
    store.write_blobs([(A, frame(1)), (B, frame(2))])
    return store


def test_what_was_replaced_or_deleted_is_named(store):
    room = bytearray(PAGE)
    with store.snapshot() as snap:
        assert isinstance(snap, BlobSnapshot)
        store.write_blob(A, frame(3))
        store.delete_blob(B)
        with pytest.raises(BlobChanged, match="was replaced after") as caught:
            snap.read_blob(A, room)
        assert caught.value.guid == A
        with pytest.raises(BlobChanged, match="was deleted after"):
            snap.read_blob(B, room)
        assert [type(error) for error in snap.read_blobs([(A, room), (B, room), (C, room)])] == [
            BlobChanged,
            BlobChanged,
            BlobNotFound,
        ]
        with pytest.raises(BlobChanged):
            snap.read_blob_range(A, 0, room)


def test_the_same_bytes_again_are_no_change(store):
    room = bytearray(PAGE)
    with store.snapshot() as snap:
        store.write_blob(A, frame(3))
        store.write_blob(A, frame(1))
        snap.read_blob(A, room)
        assert room == frame(1)
        assert snap.checksum(A) == store.checksum(A)


class Rotten(Sound):
    """One of its blobs cannot be read."""

    rotten = True

    def read_blob(self, guid, dst):
        if guid == B and self.rotten:
            raise BlobCorrupt("rotten", guid)
        super().read_blob(guid, dst)


def test_a_corrupt_blob_belongs_to_it_and_a_healed_one_has_changed():
    store, room = Rotten(), bytearray(PAGE)
    store.write_blobs([(A, frame(1)), (B, frame(2))])
    with store.snapshot() as snap:
        assert sorted(snap.list_blobs()) == [A, B]
        for read in (lambda: snap.read_blob(B, room), lambda: snap.checksum(B)):
            with pytest.raises(BlobCorrupt):
                read()
        assert [guid for guid, _ in snap.verify().bad] == [B]
        store.rotten = False
        for read in (lambda: snap.read_blob(B, room), lambda: snap.checksum(B)):
            with pytest.raises(BlobChanged):
                read()


def test_what_is_deleted_while_it_is_taken_does_not_belong_to_it(store):
    class Deletes(Sound):
        def list_blobs(self):
            names = super().list_blobs()
            self.delete_blob(A)
            return names

    deletes = Deletes()
    deletes.frames = dict(store.frames)
    with deletes.snapshot() as snap:
        assert list(snap.iter_blobs()) == [B]
        assert (len(snap), A in snap) == (1, False)


def test_one_of_a_snapshot_shows_the_same(store):
    with MemoryBlobStore(PAGE) as memory:
        memory.write_blob(A, frame(1))
        with memory.snapshot() as outer, outer.snapshot() as inner:
            memory.write_blob(A, frame(2))
            room = bytearray(PAGE)
            inner.read_blob(A, room)
            assert room == frame(1)


def test_it_ends_with_its_store(store):
    snap = store.snapshot()
    store.close()
    with pytest.raises(StoreClosed):
        snap.list_blobs()
    snap.close()


async def test_for_tasks():
    store = SoundAsync()
    await store.write_blob(A, frame(1))
    async with await store.snapshot() as snap:
        assert isinstance(snap, AsyncBlobSnapshot)
        await store.write_blob(A, frame(2))
        with pytest.raises(BlobChanged):
            await snap.read_blob(A, bytearray(PAGE))
        assert (snap.seq, snap.needs_flush(), snap.stats().blobs) == (0, False, 1)
        with snap.alloc_blob_buf_zeroed() as zeroed, snap.alloc_blob_buf_uninit() as other:
            assert len(zeroed) == len(other) == PAGE


@pytest.mark.parametrize("kind", [MemoryBlobStore, AsyncMemoryBlobStore])
def test_a_memory_store_counts_what_its_snapshots_keep(kind):
    store = kind(PAGE)
    sync = getattr(store, "_store", store)
    sync.write_blobs([(A, frame(1)), (B, frame(2))])
    first, second = sync.snapshot(), sync.snapshot()
    sync.commit([(A, frame(3)), (C, frame(4))], [B])
    stats = store.stats()
    assert (stats.snapshots, stats.slots_held, stats.held_bytes) == (2, 2, 2 * PAGE)
    first.close()
    assert store.stats().snapshots == 1
    del second
    assert (store.stats().snapshots, store.stats().slots_held) == (0, 0)
