"""Whatever fails between the loop and a worker, every request ends, and threads keep no dropped pool alive."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import errno
import fcntl
import gc
import os
import sys
import threading
import weakref

import pytest

from uringblob import tuning
from uringblob.buffers.leases import BufferPool, frame_of
from uringblob.engines.own_descriptor import CLOSED, OwnDescriptor
from uringblob.engines.posix_calls import pick_calls
from uringblob.engines.pread import results, worker_pool
from uringblob.engines.pread.engine import PreadEngine

BLOCK = 4096
#: More than there are allocations on any of these ways.
INDEXES = 60


#: Some allocations that fail are the interpreter's own: CPython 3.12.1 and 3.13.0 end with a segmentation fault there.
interpreter_that_bears_it = pytest.mark.one_interpreter


@pytest.fixture
def fd(store_path):
    descriptor = os.open(store_path, os.O_RDWR | os.O_CREAT, 0o600)
    yield descriptor
    with contextlib.suppress(OSError):
        os.close(descriptor)


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def open_engine(loop, fd):
    pool = BufferPool(BLOCK, None, asked=0)
    return PreadEngine(loop, fd, pool=pool, direct_io=False, memory_align=1, reason="")


def frames(*chunks, writable=False):
    return [frame_of(chunk, len(chunk), writable=writable, pool=None) for chunk in chunks]


REQUESTS = {
    "read": lambda engine: engine.read(0, frames(bytearray(BLOCK), writable=True)),
    "write": lambda engine: engine.write(0, frames(b"w" * BLOCK)),
    "write and sync": lambda engine: engine.write_then_sync(0, frames(b"s" * BLOCK)),
    "sync": lambda engine: engine.sync(),
    "grow": lambda engine: engine.grow(4 * BLOCK),
}


# ---- no memory ----------------------------------------------------------------------------------


@pytest.fixture
def no_memory(monkeypatch):
    """Fails the n-th allocation of the process, and none other."""
    capi = pytest.importorskip("_testcapi", reason="this Python comes without its test modules")

    # A finalizer that could not allocate is not a request.
    monkeypatch.setattr(sys, "unraisablehook", lambda _unraisable: None)

    @contextlib.contextmanager
    def failing(index):
        gc.disable()  # the collector's allocations are not part of a request
        capi.set_nomemory(index, index + 1)
        try:
            yield
        finally:
            capi.remove_mem_hooks()
            gc.enable()

    return failing


class NoThreads:
    """No thread starts: the test does the workers' work itself."""

    def __init__(self, monkeypatch):
        def refuse(_function, _args):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(_thread, "start_new_thread", refuse)
        monkeypatch.setattr(PreadEngine, "_work_here", lambda _engine: None)


@interpreter_that_bears_it
@pytest.mark.parametrize("name", REQUESTS)
def test_every_request_ends_whichever_allocation_of_a_worker_fails(name, fd, loop, monkeypatch, no_memory):
    """From the queue to the results, and the wake-up of the loop."""
    NoThreads(monkeypatch)
    monkeypatch.setattr(tuning, "RESULTS_PAUSE_S", 0)
    for index in range(INDEXES):
        engine = open_engine(loop, fd)
        completion = REQUESTS[name](engine)
        engine._queue.put(None)
        take = engine._queue.get
        with no_memory(index):
            worker_pool._work(take)
        loop.run_until_complete(asyncio.wait_for(completion, 60))
        assert engine.in_flight == 0
        loop.run_until_complete(engine.close())


@interpreter_that_bears_it
@pytest.mark.parametrize("name", REQUESTS)
def test_what_cannot_be_asked_for_is_refused_and_not_waited_for(name, fd, loop, monkeypatch, no_memory):
    """From the caller to the queue: an error, and nothing is queued; or a promise, and it is kept."""
    NoThreads(monkeypatch)
    refused = 0
    for index in range(INDEXES):
        engine = open_engine(loop, fd)
        completion = None
        ask = REQUESTS[name]
        try:
            with no_memory(index):
                completion = ask(engine)
        except results.NO_MEMORY:
            refused += 1
            assert engine._queue.empty()
            assert engine.in_flight == 0
        PreadEngine.__mro__[1]._work_here(engine)
        if completion is not None:
            loop.run_until_complete(asyncio.wait_for(completion, 60))
        loop.run_until_complete(engine.close())
    assert refused


@interpreter_that_bears_it
def test_of_a_run_every_part_ends_whichever_allocation_fails(fd, loop, monkeypatch, no_memory):
    NoThreads(monkeypatch)
    for index in range(INDEXES):
        engine = open_engine(loop, fd)
        written = [engine.write(n * BLOCK, frames(bytes([n]) * BLOCK)) for n in range(5)]
        engine._queue.put(None)
        take = engine._queue.get
        with no_memory(index):
            worker_pool._work(take)
        answers = loop.run_until_complete(asyncio.wait_for(asyncio.gather(*written), 60))
        assert set(answers) <= {BLOCK, -errno.ENOMEM}
        loop.run_until_complete(engine.close())


def test_a_sync_that_began_and_has_no_memory_to_say_how_it_ended_has_failed(fd, loop):
    """Asked for again, it would be believed: the one report of a lost write is gone."""
    engine = open_engine(loop, fd)

    def no_memory(_fd):
        raise MemoryError

    engine._calls = engine._calls._replace(sync=no_memory)
    put, synced = loop.run_until_complete(engine.write_then_sync(0, frames(b"x" * BLOCK)))
    assert synced == -errno.ENOMEM != -errno.ECANCELED
    assert put in (BLOCK, -errno.ENOMEM)
    loop.run_until_complete(engine.close())


def test_a_wake_up_that_had_no_memory_is_made_again(fd, loop, monkeypatch):
    """Nothing else would wake the loop."""
    engine = open_engine(loop, fd)
    refusals = [MemoryError, MemoryError]
    real = loop.call_soon_threadsafe

    def call_soon_threadsafe(*args):
        if refusals:
            raise refusals.pop()
        return real(*args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", call_soon_threadsafe)
    assert loop.run_until_complete(asyncio.wait_for(engine.write(0, frames(b"x")), 60)) == 1
    assert not refusals
    loop.run_until_complete(engine.close())


def test_a_delivery_that_had_no_memory_is_made_again(fd, loop, monkeypatch):
    engine = open_engine(loop, fd)
    refusals = [MemoryError, MemoryError]

    class Short(set):
        def discard(self, item):
            if len(refusals) == 2:
                refusals.pop()
                raise MemoryError
            super().discard(item)

    real = loop.call_soon

    def call_soon(callback, *args, **context):
        if callback == engine._results.deliver and refusals:
            refusals.pop()
            raise MemoryError
        return real(callback, *args, **context)

    loop.set_exception_handler(lambda _loop, _what: None)
    engine._results.pending = Short()
    written = engine.write(0, frames(b"x"))
    monkeypatch.setattr(loop, "call_soon", call_soon)
    assert loop.run_until_complete(asyncio.wait_for(written, 60)) == 1
    loop.run_until_complete(engine.close())
    assert not refusals
    assert engine.in_flight == 0


# ---- the descriptor -----------------------------------------------------------------------------


class Gate:
    """A write that is taken by a thread and made when the test says so."""

    def __init__(self, engine):
        self.taken = threading.Semaphore(0)
        self.opened = threading.Event()
        real = pick_calls().writev

        def write(fd, views, offset):
            self.taken.release()
            self.opened.wait()
            return real(fd, views, offset)

        engine._calls = engine._calls._replace(writev=write)


def is_locked(path):
    with open(path, "rb") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@pytest.mark.parametrize("end", ["abandoned", "forgotten", "close is dropped"])
def test_a_write_never_goes_to_a_file_that_is_opened_later(end, fd, loop, store_path, tmp_path):
    """Its descriptor is the engine's own until the last request has ended, and so is the lock."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    engine = open_engine(loop, fd)
    gate = Gate(engine)
    engine.write(0, frames(b"x" * BLOCK))
    gate.taken.acquire()
    threads = list(engine._threads)
    let_go(engine, end)
    gone = weakref.ref(engine)
    del engine
    loop.close()
    gc.collect()
    assert gone() is None or end != "forgotten"
    os.close(fd)
    innocent = [os.open(tmp_path / f"innocent{n}", os.O_RDWR | os.O_CREAT) for n in range(8)]
    assert is_locked(store_path)
    gate.opened.set()
    for thread in threads:
        thread.join()
    assert [os.fstat(each).st_size for each in innocent] == [0] * 8
    assert os.stat(store_path).st_size == BLOCK
    assert not is_locked(store_path)
    for each in innocent:
        os.close(each)


def let_go(engine, end):
    if end == "abandoned":
        engine.abandon()
    elif end == "close is dropped":
        closing = engine.close()
        closing.send(None)
        closing.close()


def test_abandoning_empties_the_queue(fd, loop):
    engine = open_engine(loop, fd)
    gate = Gate(engine)
    for number in range(0, 100, 2):
        engine.write(number * BLOCK, frames(b"x" * BLOCK))
    for _ in engine._threads:
        gate.taken.acquire()
    threads = list(engine._threads)
    engine.abandon()
    gate.opened.set()
    for thread in threads:
        thread.join()
    assert not gate.taken.acquire(blocking=False), "a thread took what was in the queue"


def test_a_forked_child_closes_its_copy_at_once(fd, loop, store_path):
    fcntl.flock(fd, fcntl.LOCK_EX)
    engine = open_engine(loop, fd)
    gate = Gate(engine)
    engine.write(0, frames(b"x" * BLOCK))
    gate.taken.acquire()
    child = os.fork()
    if child == 0:
        os._exit(0 if engine._fd == -1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_locked(store_path)
    gate.opened.set()
    loop.run_until_complete(engine.close())


def test_an_engine_that_let_go_of_its_file_answers_with_a_number(fd, loop):
    engine = open_engine(loop, fd)
    engine.abandon()
    assert engine._descriptor is CLOSED
    assert engine.file_size() == -errno.EBADF
    assert engine.read_now(0, frames(bytearray(1), writable=True)[0]) == -errno.EBADF


def test_a_descriptor_is_closed_with_its_last_user(fd):
    own = OwnDescriptor(fd)
    number, user = own.fd, own
    del own
    assert os.fstat(number)
    del user
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


# ---- a loop that is closed ----------------------------------------------------------------------


@pytest.mark.parametrize("delivered", [False, True], ids=["with an undelivered answer", "idle"])
def test_an_engine_that_is_dropped_with_its_loop_is_collected(fd, delivered):
    """Threads that wait for work keep no engine alive."""
    gone, threads = forget_with_its_loop(fd, delivered=delivered)
    while gone() is not None:
        gc.collect()  # until the thread has let go of its last item
    for thread in threads:
        thread.join()


def forget_with_its_loop(fd, *, delivered):
    loop = asyncio.new_event_loop()
    engine = open_engine(loop, fd)
    tasks = set()

    async def hold(_engine, completion):
        await completion

    async def use():
        assert await engine.write(0, frames(b"x")) == 1
        if not delivered:
            tasks.add(asyncio.ensure_future(hold(engine, engine.write(0, frames(b"y")))))
            await asyncio.sleep(0)

    loop.set_exception_handler(lambda _loop, _what: None)  # the task was pending
    loop.run_until_complete(use())
    loop.close()
    return weakref.ref(engine), list(engine._threads)
