"""A synchronous commit of few frames needs no task; alone, it blocks the store's thread, and no loop trip passes."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import queue
import signal
import threading
import types

import pytest

from uringblob import BlobGuid, BlobStoreIOError, FileBlobStore, StorePoisoned, tuning
from uringblob.engines.pread import engine as pread
from uringblob.engines.uring import engine as uring
from uringblob.store import core as store_core
from uringblob.store.async_store import AsyncFileBlobStore
from uringblob.store.index.slot_states import SlotState
from uringblob.store.log.commit import Commit
from uringblob.store.log.flat_group import FlatGroup

PAGE = 4096
PATIENCE = 60  # seconds until a test that hangs fails
GUIDS = [BlobGuid(n.to_bytes(16, "big")) for n in range(16)]
ENGINES = {"io_uring": uring, "pread": pread}


class Struck(BaseException):
    """What a signal handler raises."""


@pytest.fixture
def store(store_path, engine):
    store = FileBlobStore.open(store_path, page_size=PAGE, engine=engine)
    # The slots and log blocks that the tests use have been written before, and the next segment is ready.
    store.commit([(guid, bytes(PAGE)) for guid in GUIDS])
    store.commit(deletes=GUIDS)
    for _ in range(10):
        store.commit([(GUIDS[0], bytes(PAGE))])
    yield store
    store.close(flush=False)  # it may be poisoned


class Commits:
    """How each commit went: ``inside``, whether it ended in the call that began it, and who flushed.

    No time passes but what the test lets pass: a disk may be slow, and then none blocks.
    """

    def __init__(self, store, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(store_core, "time", types.SimpleNamespace(monotonic=lambda: self.now))
        store._core._core._blocks_from = 0.0
        self.inside = []
        self.flushed_by = []
        self.before_flush = lambda: None
        self.loop_thread = store._handle._loop.thread.ident
        self.engine = store._core._core.file_io.engine
        module = ENGINES[self.engine.name]
        real_begin, self.real_flush = AsyncFileBlobStore.begin_commit, module.sync_file

        def begin_commit(core, writes, deletes, end, *, alone):
            ended = []

            def over(error):
                ended.append(True)
                end(error)

            begun = real_begin(core, writes, deletes, over, alone=alone)
            self.inside.append(bool(begun and ended))
            return begun

        monkeypatch.setattr(AsyncFileBlobStore, "begin_commit", begin_commit)
        monkeypatch.setattr(module, "sync_file", self.flush)

    def flush(self, *arguments):
        self.flushed_by.append(threading.get_ident())
        self.before_flush()
        return self.real_flush(*arguments)

    @property
    def blocking(self):
        return self.engine.blocking


@pytest.fixture
def commits(store, monkeypatch):
    return Commits(store, monkeypatch)


def frame(number):
    """Aligned memory, which the engine moves from where it lies."""
    memory = mmap.mmap(-1, PAGE)
    memory[:] = bytes([number]) * PAGE
    return memory


def content(number):
    return bytes([number]) * PAGE


def read(store, guid):
    got = bytearray(PAGE)
    store.read_blob(guid, got)
    return bytes(got)


def in_threads(*functions):
    """Begin each in a thread; return a function that waits for them and gives their errors."""
    errors = []

    def run(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()

    def join():
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        return errors

    return join


class Stalled:
    """Keeps the store's thread from dispatching until ``count`` calls are submitted."""

    def __init__(self, store, count):
        self.loop = store._handle._loop
        self.count = count

    def __call__(self):
        while len(self.loop._submitted) < self.count:
            os.sched_yield()


# ---- alone -------------------------------------------------------------------------------------------


def test_alone_it_ends_in_the_turn_that_began_it(store, commits):
    before = store.stats()
    for number in range(5):
        store.commit([(GUIDS[number], frame(number))])
    after = store.stats()
    assert commits.inside == [True] * 5
    assert commits.flushed_by == [commits.loop_thread] * 5
    assert not commits.blocking
    assert [read(store, guid) for guid in GUIDS[:5]] == [content(number) for number in range(5)]
    assert (after.syncs - before.syncs, after.writes - before.writes) == (5, 10)
    assert after.commits - before.commits == 5
    if after.engine == "io_uring":
        # One submits, one or two wait.
        assert 5 <= after.ring_enters - before.ring_enters <= 15


def test_no_task_runs_for_it(store, commits, monkeypatch):
    made = []
    loop = store._handle._loop._loop
    monkeypatch.setattr(loop, "create_task", lambda *_, **__: made.append(True))
    store.commit([(GUIDS[1], frame(1))], [GUIDS[0]])
    assert not made
    assert not store.has_blob(GUIDS[0])


def test_it_is_durable_when_it_returns(store_path, store, commits):
    store.commit([(GUIDS[3], frame(3))])
    store.close(flush=False)
    with FileBlobStore.open(store_path, page_size=PAGE, engine=commits.engine.name) as again:
        assert read(again, GUIDS[3]) == content(3)


@pytest.mark.parametrize("blocks", [True, False])
def test_buffers_are_free_when_it_returns(store, commits, monkeypatch, blocks):
    if not blocks:
        monkeypatch.setattr(store_core.Core, "may_block", False)
    array = pytest.importorskip("numpy").zeros(PAGE, "u1")
    for number in range(20):
        lease, plain = store.alloc_blob_buf_zeroed(), bytearray(PAGE)
        part, mapped = memoryview(bytearray(PAGE)), mmap.mmap(-1, PAGE)
        # Those that lie well need no task; where I/O is direct the others are copied.
        store.commit([(GUIDS[1], lease), (GUIDS[2], mapped)])
        lease.release()
        mapped.close()  # impossible while a view of it is alive
        store.commit([(GUIDS[2], plain), (GUIDS[3], part), (GUIDS[4], array)])
        part.release()
        plain.append(number)
        array.resize(PAGE + number)
        array.resize(PAGE)
    assert any(commits.inside) == blocks


@pytest.mark.parametrize("blocks", [True, False])
def test_a_lease_is_free_when_its_commit_returns(store, commits, monkeypatch, blocks):
    if not blocks:
        monkeypatch.setattr(store_core.Core, "may_block", False)
    for number in range(20):
        lease = store.alloc_blob_buf_zeroed()
        lease.view[:] = content(number)
        store.commit([(GUIDS[1], lease)])
        lease.release()
    assert any(commits.inside) == blocks  # not while the log's next segment is prepared
    assert read(store, GUIDS[1]) == content(19)


# ---- with others -------------------------------------------------------------------------------------


def test_beside_a_running_call_it_does_not_block(store, commits):
    running, gate = threading.Event(), threading.Event()

    async def other():
        running.set()
        while not gate.is_set():
            await asyncio.sleep(0)

    join = in_threads(lambda: store._handle.run(other))
    assert running.wait(PATIENCE)
    store.commit([(GUIDS[1], frame(1))])
    gate.set()
    assert join() == []
    assert commits.inside == [False]
    assert commits.loop_thread not in commits.flushed_by
    store.commit([(GUIDS[1], frame(2))])
    assert commits.inside == [False, True]


@pytest.mark.parametrize("count", [2, 8])
def test_commits_that_wait_together_share_their_flushes(store, commits, count):
    before = store.stats()
    store._handle._loop._loop.call_soon_threadsafe(Stalled(store, count))
    join = in_threads(
        *(lambda number=number: store.commit([(GUIDS[number], frame(number))]) for number in range(count))
    )
    assert join() == []
    after = store.stats()
    assert commits.inside == [False] * count
    # The first begins a group at once; the others are the next.
    assert after.syncs - before.syncs == 2
    assert after.commits - before.commits == count
    assert [read(store, guid) for guid in GUIDS[:count]] == [content(number) for number in range(count)]


def test_several_threads_that_commit_at_will_need_fewer_flushes_than_commits(store):
    before = store.stats()

    def commit_often(first):
        for number in range(20):
            store.commit([(GUIDS[first], frame(number))])

    assert in_threads(*(lambda first=first: commit_often(first) for first in range(8)))() == []
    after = store.stats()
    assert after.commits - before.commits == 160
    assert after.syncs - before.syncs < 160
    assert [read(store, guid) for guid in GUIDS[:8]] == [content(19)] * 8


def test_after_a_slow_flush_none_blocks_for_a_while(store, commits):
    def dawdle():
        commits.now += 2 * tuning.BLOCKED_S_MAX

    commits.before_flush = dawdle
    store.commit([(GUIDS[1], frame(1))])
    commits.before_flush = lambda: None
    store.commit([(GUIDS[1], frame(2))])
    commits.now += tuning.UNBLOCKED_S / 2
    store.commit([(GUIDS[1], frame(3))])
    commits.now += tuning.UNBLOCKED_S
    store.commit([(GUIDS[1], frame(4))])
    assert commits.inside == [True, False, False, True]
    assert read(store, GUIDS[1]) == content(4)


# ---- what goes wrong ---------------------------------------------------------------------------------


def test_an_eio_of_its_flush_is_its_callers_and_poisons_the_store(store, commits):
    def fail():
        raise OSError(errno.EIO, "the disk's")

    commits.before_flush = fail
    with pytest.raises(BlobStoreIOError) as raised:
        store.commit([(GUIDS[1], frame(1))])
    assert (raised.value.errno, raised.value.applied) == (errno.EIO, None)
    assert not commits.blocking
    assert not store.has_blob(GUIDS[1])
    with pytest.raises(StorePoisoned):
        store.commit([(GUIDS[1], frame(1))])


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("struck", ["frame", "block"])
def test_an_error_of_its_writes_is_its_callers(store, commits, monkeypatch, struck, number):
    real, requests = commits.engine.start_write, []

    def start_write(offset, frames, sink):
        requests.append(offset)
        if len(requests) == ["frame", "block"].index(struck) + 1:
            sink.complete(-number)
            return True
        return real(offset, frames, sink)

    monkeypatch.setattr(commits.engine, "start_write", start_write)
    lease = store.alloc_blob_buf_zeroed()
    with pytest.raises(BlobStoreIOError) as raised:
        store.commit([(GUIDS[1], lease)])
    assert raised.value.errno == number
    lease.release()
    assert not commits.blocking
    assert not store.has_blob(GUIDS[1])
    if struck == "frame":
        store.commit([(GUIDS[2], frame(2))])
        assert read(store, GUIDS[2]) == content(2)


def test_an_interrupted_write_is_made_again_by_a_coroutine(store, commits, monkeypatch):
    real, requests = commits.engine.start_write, []

    def start_write(offset, frames, sink):
        requests.append(offset)
        if len(requests) == 1:
            sink.complete(-errno.EINTR)
            return True
        return real(offset, frames, sink)

    monkeypatch.setattr(commits.engine, "start_write", start_write)
    store.commit([(GUIDS[1], frame(1))])
    assert commits.inside == [False]
    assert not commits.blocking
    assert read(store, GUIDS[1]) == content(1)


def test_a_commit_that_cannot_begin_leaves_the_engine_as_it_was(store, commits, monkeypatch):
    def start_commit(*_):
        raise MemoryError("for its slots")

    with monkeypatch.context() as patch:
        patch.setattr(store_core.Core, "start_commit", start_commit)
        with pytest.raises(MemoryError, match="for its slots"):
            store.commit([(GUIDS[1], frame(1))])
    assert not commits.blocking
    store.commit([(GUIDS[1], frame(1))])
    assert commits.inside == [True]


def test_without_memory_to_block_the_loop_goes_on(store, commits, monkeypatch):
    def run_until(_done):
        raise MemoryError

    monkeypatch.setattr(commits.engine, "run_until", run_until)
    store.commit([(GUIDS[1], frame(1))])
    assert not commits.blocking
    assert read(store, GUIDS[1]) == content(1)


def test_without_memory_to_wait_for_it_its_frames_stay_its_own(store, monkeypatch):
    """An error would return them to the caller while the engine has them."""
    failed, before = [], store.stats().commits

    def add_done_callback(commit, *args, **options):
        if len(failed) < 3:
            failed.append(commit.done())
            raise MemoryError
        asyncio.Future.add_done_callback(commit, *args, **options)

    monkeypatch.setattr(store_core.Core, "may_block", False)
    monkeypatch.setattr(Commit, "add_done_callback", add_done_callback)
    store.commit([(GUIDS[1], frame(1))])
    assert failed == [False] * 3
    assert store.stats().commits == before + 1
    assert not store.needs_flush()
    assert read(store, GUIDS[1]) == content(1)


# Of an asynchronous store, too: both begin it in the same way.
async def test_a_commit_that_no_group_takes_ends_when_its_frames_are_written(store_path, engine, monkeypatch):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        await store.commit([(guid, frame(0)) for guid in GUIDS])
        await store.commit(deletes=GUIDS)
        for _ in range(10):
            await store.commit([(GUIDS[0], frame(0))])
        io, slots, held = store._core.file_io.engine, store._core.index.slots, []
        real = io.start_write

        def start_write(offset, frames, sink):
            held.append((offset, frames, sink))
            return True

        def of(*_):
            raise MemoryError("for a group")

        lease = store.alloc_blob_buf_zeroed()
        with monkeypatch.context() as patch:
            patch.setattr(io, "start_write", start_write)
            patch.setattr(FlatGroup, "of", of)
            committing = asyncio.ensure_future(store.commit([(GUIDS[1], lease)]))
            for _ in range(10):
                await asyncio.sleep(0)
        assert not committing.done(), "the engine has the caller's frame"
        writing = slots.count(SlotState.WRITING)
        real(*held.pop())
        with pytest.raises(MemoryError, match="for a group"):
            await committing
        assert io.in_flight == 0
        assert slots.count(SlotState.WRITING) == writing - 1
        await store.commit([(GUIDS[1], frame(1))])


# ---- interrupted, and closed -------------------------------------------------------------------------


@pytest.fixture
def gate(commits):
    """Lets the next flush begin, and go on when the test says so."""
    began, go = threading.Event(), threading.Event()

    def wait():
        began.set()
        assert go.wait(PATIENCE)

    commits.before_flush = wait
    yield began, go
    go.set()


def test_a_handler_that_raises_ends_the_wait_when_the_commit_is_whole(store, gate):
    began, go = gate
    bell = queue.SimpleQueue()

    def handle(_number, _frame):
        bell.put(None)
        raise Struck

    main = threading.main_thread().ident
    before = signal.signal(signal.SIGUSR1, handle), signal.signal(signal.SIGUSR2, lambda *_: None)

    def strike():
        assert began.wait(PATIENCE)
        signal.pthread_kill(main, signal.SIGUSR1)
        for _ in range(PATIENCE * 10):
            try:
                bell.get(timeout=0.1)
                break
            except queue.Empty:
                signal.pthread_kill(main, signal.SIGUSR2)  # CPython can sleep through the first one
        go.set()

    lease = store.alloc_blob_buf_zeroed()
    lease.view[:] = content(7)
    join = in_threads(strike)
    try:
        with pytest.raises(Struck):
            store.commit([(GUIDS[7], lease)])
        assert go.is_set(), "it returned while its commit was under way"
        lease.release()
        assert join() == []
    finally:
        for number, old in zip((signal.SIGUSR1, signal.SIGUSR2), before, strict=True):
            signal.signal(number, old)
    assert read(store, GUIDS[7]) == content(7)
    store.commit([(GUIDS[7], frame(8))])


def test_a_close_during_one_waits_for_it(store_path, store, commits, gate):
    began, go = gate
    join = in_threads(lambda: store.commit([(GUIDS[5], frame(5))]))
    assert began.wait(PATIENCE)
    join_close = in_threads(store.close)
    while not store._handle._loop._submitted:
        os.sched_yield()
    commits.before_flush = lambda: None
    go.set()
    assert (join(), join_close()) == ([], [])
    assert commits.inside == [True]
    with FileBlobStore.open(store_path, page_size=PAGE, engine=commits.engine.name) as again:
        assert read(again, GUIDS[5]) == content(5)
