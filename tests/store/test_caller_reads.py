"""A synchronous read is made by its caller's thread; slot and descriptor stay as they are meanwhile."""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import threading

import pytest

from behaviour.work import frame, guid
from striking import Handler
from uringblob import (
    AlignedBlobBuf,
    BlobCorrupt,
    BlobNotFound,
    BlobStoreIOError,
    FileBlobStore,
    StoreClosed,
    tuning,
)
from uringblob.store import caller_reads, frame_reads
from uringblob.store.format import CHECKSUM_BITS
from uringblob.store.index.slot_states import SlotState
from uringblob.store.index.slots import SlotTable

PAGE = 4096
PATIENCE_S = 60


class Struck(BaseException):
    """What the tests' signal handlers raise."""


class Gate:
    """Stops a store's reads in their callers' threads until the test says so; may change their answers."""

    def __init__(self, store) -> None:
        self.engine = store._core._core.file_io.engine
        self.real = self.engine.read_now
        self.inside = queue.SimpleQueue()
        self.go = threading.Event()
        self.answers: list[int] = []

    def __enter__(self):
        self.engine.read_now = self.read_now
        return self

    def __exit__(self, *_):
        self.go.set()
        self.engine.read_now = self.real

    def read_now(self, offset, frame):
        self.inside.put(offset)
        assert self.go.wait(PATIENCE_S)
        got = self.real(offset, frame)
        return self.answers.pop(0) if self.answers else got


@pytest.fixture
def store(store_path, engine):
    with FileBlobStore.open(store_path, engine=engine, page_size=PAGE) as store:
        store.commit([(guid(n), frame(n, PAGE)) for n in range(4)])
        yield store


def read(store, number):
    # Aligned memory: other memory goes through a bounce frame, in the store's thread.
    with store.alloc_blob_buf_zeroed() as buf:
        store.read_blob(guid(number), buf)
        return bytes(buf.view)


def in_thread(function, *args):
    """Run in another thread; the result's ``get`` gives what it returned or raised."""
    outcome = queue.SimpleQueue()

    def run():
        try:
            outcome.put(function(*args))
        except BaseException as error:
            outcome.put(error)

    threading.Thread(target=run).start()
    return outcome


def test_the_callers_thread_reads_and_the_ring_is_left_alone(store):
    before = store.stats()
    for number in range(4):
        assert read(store, number) == frame(number, PAGE)
    after = store.stats()
    assert after.reads_here - before.reads_here == 4
    assert after.reads - before.reads == 4
    assert after.bytes_read - before.bytes_read == 4 * PAGE
    assert after.ring_enters == before.ring_enters
    assert after.in_flight == 0


def test_memory_that_the_file_system_refuses_goes_through_a_bounce_frame(store):
    room = memoryview(bytearray(PAGE + 1))[1:]
    before = store.stats().bounces
    store.read_blob(guid(1), room)
    assert room == frame(1, PAGE)
    if store.stats().direct_io:
        assert store.stats().bounces == before + 1
        assert store.stats().reads_here == 0


def test_a_slot_is_not_reused_while_a_caller_reads_it(store):
    slots = store._core._core.index.slots
    with Gate(store) as gate:
        outcome = in_thread(read, store, 1)
        slot = gate.inside.get(timeout=PATIENCE_S) // PAGE
        store.commit([(guid(1), frame(1, PAGE, 1))])
        for version in range(2, 8):  # any of these would take the slot
            store.commit([(guid(2), frame(2, PAGE, version))])
        assert slots.state(slot) == SlotState.RETIRED
        assert store._core._core.caller_reads.active == 1
        assert store.stats().in_flight >= 1  # and perhaps the log's next segment
        gate.go.set()
        assert outcome.get(timeout=PATIENCE_S) == frame(1, PAGE)
    store.list_blobs()  # a trip through the store's thread, behind the reader's notification
    assert slots.state(slot) == SlotState.FREE
    assert read(store, 1) == frame(1, PAGE, 1)


def test_a_blob_that_moves_while_its_reader_registers_is_read_where_it_is_now(store, monkeypatch):
    register = caller_reads.CallerReads.register

    def move_first(self, caller):
        monkeypatch.undo()
        for version in range(1, 8):
            store.commit([(guid(1), frame(1, PAGE, version))])
        return register(self, caller)

    monkeypatch.setattr(caller_reads.CallerReads, "register", move_first)
    assert read(store, 1) == frame(1, PAGE, 7)
    assert store.stats().reads_here == 0


def test_close_waits_for_a_reader_and_registers_no_other(store_path, engine):
    store = FileBlobStore.open(store_path, engine=engine, page_size=PAGE)
    store.commit([(guid(1), frame(1, PAGE))])
    with Gate(store) as gate:
        outcome = in_thread(read, store, 1)
        gate.inside.get(timeout=PATIENCE_S)
        closed = in_thread(store.close)
        core = store._core._core
        while not core.caller_reads._closing:
            pass
        with pytest.raises(StoreClosed):
            read(store, 1)
        assert closed.empty()
        assert core.file.fd >= 0
        gate.go.set()
        assert outcome.get(timeout=PATIENCE_S) == frame(1, PAGE)
        assert closed.get(timeout=PATIENCE_S) is None
    assert core.file.fd < 0
    assert not core.index.slots.caller_reads


def test_a_reader_that_registers_after_the_store_was_closed_is_refused(store_path, engine, monkeypatch):
    store = FileBlobStore.open(store_path, engine=engine, page_size=PAGE)
    store.commit([(guid(1), frame(1, PAGE))])
    register = caller_reads.CallerReads.register

    def close_first(self, caller):
        store.close()
        return register(self, caller)

    monkeypatch.setattr(caller_reads.CallerReads, "register", close_first)
    with pytest.raises(StoreClosed):
        store.read_blob(guid(1), AlignedBlobBuf.zeroed(PAGE))


@pytest.mark.parametrize("number", [errno.EIO, errno.ETIMEDOUT, errno.ENOSPC], ids=errno.errorcode.get)
def test_an_error_of_the_call_is_raised_with_its_place(store, number):
    with Gate(store) as gate:
        gate.go.set()
        gate.answers = [-number]
        with pytest.raises(BlobStoreIOError) as caught:
            read(store, 1)
    assert caught.value.errno == number
    assert caught.value.guid == guid(1)
    assert store._core.path in str(caught.value)
    assert read(store, 1) == frame(1, PAGE)
    assert store.stats().poisoned == ""


@pytest.mark.parametrize("answer", [-errno.EINTR, -errno.EAGAIN, 0, 512, PAGE - 1])
def test_what_is_no_failure_is_finished_by_the_stores_thread(store, answer):
    with Gate(store) as gate:
        gate.go.set()
        gate.answers = [answer]
        assert read(store, 1) == frame(1, PAGE)


def test_a_rotten_frame_is_named(store, store_path):
    slot = store._core._core.index.find(bytes(guid(1))) >> CHECKSUM_BITS
    with open(store_path, "r+b") as file:
        file.seek(slot * PAGE + 100)
        file.write(b"\xff" * 8)
    with pytest.raises(BlobCorrupt, match=str(guid(1))):
        read(store, 1)
    assert read(store, 2) == frame(2, PAGE)


def test_a_blob_that_is_not_there(store):
    with pytest.raises(BlobNotFound):
        read(store, 99)


@pytest.mark.untraced("it has a tracer of its own")
def test_a_handler_that_raises_at_any_line_reaches_the_caller_and_the_slot_is_unregistered(store):
    slots = store._core._core.index.slots
    buf = store.alloc_blob_buf_zeroed()

    def strike():
        raise Struck

    handler = Handler({caller_reads.__file__}, strike)
    line = raised = 0
    struck = True
    while struck:
        try:
            struck = handler.at(line, lambda: store.read_blob(guid(1), buf))
        except Struck:
            raised += 1
        line += 1
        assert not slots.caller_reads, f"line {line}: a reader stayed"
    assert raised > 15
    assert raised == line - 1
    buf.release()


def test_a_handler_that_raises_in_the_checksum_is_raised_when_the_slot_is_unregistered(store, monkeypatch):
    """Shown without a tracer, which the test of every line needs for itself."""
    strikes = [Struck("in the checksum")]
    real = frame_reads.frame_checksum

    def struck(view):
        if strikes:
            raise strikes.pop()
        return real(view)

    monkeypatch.setattr(frame_reads, "frame_checksum", struck)
    with pytest.raises(Struck, match="in the checksum"):
        read(store, 1)
    assert store._core._core.index.slots.caller_reads == {}
    assert read(store, 1) == frame(1, PAGE)


async def test_a_closing_store_waits_for_registered_reads_only():
    slots = SlotTable(2, 8)
    reads = caller_reads.CallerReads(slots, asyncio.get_running_loop())
    registered, late = caller_reads.CallerRead(5), caller_reads.CallerRead(6)
    assert reads.register(registered)
    closing = asyncio.ensure_future(reads.close())
    await asyncio.sleep(0)
    assert not reads.register(late)
    for _ in range(2):
        reads.unregister(late)
        await asyncio.sleep(2 * tuning.READERS_POLL_S)
        assert not closing.done()
    reads.unregister(registered)
    await closing
    assert slots.caller_reads == {}


async def test_a_closing_store_goes_on_waiting_where_there_was_no_memory_for_a_timer(monkeypatch):
    loop, slots = asyncio.get_running_loop(), SlotTable(2, 8)
    reads = caller_reads.CallerReads(slots, loop)
    registered = caller_reads.CallerRead(5)
    reads.register(registered)
    real, failures = loop.call_later, [MemoryError(), MemoryError()]

    def call_later(*args):
        if failures:
            raise failures.pop()
        return real(*args)

    monkeypatch.setattr(loop, "call_later", call_later)
    closing = asyncio.ensure_future(reads.close())
    await asyncio.sleep(0)
    assert not failures
    assert not closing.done()
    reads.unregister(registered)
    await closing


def test_a_counter_loses_no_increment():
    counter = caller_reads.AtomicCounter()
    threads = [threading.Thread(target=lambda: [counter.increment() for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.value == 4000


def test_a_frame_behind_the_files_end_is_named_by_the_stores_thread(store_path, engine):
    with FileBlobStore.open(store_path, engine=engine, page_size=PAGE) as store:
        store.commit([(guid(n), frame(n, PAGE)) for n in range(4)])
        find = store._core._core.index.find
        # Which frame lies last is decided by where its bytes lay in memory.
        *_, near, last = sorted(range(4), key=lambda n: find(guid(n)))
        slot = find(guid(last)) >> CHECKSUM_BITS
    os.truncate(store_path, slot * PAGE)
    with FileBlobStore.open(store_path, engine=engine) as store:
        with pytest.raises(BlobCorrupt, match="the file ended before it"):
            read(store, last)
        assert read(store, near) == frame(near, PAGE)


def test_many_threads_read_while_one_overwrites(store):
    """A reader gets some version, whole; no read stays registered, and every slot is freed."""
    wrong = []

    def reader(number):
        with store.alloc_blob_buf_zeroed() as buf:
            for _ in range(200):
                store.read_blob(guid(number), buf)
                if bytes(buf.view) not in versions[number]:
                    wrong.append(number)

    versions = {n: {frame(n, PAGE, v) for v in range(50)} for n in range(4)}
    threads = [threading.Thread(target=reader, args=(n % 4,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for version in range(50):
        store.commit([(guid(n), frame(n, PAGE, version)) for n in range(4)])
    for thread in threads:
        thread.join(PATIENCE_S)
    store.flush()
    slots = store._core._core.index.slots
    assert not wrong
    assert not slots.caller_reads
    assert store.stats().reads_here == 8 * 200
    store.commit(deletes=[guid(0)])
    assert slots.count(SlotState.WRITING) == slots.count(SlotState.PENDING) == 0
