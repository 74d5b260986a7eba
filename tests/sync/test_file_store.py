"""The synchronous face over a core whose operations end when the test says so."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import uuid
import warnings
import weakref

import pytest

from fake_core import PAGE, FakeCore, open_fake
from uringblob.engines.to_thread import to_thread
from uringblob.errors import BlobNotFound, BlobStoreIOError, StoreClosed
from uringblob.guid import BlobGuid
from uringblob.sync.file_store import FileBlobStore
from uringblob.sync.store_handle import StoreHandle

GUID = BlobGuid(bytes(range(16)))
A = b"a" * PAGE
B = b"b" * PAGE
PATIENCE = 60  # seconds until a test that hangs fails


class Interrupt(BaseException):
    """What the tests' signal handlers raise."""


@pytest.fixture
def opened():
    store, core = open_fake()
    yield store, core
    core.let_go()
    store.close()


@pytest.fixture
def store(opened):
    return opened[0]


@pytest.fixture
def core(opened):
    return opened[1]


@pytest.fixture
def handler():
    """Install a handler for SIGUSR1 and give its bell, and a place for what it does."""
    bell = queue.SimpleQueue()
    deeds = []

    def handle(number, frame):
        bell.put(None)
        for deed in deeds:
            deed()

    before = signal.signal(signal.SIGUSR1, handle)
    woken = signal.signal(signal.SIGUSR2, lambda _number, _frame: None)
    yield bell, deeds
    signal.signal(signal.SIGUSR1, before)
    signal.signal(signal.SIGUSR2, woken)


def raise_struck():
    raise Interrupt


def strike_main(bell):
    """Send the main thread a signal, and return when its handler has begun.

    CPython sleeps through a signal that comes just before it begins to wait; another one, which does
    nothing else, wakes it then.
    """
    main = threading.main_thread().ident
    signal.pthread_kill(main, signal.SIGUSR1)
    for _ in range(PATIENCE * 10):
        try:
            return bell.get(timeout=0.1)
        except queue.Empty:
            signal.pthread_kill(main, signal.SIGUSR2)
    raise AssertionError("the handler was not called")


def in_thread(function, *args):
    """Run in another thread; its errors fail the test when ``join`` is called."""
    outcome = []

    def run():
        try:
            outcome.append((function(*args), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()

    def join():
        thread.join(PATIENCE)
        assert not thread.is_alive()
        result, error = outcome[0]
        if error is not None:
            raise error
        return result

    return join


def read(store, guid=GUID):
    frame = bytearray(store.page_size)
    store.read_blob(guid, frame)
    return bytes(frame)


class TestCalls:
    def test_every_method_reaches_the_core(self, store):
        other = uuid.uuid4()
        store.write_blob(GUID, A)
        assert read(store) == A
        store.write_blobs((g, B) for g in [GUID, other])
        store.write_blobs_with_data_sync([(other, A)])
        assert sorted(store.list_blobs()) == sorted([GUID, BlobGuid(other)])
        assert store.has_blob(other)
        store.commit(deletes=iter([other]))
        assert not store.has_blob(other)
        part = bytearray(PAGE)
        store.read_blob_range(GUID, 0, part)
        assert part == B
        missing, found = store.read_blobs([(other, part), (GUID, part)])
        assert isinstance(missing, BlobNotFound)
        assert found is None
        assert store.needs_flush()
        store.flush()
        assert not store.needs_flush()
        store.delete_blob(GUID)
        assert store.list_blobs() == []
        assert store.verify().ok
        assert store.stats().page_size == store.page_size == PAGE
        assert bytes(store.alloc_blob_buf_zeroed().view) == bytes(PAGE)
        assert len(store.alloc_blob_buf_uninit()) == PAGE
        assert "FakeCore" in repr(store)

    def test_errors_arrive_as_they_are(self, store):
        with pytest.raises(BlobNotFound):
            read(store)
        with pytest.raises(ValueError):
            store.write_blob(GUID, b"short")
        with pytest.raises(TypeError):
            store.write_blob("name", A)
        with pytest.raises(TypeError):
            store.has_blob(7)

    def test_an_iterable_may_use_the_store(self, store):
        store.write_blob(GUID, A)
        names = [BlobGuid.random() for _ in range(3)]
        store.write_blobs((name, read(store)) for name in names)
        assert read(store, names[2]) == A

    def test_progress_is_called_in_the_callers_thread_and_may_use_the_store(self, store):
        store.write_blobs([(BlobGuid.random(), A) for _ in range(3)])
        calls = []

        def progress(done, total):
            calls.append((done, total, threading.current_thread(), len(store.list_blobs())))

        assert store.verify(progress).ok
        here = threading.current_thread()
        assert calls == [(1, 3, here, 3), (2, 3, here, 3), (3, 3, here, 3)]

    def test_what_progress_raises_ends_the_call(self, store):
        store.write_blobs([(BlobGuid.random(), A) for _ in range(3)])
        with pytest.raises(ZeroDivisionError):
            store.verify(progress=lambda done, total: 1 // 0)
        assert store.verify().blobs_checked == 3

    def test_the_stores_own_thread_may_not_wait_for_itself(self, store, core):
        outcomes = queue.SimpleQueue()

        def ask():
            for call in (store.list_blobs, store.close):
                try:
                    call()
                except RuntimeError as error:
                    outcomes.put(error)

        core.loop.call_soon_threadsafe(ask)
        for _ in range(2):
            assert "own thread" in str(outcomes.get(timeout=PATIENCE))
        assert not store.closed

    def test_made_by_open_only(self):
        with pytest.raises(TypeError, match=r"FileBlobStore\.open"):
            FileBlobStore("path")


class TestThreads:
    def test_a_thousand_short_lived_threads(self, store):
        names = [BlobGuid.random() for _ in range(1000)]
        for at in range(0, 1000, 50):
            joins = [in_thread(store.write_blob, name, A) for name in names[at : at + 50]]
            for join in joins:
                join()
        assert len(store.list_blobs()) == 1000

    def test_from_a_thread_in_which_a_loop_runs(self, store):
        async def use():
            store.write_blob(GUID, A)
            return read(store)

        assert asyncio.run(use()) == A

    def test_waiting_calls_do_not_hold_up_others(self, store, core):
        core.held.add("read")
        store.write_blob(GUID, A)
        join = in_thread(read, store)
        assert core.began.get(timeout=PATIENCE) == "read"
        assert store.list_blobs() == [GUID]
        core.let_go()
        assert join() == A


class TestSignals:
    def test_a_handler_that_returns_changes_nothing(self, store):
        store.write_blob(GUID, A)
        signals = []
        before = signal.signal(signal.SIGALRM, lambda *_: signals.append(None))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            for _ in range(1000):
                assert read(store) == A
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert signals

    def test_a_handler_that_raises_waits_for_the_operation_first(self, store, core, handler):
        bell, deeds = handler
        deeds.append(raise_struck)
        core.held.add("write")
        ended = threading.Event()

        def helper():
            core.began.get(timeout=PATIENCE)
            for _ in range(3):  # striking the wait for the end changes nothing
                strike_main(bell)
            assert store.list_blobs() == []  # the store goes on, and the write has not ended
            assert not ended.is_set()
            core.let_go()

        join = in_thread(helper)
        with pytest.raises(Interrupt):
            try:
                store.write_blob(GUID, A)
            finally:
                ended.set()
        join()
        assert store._handle._loop._running == set()

    def test_a_call_that_had_not_begun_never_begins(self, store, core, handler):
        bell, deeds = handler
        deeds.append(raise_struck)
        busy = threading.Event()
        started = queue.SimpleQueue()

        def block():
            started.put(None)
            busy.wait(PATIENCE)

        core.loop.call_soon_threadsafe(block)
        started.get(timeout=PATIENCE)

        def helper():
            while not store._handle._loop._submitted:
                pass
            strike_main(bell)
            while len(store._handle._loop._submitted) < 2:
                pass
            busy.set()

        join = in_thread(helper)
        with pytest.raises(Interrupt):
            store.write_blob(GUID, A)
        join()
        assert store.list_blobs() == []

    def test_a_handler_may_use_the_store_whose_call_it_interrupted(self, store, core, handler):
        bell, deeds = handler
        deeds.append(lambda: store.write_blob(GUID, B))
        deeds.append(core.let_go)
        core.held.add("commit")

        def helper():
            core.began.get(timeout=PATIENCE)
            strike_main(bell)

        join = in_thread(helper)
        store.commit([(BlobGuid.random(), A)])
        join()
        assert read(store) == B

    def test_a_handler_may_close_the_store_whose_call_it_interrupted(self, handler):
        store, core = open_fake()
        bell, deeds = handler
        deeds.append(core.let_go)
        deeds.append(store.close)
        core.held.add("write")

        def helper():
            core.began.get(timeout=PATIENCE)
            strike_main(bell)

        join = in_thread(helper)
        try:
            store.write_blob(GUID, A)
        except StoreClosed:
            pass  # as good: the fake core does not wait for its operations
        join()
        assert store.closed

    @pytest.mark.untraced("its handler raises at any moment")
    def test_a_storm_of_raising_handlers(self, store):
        frames = [bytes([n]) * PAGE for n in range(256)]
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
        store.write_blob(GUID, frames[0])
        last = 0
        try:
            for n in range(1, 1500):
                signal.setitimer(signal.ITIMER_REAL, dice.uniform(1e-6, 2e-4))
                try:
                    armed = True
                    store.write_blob(GUID, frames[n % 256])
                    armed = False
                    assert read(store) == frames[n % 256]
                    last = n
                except Interrupt:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    assert store._handle._loop._running == set()
                    now = read(store)
                    assert now in {frames[n % 256], frames[last % 256]}
                    last = n if now == frames[n % 256] else last
        finally:
            armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert hits

    def test_ctrl_c_during_close_closes(self, handler):
        store, core = open_fake()
        bell, deeds = handler
        deeds.append(raise_struck)
        core.held.add("flush")

        def helper():
            core.began.get(timeout=PATIENCE)
            strike_main(bell)
            core.let_go()

        join = in_thread(helper)
        with pytest.raises(Interrupt):
            store.close()
        join()
        assert core.log == ["flush", "closed"]
        assert store.closed
        assert not store._handle._loop.thread.is_alive()
        store.close()

    def test_ctrl_c_during_open_leaves_nothing(self, handler):
        bell, deeds = handler
        deeds.append(raise_struck)
        cores = queue.SimpleQueue()
        gate = threading.Event()

        async def opener():
            core = FakeCore()
            cores.put(core)
            await to_thread(gate.wait, PATIENCE)
            return core

        def helper():
            cores.get(timeout=PATIENCE)
            strike_main(bell)
            gate.set()

        count = threading.active_count()
        join = in_thread(helper)
        with pytest.raises(Interrupt):
            FileBlobStore(StoreHandle(opener, "never"))
        join()
        assert threading.active_count() == count


class TestTheEnd:
    def test_close_flushes_and_frees(self):
        before = len(os.listdir("/dev/fd"))
        store, core = open_fake()
        store.write_blob(GUID, A)
        store.close()
        assert core.log == ["flush", "closed"]
        assert len(os.listdir("/dev/fd")) == before
        assert store.closed
        assert store.stats().page_size == PAGE
        assert "FakeCore" in repr(store)
        store.close()
        for call in (
            lambda: read(store),
            lambda: store.write_blob(GUID, A),
            store.list_blobs,
            store.flush,
            store.verify,
            store.needs_flush,
            store.alloc_blob_buf_zeroed,
            lambda: store.has_blob(GUID),
            store.__enter__,
        ):
            with pytest.raises(StoreClosed):
                call()

    def test_without_flush(self):
        store, core = open_fake()
        store.close(flush=False)
        assert core.log == ["closed"]

    def test_a_flush_error_is_raised_once(self):
        store, core = open_fake()
        core.flush_error = BlobStoreIOError(5, "fdatasync")
        with pytest.raises(BlobStoreIOError), store:
            pass
        assert store.closed
        store.close()

    def test_an_error_in_opening_is_raised_and_leaves_no_thread(self):
        async def opener():
            raise FileNotFoundError(2, "no such store")

        count = threading.active_count()
        with pytest.raises(FileNotFoundError):
            StoreHandle(opener, "never")
        assert threading.active_count() == count

    def test_many_close_at_once(self):
        store, core = open_fake()
        core.held.add("flush")
        joins = [in_thread(store.close) for _ in range(8)]
        core.began.get(timeout=PATIENCE)
        core.let_go()
        for join in joins:
            join()
        assert core.log == ["flush", "closed"]

    def test_calls_beside_close_return_or_are_refused(self):
        for _ in range(20):
            store, core = open_fake()

            def use(store=store):
                try:
                    while True:
                        store.write_blob(GUID, A)
                except StoreClosed:
                    return

            joins = [in_thread(use) for _ in range(4)]
            store.close()
            for join in joins:
                join()

    def test_a_call_that_waits_for_ever_is_ended_by_close(self):
        store, core = open_fake()

        async def forever():
            core.began.put("forever")
            await asyncio.Event().wait()

        join = in_thread(store._handle.run, forever)
        core.began.get(timeout=PATIENCE)
        store.close()
        with pytest.raises(StoreClosed):
            join()

    def test_collected_while_open(self):
        store, core = open_fake()
        store.write_blob(GUID, A)
        thread = store._handle._loop.thread
        gone = weakref.ref(store)
        with pytest.warns(ResourceWarning, match="never closed"):
            del store
            gc.collect()
        assert gone() is None
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert core.log == ["closed"]  # and not flushed

    def test_collected_after_closing_says_nothing(self):
        store, _ = open_fake()
        store.close()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del store
            gc.collect()


PRELUDE = """
import os, signal, sys, threading, warnings, atexit
sys.path[:0] = sys.argv[1].split(os.pathsep)
from fake_core import open_fake, PAGE
warnings.simplefilter("default")
store, core = open_fake()
GUID = bytes(16)
store.write_blob(GUID, b"a" * PAGE)
"""


def run_child(script, *options):
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # where fake_core is
    child = subprocess.run(
        [sys.executable, *options, "-c", PRELUDE + script, here],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return child


class TestExit:
    @pytest.mark.parametrize("options", [(), ("-X", "dev")])
    def test_an_open_store_at_exit(self, options):
        child = run_child("print('bye')", *options)
        assert child.stdout == "bye\n"
        lines = [line for line in child.stderr.splitlines() if "ResourceWarning" in line]
        assert "Traceback" not in child.stderr
        assert len(lines) <= 1, child.stderr

    def test_in_a_reference_cycle_at_exit(self):
        child = run_child("store.me = [store]; sys.modules['x'] = store")
        assert "Traceback" not in child.stderr

    def test_with_a_call_waiting_in_a_daemon_thread(self):
        script = """
core.held.add("read")
threading.Thread(target=store.read_blob, args=(GUID, bytearray(PAGE)), daemon=True).start()
core.began.get()
"""
        assert "Traceback" not in run_child(script).stderr

    def test_an_exit_handler_may_close_it(self):
        child = run_child("atexit.register(lambda: (store.close(), print(core.log)))")
        assert child.stdout == "['flush', 'closed']\n"
        assert child.stderr == ""

    def test_a_finalizer_at_exit_may_try(self):
        script = """
class Owner:
    def __del__(self, store=store):
        store.close()
sys.owner = Owner()
"""
        assert "Traceback" not in run_child(script).stderr


FORK = """
def fork(child):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 3.12 warns of any fork beside threads
        pid = os.fork()
    if pid:
        status = os.waitpid(pid, 0)[1]
        assert status == 0, status
        return
    code = 1
    try:
        child()
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)

def refused(call, *args):
    try:
        call(*args)
    except RuntimeError as error:
        assert "fork" in str(error), error
    else:
        raise AssertionError(call)
"""


class TestFork:
    def test_the_child_is_refused_and_the_parent_notices_nothing(self):
        script = """
def child():
    assert core.abandoned == 1
    frame = bytearray(PAGE)
    for call, args in [(store.read_blob, (GUID, frame)), (store.write_blob, (GUID, frame)), (store.flush, ()),
                       (store.alloc_blob_buf_zeroed, ()), (store.needs_flush, ()), (store.has_blob, (GUID,)),
                       (store.stats, ()), (store.list_blobs, ()), (store.has_blobs, ([],)),
                       (store.iter_blobs, ()), (store.__enter__, ()), (len, (store,))]:
        refused(call, *args)
    store.close()
    store.close()
    assert core.log == []
    repr(store)

for _ in range(20):
    fork(child)
    frame = bytearray(PAGE)
    store.read_blob(GUID, frame)
    assert frame == b"a" * PAGE
store.close()
assert core.log == ["flush", "closed"]
assert core.abandoned == 0
"""
        assert run_child(FORK + script).stderr == ""

    def test_collected_in_the_child(self):
        script = """
def child():
    global store
    warnings.simplefilter("error")
    store = None
    import gc
    gc.collect()

fork(child)
store.close()
"""
        assert run_child(FORK + script).stderr == ""

    def test_a_handler_forks_in_the_middle_of_a_call(self):
        script = """
import time
pid = None

def handle(number, frame):
    global pid
    if pid is not None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid:
        core.let_go()

signal.signal(signal.SIGUSR1, handle)
core.held.add("read")
me = threading.get_ident()
def strike():
    core.began.get()
    # Until it is handled: CPython sleeps through a signal that comes just before it begins to wait.
    while pid is None:
        signal.pthread_kill(me, signal.SIGUSR1)
        time.sleep(0.05)

threading.Thread(target=strike).start()
try:
    store.read_blob(GUID, bytearray(PAGE))
    assert pid
    assert os.waitpid(pid, 0)[1] == 0
    store.close()
except RuntimeError as error:
    assert pid == 0 and "fork" in str(error)
    os._exit(0)
"""
        assert run_child(FORK + script).stderr == ""
