"""What memory stores promise beyond the conformance suite."""

from __future__ import annotations

import os
import random
import signal
import threading
import warnings

import pytest

from uringblob import AsyncMemoryBlobStore, BlobGuid, MemoryBlobStore, StoreClosed

PAGE = 4096
A = b"a" * PAGE
B = b"b" * PAGE
GUID = BlobGuid(bytes(range(16)))
DEFAULT = 524288


class Interrupt(BaseException):
    pass


@pytest.fixture
def store():
    with MemoryBlobStore(PAGE) as store:
        yield store


@pytest.mark.parametrize("kind", [MemoryBlobStore, AsyncMemoryBlobStore])
def test_page_sizes(kind):
    assert kind().page_size == DEFAULT
    assert kind(page_size=PAGE).page_size == PAGE
    for wrong in (0, 2048, 4097, (1 << 26) + 4096):
        with pytest.raises(ValueError):
            kind(wrong)
    with pytest.raises(TypeError):
        kind("4096")


def test_stats(store):
    store.commit([(GUID, A), (BlobGuid.random(), A)])
    store.read_blob(GUID, bytearray(PAGE))
    stats = store.stats()
    assert (stats.engine, stats.blobs, stats.slots_live) == ("memory", 2, 2)
    assert (stats.reads, stats.writes) == (1, 2)
    assert (stats.bytes_read, stats.bytes_written, stats.allocated_bytes) == (PAGE, 2 * PAGE, 2 * PAGE)
    assert stats.syncs == stats.in_flight == 0


def test_needs_flush_like_a_file_store(store):
    assert not store.needs_flush()
    store.write_blob(GUID, A)
    assert store.needs_flush()
    store.flush()
    store.delete_blob(BlobGuid.random())
    store.commit()
    assert not store.needs_flush()
    store.delete_blob(GUID)
    assert store.needs_flush()


def test_a_batch_is_applied_at_once(store):
    names = [BlobGuid.random() for _ in range(8)]
    stop = threading.Event()
    torn = []

    def watch():
        while not stop.is_set():
            if len(store.list_blobs()) not in {0, 8}:
                torn.append(store.list_blobs())

    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(200):
        store.write_blobs((name, A) for name in names)
        store.commit(deletes=names)
    stop.set()
    thread.join()
    assert torn == []


@pytest.mark.untraced("its handler raises at any moment")
def test_a_storm_of_raising_handlers(store):
    """Each interrupted commit is applied wholly or not at all, and the lock is released.

    Interrupted before its first change, a store has nothing to flush.
    """
    one, two = BlobGuid.random(), BlobGuid.random()
    armed = False
    hits = 0

    def handle(number, frame):
        nonlocal armed, hits
        if armed:
            armed = False
            hits += 1
            raise Interrupt

    dice = random.Random(4711)
    before = signal.signal(signal.SIGALRM, handle)
    try:
        for n in range(3000):
            frame = bytes([n % 256]) * PAGE
            signal.setitimer(signal.ITIMER_REAL, dice.uniform(1e-6, 4e-5))
            try:
                armed = True
                store.commit([(one, frame)], [two])
                store.commit([(two, frame)], [one])
                armed = False
            except Interrupt:
                assert store.needs_flush() or not store.list_blobs()
            assert len(set(store.list_blobs()) & {one, two}) <= 1
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert hits
    in_thread = threading.Thread(target=store.write_blob, args=(one, A))
    in_thread.start()
    in_thread.join(30)
    assert not in_thread.is_alive()


@pytest.mark.untraced("its handler raises at any moment")
def test_a_storm_on_first_changes():
    """Interrupted at any moment of its first change, a store knows what it has to flush, and takes the next change."""
    armed = False

    def handle(number, frame):
        nonlocal armed
        if armed:
            armed = False
            raise Interrupt

    dice = random.Random(4711)
    hits = 0
    before = signal.signal(signal.SIGALRM, handle)
    try:
        for _ in range(3000):
            store = MemoryBlobStore(PAGE)
            signal.setitimer(signal.ITIMER_REAL, dice.uniform(2e-6, 4e-5))
            try:
                armed = True
                store.write_blob(GUID, A)
                armed = False
            except Interrupt:
                hits += 1
            assert store.needs_flush() or not store.has_blob(GUID)
            store.write_blob(GUID, B)
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert hits


def test_a_change_from_a_handler_in_the_middle_of_a_change(store):
    outcomes = []

    class Meddling(dict):
        def update(self, changes):
            try:
                store.write_blob(GUID, B)
            except RuntimeError as error:
                outcomes.append(error)
            super().update(changes)

    store._frames = Meddling()
    store.write_blob(GUID, A)
    assert len(outcomes) == 1
    assert store.has_blob(GUID)


def test_in_a_forked_child(store):
    store.write_blob(GUID, A)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of a fork beside threads
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            store.list_blobs()
        except RuntimeError:
            store.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.list_blobs() == [GUID]


def test_closing_drops_the_frames():
    store = MemoryBlobStore(PAGE)
    store.write_blob(GUID, A)
    store.close()
    store.close(flush=False)
    assert store.stats().blobs == 0
    with pytest.raises(StoreClosed):
        store.list_blobs()
