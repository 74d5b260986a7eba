"""A synchronous read is made by its caller's thread; slot and descriptor stay as they are meanwhile."""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import sys
import threading

import pytest

from behaviour.work import frame, guid
from uringblob import AlignedBlobBuf, BlobCorrupt, BlobNotFound, BlobStoreIOError, FileBlobStore, StoreClosed
from uringblob.buffers.leases import frame_of
from uringblob.store import caller_reads as visitors
from uringblob.store.format import CHECKSUM_BITS
from uringblob.store.index.slots import SlotState, SlotTable

PAGE = 4096
PATIENCE_S = 60


class Struck(BaseException):
    """What the tests' signal handlers raise."""


class Gate:
    """Stops a store's reads in their callers' threads until told; may change their answers."""

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


def test_a_slot_is_not_used_again_before_its_visitor_has_left(store):
    slots = store._core._core.index.slots
    with Gate(store) as gate:
        outcome = in_thread(read, store, 1)
        slot = gate.inside.get(timeout=PATIENCE_S) // PAGE
        store.commit([(guid(1), frame(1, PAGE, 1))])
        for version in range(2, 8):  # any of these would take the slot
            store.commit([(guid(2), frame(2, PAGE, version))])
        assert slots.state(slot) == SlotState.RETIRED
        assert store._core._core.visitors.inside == 1
        assert store.stats().in_flight >= 1  # and perhaps the log's next segment
        gate.go.set()
        assert outcome.get(timeout=PATIENCE_S) == frame(1, PAGE)
    store.list_blobs()  # a trip through the store's thread, behind what the visitor left there
    assert slots.state(slot) == SlotState.FREE
    assert read(store, 1) == frame(1, PAGE, 1)


def test_a_blob_that_moves_while_its_reader_enters_is_read_where_it_is_now(store, monkeypatch):
    enter = visitors.CallerReads.enter

    def move_first(self, visit):
        monkeypatch.undo()
        for version in range(1, 8):
            store.commit([(guid(1), frame(1, PAGE, version))])
        return enter(self, visit)

    monkeypatch.setattr(visitors.CallerReads, "enter", move_first)
    assert read(store, 1) == frame(1, PAGE, 7)
    assert store.stats().reads_here == 0


def test_close_waits_for_a_visitor_and_admits_no_other(store_path, engine):
    store = FileBlobStore.open(store_path, engine=engine, page_size=PAGE)
    store.commit([(guid(1), frame(1, PAGE))])
    with Gate(store) as gate:
        outcome = in_thread(read, store, 1)
        gate.inside.get(timeout=PATIENCE_S)
        closed = in_thread(store.close)
        core = store._core._core
        while not core.visitors._closing:
            pass
        with pytest.raises(StoreClosed):
            read(store, 1)
        assert closed.empty()
        assert core.file.fd >= 0
        gate.go.set()
        assert outcome.get(timeout=PATIENCE_S) == frame(1, PAGE)
        assert closed.get(timeout=PATIENCE_S) is None
    assert core.file.fd < 0
    assert not core.index.slots.visits


def test_a_visitor_between_the_check_and_the_end_of_the_store_is_turned_away(store_path, engine, monkeypatch):
    store = FileBlobStore.open(store_path, engine=engine, page_size=PAGE)
    store.commit([(guid(1), frame(1, PAGE))])
    enter = visitors.CallerReads.enter

    def close_first(self, visit):
        store.close()
        return enter(self, visit)

    monkeypatch.setattr(visitors.CallerReads, "enter", close_first)
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


def test_a_kept_error_keeps_no_buffer(store):
    buf = store.alloc_blob_buf_zeroed()
    with Gate(store) as gate:
        gate.go.set()
        gate.answers = [-errno.EIO]
        with pytest.raises(BlobStoreIOError) as caught:
            store.read_blob(guid(1), buf)
    buf.release()
    assert caught.value.errno == errno.EIO


@pytest.mark.untraced("it has a tracer of its own")
def test_a_handler_that_raises_at_any_step_lets_go_of_the_slot(store):
    """Each line of the visit in turn: what is raised there reaches the caller, and nobody stays inside."""
    slots = store._core._core.index.slots
    buf = store.alloc_blob_buf_zeroed()
    file = visitors.__file__
    step = raised = 0
    while True:
        step += 1
        left = step

        def trace(scope, event, _argument):
            nonlocal left
            if scope.f_code.co_filename != file or scope.f_code.co_name == "__init__":
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    raise Struck
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            store.read_blob(guid(1), buf)
        except Struck:
            raised += 1
        finally:
            sys.settrace(before)
        assert not slots.visits, f"step {step}: a visitor stayed"
        if left > 0:
            break
    assert raised > 20
    assert raised == step - 1
    buf.release()


def test_a_handler_that_strikes_the_checksum_is_raised_when_the_slot_is_let_go_of(store, monkeypatch):
    """Said without a tracer, which the test of every step needs for itself."""
    strikes = [Struck("in the checksum")]
    real = visitors.frame_checksum

    def struck(view):
        if strikes:
            raise strikes.pop()
        return real(view)

    monkeypatch.setattr(visitors, "frame_checksum", struck)
    with pytest.raises(Struck, match="in the checksum"):
        read(store, 1)
    assert store._core._core.index.slots.visits == {}
    assert read(store, 1) == frame(1, PAGE)


def test_a_handler_that_strikes_the_except_clause_is_raised_too(store, monkeypatch):
    """Between an exception and the line that keeps it another handler raises."""
    strikes = [Struck("in the except clause")]

    class StruckTwice(visitors.CallerRead):
        kept = None

        @property
        def _struck(self):
            return self.kept

        @_struck.setter
        def _struck(self, error):
            if error is not None and strikes:
                raise strikes.pop()
            self.kept = error

    def struck(view):
        raise Struck("in the checksum")

    monkeypatch.setattr(visitors, "frame_checksum", struck)
    core = store._core._core
    with store.alloc_blob_buf_zeroed() as buf:
        into = frame_of(buf, PAGE, writable=True, pool=core.file_io.engine.pool)
        visit = StruckTwice(core.visitors, core.index, core.file_io.engine, guid(1), into)
        with pytest.raises(Struck, match="in the except clause"):
            visit.see_through(verify=True)
        del visit, into
    assert core.index.slots.visits == {}


class AtSlot:
    """As much of a visit as a table of visitors asks for."""

    def __init__(self, slot: int) -> None:
        self.slot = slot


async def test_who_never_entered_may_leave_a_closing_store_and_who_did_is_waited_for():
    slots = SlotTable(2, 8)
    inside, outside = AtSlot(5), AtSlot(6)
    them = visitors.CallerReads(slots, asyncio.get_running_loop())
    assert them.enter(inside)
    closing = asyncio.ensure_future(them.close())
    await asyncio.sleep(0)
    assert not them.enter(outside)
    for visit in (outside, outside):
        them.leave(visit)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not closing.done()
    them.leave(inside)
    await closing
    assert slots.visits == {}


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
    """Whoever reads gets some version, whole; nobody stays, and every slot comes back."""
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
    assert not slots.visits
    assert store.stats().reads_here == 8 * 200
    store.commit(deletes=[guid(0)])
    assert slots.count(SlotState.WRITING) == slots.count(SlotState.PENDING) == 0
