"""Signal handlers that interrupt a read in its caller's thread, and what they may do there.

Each test stands for a bug: a handler that closed the store deadlocked with the read that it had
interrupted; one that raised between unregistering and notifying left the slot retired for ever, and so did
any ``RuntimeError``; a child that a handler forked returned what it read from a descriptor number that was
another file's by then.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading

import pytest

from behaviour import children
from behaviour.faults import FailingWrites
from behaviour.work import frame, guid
from striking import Handler
from uringblob import BlobNotFound, BlobStoreIOError, FileBlobStore, StoreClosed
from uringblob.store import async_store, caller_reads, core, file_reads, frame_reads
from uringblob.store.index.slot_states import SlotState
from uringblob.sync import file_store as facade
from uringblob.sync import store_handle as pilot

PAGE = 4096
#: Where a handler may strike a read that goes as it should.
OURS = {
    module.__file__ for module in (facade, pilot, async_store, core, file_reads, frame_reads, caller_reads)
}
NOTIFYING = {asyncio.base_events.__file__, asyncio.events.__file__}


class Struck(BaseException):
    """What the tests' signal handlers raise."""


class Refused(RuntimeError):
    """The same, of a kind that the event loop raises, too."""


def open_store(path, engine):
    store = FileBlobStore.open(path, engine=engine, page_size=PAGE)
    store.commit([(guid(n), frame(n, PAGE)) for n in range(4)])
    return store


@pytest.fixture
def store(store_path, engine):
    with open_store(store_path, engine) as store:
        yield store


def slots_of(store):
    return store._core._core.index.slots


def replace_read(store, before):
    """Have ``before()`` called in the middle of each read in its caller's thread."""
    engine = store._core._core.file_io.engine
    real = type(engine).read_now

    def read_now(offset, frame):
        before()
        return real(engine, offset, frame)

    engine.read_now = read_now


# --- handlers that raise -------------------------------------------------------------------------


@pytest.mark.untraced("it has a tracer of its own")
@pytest.mark.parametrize("kind", [Struck, Refused, RecursionError])
def test_a_slot_that_waits_for_a_struck_reader_comes_back(store, kind):
    """At each line, those of the notification too: what was raised is raised, and the slot is freed."""

    def strike():
        raise kind

    handler = Handler({caller_reads.__file__, *NOTIFYING}, strike)
    buf = store.alloc_blob_buf_zeroed()
    version = raised = 0

    def retire():
        """Supersede the frame that is being read, for good."""
        nonlocal version
        with handler.pause():
            version += 1
            store.commit([(guid(1), frame(1, PAGE, version))])
            store.commit([(guid(2), frame(2, PAGE, version))])

    replace_read(store, retire)
    line = 0
    struck = True
    while struck:
        try:
            struck = handler.at(line, lambda: store.read_blob(guid(1), buf))
        except kind:
            raised += 1
        line += 1
        assert not slots_of(store).caller_reads, f"line {line}: a reader stayed"
        store.list_blobs()  # a trip through the store's thread, behind the notification
        assert not slots_of(store)._awaiting_readers, f"line {line}: a slot waits for no reader"
    assert raised == line - 1
    assert raised > 30
    buf.release()


# --- handlers that use the store -----------------------------------------------------------------

USES = {
    "read_blob": lambda s, buf: s.read_blob(guid(2), buf),
    "the same blob": lambda s, buf: s.read_blob(guid(1), buf),
    "read_blobs": lambda s, buf: s.read_blobs([(guid(2), buf)]),
    "write_blob": lambda s, buf: s.write_blob(guid(1), frame(1, PAGE, 5)),
    "commit": lambda s, buf: s.commit([(guid(1), frame(1, PAGE, 6))]),
    "delete_blob": lambda s, buf: s.delete_blob(guid(3)),
    "flush": lambda s, buf: s.flush(),
    "verify": lambda s, buf: s.verify(),
    "stats": lambda s, buf: s.stats(),
}


@pytest.mark.untraced("it has a tracer of its own")
@pytest.mark.parametrize("use", USES)
def test_a_handler_uses_the_store_at_any_line(store, use):
    other = store.alloc_blob_buf_zeroed()
    buf = store.alloc_blob_buf_zeroed()
    handler = Handler(OURS, lambda: USES[use](store, other))
    line = 0
    while handler.at(line, lambda: store.read_blob(guid(1), buf)):
        assert bytes(buf.view) in [frame(1, PAGE, version) for version in (0, 5, 6)]
        line += 1
    assert line > 40
    store.flush()
    assert not slots_of(store).caller_reads
    assert not slots_of(store)._awaiting_readers
    assert store.verify().ok
    other.release()
    buf.release()


@pytest.mark.untraced("it has a tracer of its own")
def test_a_handler_closes_the_store_at_any_line(store_path, engine):
    """It is closed, or it is a ``RuntimeError`` and the store goes on; never a deadlock."""
    outcomes = set()
    line = 0
    struck = True
    while struck:
        store = open_store(store_path, engine)
        buf = store.alloc_blob_buf_zeroed()
        handler = Handler(OURS, store.close)
        try:
            struck = handler.at(line, lambda: store.read_blob(guid(1), buf))  # noqa: B023
            outcome = "read"
            assert bytes(buf.view) == frame(1, PAGE)
        except StoreClosed:
            outcome = "closed"
        except RuntimeError:
            outcome = "refused"
            assert not store.closed
            store.read_blob(guid(1), buf)
        outcomes.add(outcome)
        line += 1
        buf.release()
        store.close()
        assert store._core._core.file.fd < 0
    assert outcomes == {"read", "closed", "refused"}


def test_a_handler_closes_the_store_that_another_thread_closes_already(store_path, engine):
    store = open_store(store_path, engine)
    closer = threading.Thread(target=store.close)
    refused = []

    def close():
        closer.start()
        while not store._core._core.caller_reads._closing:
            os.sched_yield()
        with pytest.raises(RuntimeError, match="read_blob"):
            store.close()
        with pytest.raises(StoreClosed):
            store.flush()
        refused.append(True)

    replace_read(store, close)
    with store.alloc_blob_buf_zeroed() as buf:
        store.read_blob(guid(1), buf)
        assert bytes(buf.view) == frame(1, PAGE)
    closer.join()
    assert refused
    assert store._core._core.file.fd < 0


def test_a_handler_writes_on_a_full_disk(store):
    """The slot that the interrupted reader holds is all there is: no room, and no waiting for it."""
    slots = slots_of(store)
    outcomes = []

    def write():
        store.commit([(guid(1), frame(1, PAGE, 1))])
        with FailingWrites(store._core, errno.ENOSPC, kind="none", growth=True):
            while not outcomes:
                try:
                    store.write_blob(guid(100 + slots.count(SlotState.PENDING)), frame(9, PAGE))
                except BlobStoreIOError as error:
                    outcomes.append(error.errno)
        assert slots._awaiting_readers

    replace_read(store, write)
    with store.alloc_blob_buf_zeroed() as buf:
        store.read_blob(guid(1), buf)
        assert bytes(buf.view) == frame(1, PAGE)
    assert outcomes == [errno.ENOSPC]
    store.list_blobs()
    assert not slots._awaiting_readers


# --- what else a handler may do ------------------------------------------------------------------


@pytest.mark.parametrize("verify", [True, False])
def test_a_handler_forks(store_path, engine, verify):
    """The child's read is refused, whatever the descriptor's number is by then; the parent's is right."""
    answers = children.run("behaviour.child_fork:in_a_reader", store_path, engine, verify)
    assert answers == {"child": "RuntimeError", "parent": True, "bell": 0}


def test_a_timeout_that_a_handler_raises_in_the_system_call_is_no_error_of_the_medium(
    store_path, engine, monkeypatch
):
    """TimeoutError is an OSError: it was taken for an answer of the system, and reported as EIO."""
    alarms, real = [], os.preadv

    def preadv(*args):
        if alarms:
            raise alarms.pop()
        return real(*args)

    monkeypatch.setattr(os, "preadv", preadv)  # before the engine chooses its calls
    with open_store(store_path, engine) as store, store.alloc_blob_buf_uninit() as buffer:
        alarms.append(TimeoutError("the caller's own alarm"))
        with pytest.raises(TimeoutError, match="own alarm"):
            store.read_blob(guid(0), buffer)
        store.read_blob(guid(0), buffer)
        assert bytes(buffer.view) == frame(0, PAGE)


def test_reads_in_handlers_of_reads_are_counted_one_by_one(store):
    depth = 0

    def again():
        nonlocal depth
        depth += 1
        number = depth % 4
        if depth < 20:
            with store.alloc_blob_buf_zeroed() as buf:
                store.read_blob(guid(number), buf)
                assert bytes(buf.view) == frame(number, PAGE)

    before = store.stats()
    replace_read(store, again)
    with store.alloc_blob_buf_zeroed() as buf:
        store.read_blob(guid(0), buf)
    after = store.stats()
    assert after.reads_here - before.reads_here == 20
    assert after.bytes_read - before.bytes_read == 20 * PAGE
    assert after.in_flight == 0


CALLS = {
    "read_blob": lambda s, buf: s.read_blob(guid(1), buf),
    "of none": lambda s, buf: s.read_blob(guid(99), buf),
    "flush": lambda s, buf: s.flush(),
    "write_blob": lambda s, buf: s.write_blob(guid(1), buf),
}


@pytest.mark.untraced("a tracer needs the same stack")
@pytest.mark.parametrize("name", CALLS)
def test_a_stack_that_is_used_up(store, name):
    """From every depth near the limit a call ends: it works, or it is a ``RecursionError``."""
    buf = store.alloc_blob_buf_zeroed()

    def call_at(depth):
        if depth:
            call_at(depth - 1)
        else:
            CALLS[name](store, buf)

    outcomes = set()
    limit = sys.getrecursionlimit()
    for depth in range(limit - 150, limit):
        try:
            call_at(depth)
            outcomes.add("worked")
        except BlobNotFound:
            outcomes.add("worked")
        except RecursionError:
            outcomes.add("refused")
    assert outcomes == {"worked", "refused"}
    assert not slots_of(store).caller_reads
    assert store.stats().in_flight == 0
    buf.release()
