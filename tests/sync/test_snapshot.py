"""Snapshots for threads: reads in their callers' own threads, beside writers, and the ends."""

from __future__ import annotations

import contextlib
import gc
import struct
import threading
import weakref

import pytest

from behaviour import misuse
from uringblob import BlobGuid, BlobStore, FileBlobStore, MemoryBlobStore, StoreClosed, StoreReadOnly

PAGE = 4096
NAMES = [BlobGuid(number.to_bytes(16, "big")) for number in range(24)]


@pytest.fixture
def store(store_path, engine):
    with FileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        yield store


def frames(stamp):
    content = struct.pack("<Q", stamp) * (PAGE // 8)
    return [(name, content) for name in NAMES]


def stamp_of(room):
    assert bytes(room) == bytes(room[:8]) * (PAGE // 8)
    return struct.unpack("<Q", room[:8])[0]


def stamps(shown):
    room, found = bytearray(PAGE), set()
    for name in NAMES:
        shown.read_blob(name, room)
        found.add(stamp_of(room))
    return found


def test_reads_are_made_in_the_callers_thread(store, engine):
    store.commit(frames(1))
    with store.snapshot() as snap, snap.alloc_blob_buf_uninit() as room:
        store.commit(frames(2))
        before = store.stats().reads_here
        snap.read_blob(NAMES[3], room)
        assert stamp_of(room.view) == 1
        assert store.stats().reads_here == before + 1


def test_every_read_of_it(store):
    store.commit(frames(1))
    checksum = store.checksum(NAMES[0])
    with store.snapshot() as snap:
        store.commit([(BlobGuid(b"x" * 16), bytes(PAGE))], NAMES[:4])
        assert (len(snap), len(store), snap.seq) == (24, 21, store.stats().log_groups)
        assert NAMES[0] in snap
        assert BlobGuid(b"x" * 16) not in snap
        assert snap.checksum(NAMES[0]) == checksum
        assert sorted(snap.list_blobs()) == list(snap.iter_blobs()) == NAMES
        assert snap.has_blobs(NAMES[:2]) == [True, True]
        rooms = [(name, bytearray(PAGE)) for name in NAMES]
        assert snap.read_blobs(rooms) == [None] * len(NAMES)
        assert {stamp_of(room) for _, room in rooms} == {1}
        part = bytearray(PAGE)
        snap.read_blob_range(NAMES[0], 0, part)
        assert stamp_of(part) == 1
        assert snap.verify().ok
        assert not snap.needs_flush()
        with pytest.raises(StoreReadOnly):
            snap.write_blob(NAMES[0], bytes(PAGE))
        assert (snap.stats().blobs, snap.stats().read_only, snap.page_size) == (24, True, PAGE)


def test_threads_that_read_one_snapshot_never_see_two_commits(store):
    """Beside a writer, whose slots come round again and again, and other snapshots that come and go."""
    store.commit(frames(1))
    wrong, over = [], threading.Event()

    def read():
        try:
            for _ in range(20):
                with store.snapshot() as snap:
                    first = stamps(snap)
                    again = stamps(snap)
                    if len(first) != 1 or again != first:
                        wrong.append((first, again))
        except BaseException as error:
            wrong.append(error)
            raise

    def write():
        stamp = 2
        while not over.is_set():
            store.commit(frames(stamp))
            stamp += 1

    writer = threading.Thread(target=write)
    readers = [threading.Thread(target=read) for _ in range(4)]
    writer.start()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    over.set()
    writer.join()
    assert wrong == []
    assert (store.stats().snapshots, store.stats().slots_held) == (0, 0)


def test_reads_beside_its_close_are_right_or_refused(store):
    store.commit(frames(1))
    outcomes = []

    def read(snap):
        room = bytearray(PAGE)
        try:
            while True:
                snap.read_blob(NAMES[5], room)
                if stamp_of(room) != stamp:
                    outcomes.append(f"it shows {stamp_of(room)}, and was taken at {stamp}")
        except StoreClosed:
            outcomes.append("closed")
        except BaseException as error:
            outcomes.append(repr(error))
            raise

    for stamp in range(1, 15):
        snap = store.snapshot()
        readers = [threading.Thread(target=read, args=(snap,)) for _ in range(3)]
        for reader in readers:
            reader.start()
        store.commit(frames(stamp + 1))
        snap.close()
        for later in range(3):
            store.commit(frames(1000 + later))
        for reader in readers:
            reader.join()
        store.commit(frames(stamp + 1))
    assert outcomes == ["closed"] * 42


def test_it_keeps_its_store_open(store_path, engine):
    snap = FileBlobStore.open(store_path, page_size=PAGE, engine=engine).snapshot()
    gc.collect()
    assert snap.list_blobs() == []
    snap.close()
    snap._store.close()


def test_one_of_a_closed_store(store_path, engine):
    with FileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        store.commit(frames(1))
        snap = store.snapshot()
    assert snap.closed
    for call in (
        snap.list_blobs,
        snap.flush,
        lambda: len(snap),
        lambda: snap.read_blob(NAMES[0], bytearray(PAGE)),
    ):
        with pytest.raises(StoreClosed):
            call()
    snap.close()
    assert snap.stats().snapshots == 1
    assert "closed" in repr(snap)


READING = ("read_blob", "has_blob", "checksum", "range", "iter_blobs")


@pytest.mark.parametrize("kind", ["file", "memory", "default"])
def test_wrong_arguments_are_refused_as_by_a_store(disk_dir, engine, kind):
    """And before any I/O."""
    with contextlib.ExitStack() as stack:
        if kind == "file":
            path = disk_dir / "misused"
            store = stack.enter_context(FileBlobStore.open(path, page_size=misuse.SIZE, engine=engine))
        else:
            store = stack.enter_context(MemoryBlobStore(misuse.SIZE))
        store.write_blobs([(misuse.HERE, misuse.good()), (misuse.THERE, misuse.good())])
        snap = stack.enter_context(BlobStore.snapshot(store) if kind == "default" else store.snapshot())
        reads, refused = store.stats().reads, 0
        for what, call, error in misuse.MISUSES:
            if what.startswith(READING):
                with pytest.raises(error):
                    call(snap)
                refused += 1
        assert refused > 100
        assert store.stats().reads == reads


def test_a_second_close_is_silent(store):
    snap = store.snapshot()
    snap.close()
    snap.close()
    with pytest.raises(StoreClosed, match="take another one"):
        snap.list_blobs()


def test_collected_while_open(store):
    store.commit(frames(1))
    snap = store.snapshot()
    store.commit(frames(2))
    gone = weakref.ref(snap)
    with pytest.warns(ResourceWarning, match="unclosed snapshot"):
        del snap
        gc.collect()
    assert gone() is None
    store.commit()  # the store's thread has been round its loop, where the snapshot's end was waiting
    assert (store.stats().snapshots, store.stats().slots_held) == (0, 0)
