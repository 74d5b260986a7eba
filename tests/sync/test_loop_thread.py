"""The store's thread where the system has none, where calls come too late, and where the process forks."""

from __future__ import annotations

import collections
import os
import queue
import signal
import sys
import threading
import warnings

import pytest

from fake_core import PAGE, FakeCore, open_fake
from uringblob import fork
from uringblob.engines.to_thread import to_thread
from uringblob.errors import StoreClosed
from uringblob.sync.call import LoopCall
from uringblob.sync.loop_thread import LoopThread
from uringblob.sync.store_handle import StoreHandle

PATIENCE = 60  # seconds until a test that hangs fails
GUID = bytes(16)


class Struck(BaseException):
    """What a signal handler raises."""


async def opener():
    return FakeCore()


async def nothing():
    """A call without work."""


@pytest.fixture
def opened():
    store, core = open_fake()
    loop = store._handle._loop
    yield store, core, loop
    loop.request_shutdown()
    loop.thread.join(PATIENCE)
    assert not loop.thread.is_alive()
    store._handle.closed = True


# ---- the beginning ----------------------------------------------------------------------------


def test_where_the_system_has_no_thread_there_is_no_store(monkeypatch):
    """And no descriptor is left: the suite looks after every test."""

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        StoreHandle(opener, "never")


def test_a_handler_that_raises_while_the_thread_starts_is_what_the_caller_sees(monkeypatch):
    """It upsets threading's own lock, and its RuntimeError is not what the caller needs; the thread runs, and ends."""
    real = threading.Thread.start
    started = []

    def start(thread):
        started.append(thread)
        real(thread)
        try:
            raise Struck
        except Struck:
            raise RuntimeError("cannot release un-acquired lock")  # noqa: B904 - as threading does

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(Struck):
        StoreHandle(opener, "struck")
    assert [thread.is_alive() for thread in started] == [False]


@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
def test_threads_that_are_greenlets_are_refused_by_name_and_no_signal_is_blocked(monkeypatch, late):
    """gevent.monkey makes threading.Thread run its function in the caller's own thread: every signal of
    the main thread was blocked there, for good."""
    unstarted = []

    def start(thread):
        thread._set_native_id()
        thread._ident = threading.get_ident()
        thread._started.set()
        if late:
            unstarted.append(thread)
        else:
            thread._target()

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(threading.Thread, "join", lambda _thread, timeout=None: None)
    monkeypatch.setattr(threading.Thread, "is_alive", lambda _thread: False)
    with pytest.raises(RuntimeError, match="gevent"):
        StoreHandle(opener, "greenlet")
    for thread in unstarted:
        thread._target()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == blocked


# ---- beginning a call -------------------------------------------------------------------------


def test_a_call_that_there_is_no_memory_to_begin_ends_and_those_behind_it_run(opened, monkeypatch):
    """It waited for ever, and so did the calls queued behind it."""
    store, core, loop = opened
    store.write_blob(GUID, b"a" * PAGE)
    strikes = [MemoryError("one failed allocation")]
    real = loop._loop.create_task

    def create_task(*args, **options):
        if strikes:
            raise strikes.pop()
        return real(*args, **options)

    calls = [LoopCall(core.list_blobs) for _ in range(3)]
    with monkeypatch.context() as patched:
        patched.setattr(loop._loop, "create_task", create_task)
        loop._submitted.extend(calls)  # all are found by one look
        with pytest.raises(MemoryError, match="one failed allocation"):
            calls[0].wait(lambda _call: loop._loop.call_soon_threadsafe(loop._dispatch_submitted))
    for call in calls[1:]:
        assert call.wait(loop.submit) == [GUID]


def test_a_call_that_is_interrupted_before_its_task_has_begun_never_begins(opened):
    _, core, loop = opened
    begun, calls = [], []

    async def work():
        begun.append(True)

    def submit(call):
        """Have it dispatched twice in one iteration, the second time as an interrupted one."""
        if not calls:
            calls.append(call)
            loop._loop.call_soon_threadsafe(dispatch_twice)
            raise Struck

    def dispatch_twice():
        loop._dispatch(call)
        call.interrupted_by = call.interrupted_by or Struck()
        loop._dispatch(call)

    call = LoopCall(work)
    with pytest.raises(Struck):
        call.wait(submit)
    assert begun == []
    assert not loop._running


# ---- submitting ----------------------------------------------------------------------------------


def test_a_runtime_error_of_a_handler_is_not_taken_for_a_closed_loop(opened, monkeypatch):
    store, _, loop = opened
    real = loop._loop.call_soon_threadsafe
    strikes = [RuntimeError("of the handler")]

    def call_soon_threadsafe(*args):
        if strikes:
            raise strikes.pop()
        return real(*args)

    monkeypatch.setattr(loop._loop, "call_soon_threadsafe", call_soon_threadsafe)
    with pytest.raises(RuntimeError, match="of the handler"):
        store.write_blob(GUID, b"a" * PAGE)
    assert store.list_blobs() == []


def test_closers_may_submit_as_often_as_they_are_interrupted(opened):
    """One closes, all end with it; the later ones begin nothing, not even after the end."""
    _, core, loop = opened
    core.held.add("close")
    first, second = (loop.shutdown_call(flush=False) for _ in range(2))
    loop.submit(first)
    assert core.began.get(timeout=PATIENCE) == "close"
    loop.submit(second)
    loop.submit(second)
    loop.submit(first)
    core.let_go()
    loop.thread.join(PATIENCE)
    for call in (first, second):
        loop.submit(call)
        assert call.wait(loop.submit) is None
    assert core.log == ["closed"]
    late = LoopCall(nothing)
    with pytest.raises(StoreClosed):
        late.wait(loop.submit)


def test_of_two_late_threads_each_call_is_rejected_by_one(opened):
    """Between seeing a call and taking it the other thread took it: that is no error."""
    _, _, loop = opened
    loop.request_shutdown()
    loop.thread.join(PATIENCE)

    class Raced(collections.deque):
        def popleft(self):
            super().popleft()  # the other thread's
            raise IndexError("pop from an empty deque")

    loop._submitted = Raced()
    loop.submit(LoopCall(nothing))
    assert not loop._submitted
    loop._submitted = collections.deque()


# ---- the end ----------------------------------------------------------------------------------


def test_while_the_interpreter_exits_calls_are_refused_and_closing_does_not_wait(opened, monkeypatch):
    """The thread is frozen then: a wait for it would never end."""
    store, core, loop = opened
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    with pytest.raises(RuntimeError, match="interpreter is exiting"):
        store.flush()
    store.close()
    monkeypatch.undo()
    assert core.log == []
    assert loop.thread.is_alive()


def test_a_child_that_is_interrupted_while_it_closes_submits_nothing(opened, monkeypatch):
    store, core, loop = opened
    strikes = [Struck()]

    def inherited(handle):
        if strikes:
            raise strikes.pop()
        return True

    monkeypatch.setattr(StoreHandle, "inherited", property(inherited))
    with pytest.raises(Struck):
        store._handle.close(flush=True)
    assert not loop._submitted
    assert core.log == []


def test_a_fork_while_the_store_opens_leaves_the_child_no_waiting_call():
    gate = threading.Event()
    begun = queue.SimpleQueue()

    async def slow():
        begun.put(None)
        await to_thread(gate.wait, PATIENCE)
        return FakeCore()

    handles = []
    opening = threading.Thread(target=lambda: handles.append(StoreHandle(slow, "slow")))
    opening.start()
    begun.get(timeout=PATIENCE)
    (loop,) = (
        each for each in fork._inherited if isinstance(each, LoopThread) and each.thread.name == "slow"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 3.12 warns of any fork beside threads
        pid = os.fork()
    if not pid:
        try:
            (call,) = loop._running
            os._exit(0 if call.ended and "before fork" in str(call.error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    gate.set()
    opening.join(PATIENCE)
    handles[0].close(flush=True)
    assert handles[0].core.log == ["flush", "closed"]
