"""The pread engine: numbers in, numbers out, on every system, and a clean end."""

from __future__ import annotations

import _thread
import asyncio
import errno
import fcntl
import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref

import pytest

from uringblob import tuning
from uringblob.buffers.leases import BufferPool, frame_of
from uringblob.engines import posix_calls
from uringblob.engines.posix_calls import grow_file, pick_calls
from uringblob.engines.pread.engine import PreadEngine
from uringblob.engines.transfers import read_whole, write_whole_then_sync

BLOCK = 4096


@pytest.fixture
def fd(store_path):
    descriptor = os.open(store_path, os.O_RDWR | os.O_CREAT, 0o600)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
async def engine(fd):
    opened = open_engine(fd)
    yield opened
    await opened.close()


def open_engine(fd):
    pool = BufferPool(BLOCK, None, asked=0)
    loop = asyncio.get_running_loop()
    return PreadEngine(loop, fd, pool=pool, direct_io=False, memory_align=1, reason="")


def frames(*chunks, writable=False):
    return [frame_of(chunk, len(chunk), writable=writable, pool=None) for chunk in chunks]


@pytest.fixture(params=["as it is", "without preadv and fdatasync"])
def system(request, monkeypatch):
    """This system, and one that lacks what macOS lacks."""
    if request.param != "as it is":
        for name in ("preadv", "pwritev", "fdatasync"):
            monkeypatch.delattr(os, name, raising=False)
    return request.param


# ---- what comes back ----------------------------------------------------------------------------


async def test_what_is_written_is_read(system, fd):
    engine = open_engine(fd)
    assert await engine.write(BLOCK, frames(b"a" * BLOCK, b"b" * BLOCK)) == 2 * BLOCK
    first, second = bytearray(BLOCK), bytearray(BLOCK)
    assert await engine.read(BLOCK, frames(first, second, writable=True)) == 2 * BLOCK
    assert (first, second) == (b"a" * BLOCK, b"b" * BLOCK)
    assert await engine.sync() == 0
    assert engine.file_size() == 3 * BLOCK
    assert os.pread(fd, 3, 2 * BLOCK) == b"bbb"
    await engine.close()


async def test_a_read_at_the_end_is_short_and_behind_it_zero(system, fd):
    engine = open_engine(fd)
    os.pwrite(fd, b"x" * (BLOCK + 100), 0)
    first, second = bytearray(BLOCK), bytearray(BLOCK)
    assert await engine.read(0, frames(first, second, writable=True)) == BLOCK + 100
    assert second[:101] == b"x" * 100 + b"\0"
    assert await engine.read(2 * BLOCK, frames(first, writable=True)) == 0
    await engine.close()


async def test_refusals_are_numbers(system, store_path, fd):
    read_only = os.open(store_path, os.O_RDONLY)
    engine = open_engine(read_only)
    try:
        assert await engine.write(0, frames(b"x")) == -errno.EBADF
        assert await engine.write_then_sync(0, frames(b"x")) == (-errno.EBADF, -errno.ECANCELED)
        assert await engine.read(-4096, frames(bytearray(1), writable=True)) == -errno.EINVAL
        assert await engine.grow(BLOCK) < 0
    finally:
        await engine.close()
        os.close(read_only)


async def test_a_read_in_the_calling_thread_is_a_number_too(engine, store_path, fd):
    os.pwrite(fd, b"x" * 100, 0)
    into = bytearray(BLOCK)
    (frame,) = frames(into, writable=True)
    assert engine.read_now(0, frame) == 100
    assert into[:101] == b"x" * 100 + b"\0"
    assert engine.read_now(-BLOCK, frame) == -errno.EINVAL


async def test_more_pieces_than_the_system_takes_are_a_number(engine):
    assert await engine.write(0, frames(*[b"x"] * 1025)) == -errno.EINVAL


async def test_what_was_written_before_a_refusal_counts(system, store_path, fd):
    """As one pwritev does; the caller's request for the rest is refused then."""
    if system == "as it is":
        pytest.skip("n/a: one call writes all of it")
    real = os.pwrite

    def pwrite(fd, data, offset):
        if offset >= BLOCK:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data, offset)

    engine = open_engine(fd)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        assert await engine.write(0, frames(b"a" * BLOCK, b"b" * BLOCK)) == BLOCK
        assert await engine.write(BLOCK, frames(b"b" * BLOCK)) == -errno.ENOSPC
        patch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:100], offset))
        assert await engine.write(0, frames(b"c" * BLOCK, b"d" * BLOCK)) == 100, (
            "the second would leave a hole"
        )
    assert os.pread(fd, 2 * BLOCK, 0) == b"c" * 100 + b"a" * (BLOCK - 100)
    await engine.close()


async def test_no_memory_for_an_operation_is_a_number(engine):
    """The system's word for it, which is tried again as everything transient is."""

    def no_memory(_fd, _views, _offset):
        raise MemoryError

    replace_calls(engine, writev=no_memory)
    assert await engine.write(0, frames(b"abc")) == -errno.ENOMEM
    assert engine.in_flight == 0


async def test_memory_that_went_away_is_an_error_of_that_operation_alone(engine):
    dead = frames(bytearray(BLOCK), writable=True)
    dead[0].view.release()
    with pytest.raises(ValueError, match="released"):
        await engine.read(0, dead)
    assert await engine.write(0, frames(b"x")) == 1
    assert engine.in_flight == 0


async def test_write_then_sync(engine, fd):
    assert await engine.write_then_sync(0, frames(b"a" * BLOCK, b"b")) == (BLOCK + 1, 0)
    assert os.pread(fd, 2, BLOCK) == b"b"
    assert (engine.counters.writes, engine.counters.syncs, engine.counters.linked_syncs) == (1, 1, 1)


def replace_calls(engine, **calls):
    engine._calls = engine._calls._replace(**calls)


async def test_a_short_write_is_not_synced(engine):
    synced = []
    replace_calls(engine, writev=lambda _fd, views, _offset: len(views[0]) - 1, sync=synced.append)
    assert await engine.write_then_sync(0, frames(b"abc")) == (2, -errno.ECANCELED)
    assert not synced
    assert engine.counters.syncs == 0


async def test_a_failed_sync_of_a_whole_write_is_told_apart(engine):
    def fail(_fd):
        raise OSError(errno.EIO, "gone")

    replace_calls(engine, sync=fail)
    assert await engine.write_then_sync(0, frames(b"abc")) == (3, -errno.EIO)
    assert await engine.sync() == -errno.EIO


async def test_the_counters_count(engine):
    await engine.write(0, frames(b"x" * BLOCK))
    await engine.read(0, frames(bytearray(2 * BLOCK), writable=True))
    await engine.sync()
    counters = engine.counters
    assert (counters.reads, counters.writes, counters.syncs) == (1, 1, 1)
    assert (counters.bytes_read, counters.bytes_written, counters.ring_enters) == (BLOCK, BLOCK, 0)


# ---- growing ------------------------------------------------------------------------------------


async def test_grow_allocates_and_never_shrinks(engine, fd):
    assert await engine.grow(16 * BLOCK) == 0
    assert engine.file_size() == 16 * BLOCK
    assert await engine.grow(BLOCK) == 0
    assert engine.file_size() == 16 * BLOCK


def test_without_fallocate_the_length_grows(fd, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    grow_file(fd, 3 * BLOCK)
    assert os.fstat(fd).st_size == 3 * BLOCK


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_fallocate_grows_too(fd, monkeypatch, code):
    def refuse(_fd, _offset, _size):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    grow_file(fd, 3 * BLOCK)
    assert os.fstat(fd).st_size == 3 * BLOCK


async def test_growth_that_failed_is_undone(engine, fd, monkeypatch):
    def fill_up(descriptor, offset, _size):
        os.ftruncate(descriptor, offset + BLOCK)  # as ext4 does
        raise OSError(errno.ENOSPC, "full")

    await engine.grow(2 * BLOCK)
    monkeypatch.setattr(os, "posix_fallocate", fill_up, raising=False)
    assert await engine.grow(8 * BLOCK) == -errno.ENOSPC
    assert engine.file_size() == 2 * BLOCK


# ---- macOS --------------------------------------------------------------------------------------


@pytest.fixture
def macos(monkeypatch, fd):
    """macOS, as far as flushing goes; returns what was asked of the descriptor."""
    asked = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _fd, command: asked.append(command))
    monkeypatch.setattr(os, "fsync", lambda _fd: asked.append("fsync"))
    return asked


def test_macos_flushes_the_drive(macos, fd):
    pick_calls().sync(fd)
    assert macos == [51]


@pytest.mark.parametrize("code", sorted(posix_calls._NO_FULLFSYNC))
def test_macos_file_systems_without_full_flush_get_fsync(macos, monkeypatch, fd, code):
    def refuse(_fd, _command):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    pick_calls().sync(fd)
    assert macos == ["fsync"]


def test_a_full_flush_that_failed_is_not_tried_otherwise(macos, monkeypatch, fd):
    def fail(_fd, _command):
        raise OSError(errno.EIO, "gone")

    monkeypatch.setattr(fcntl, "fcntl", fail)
    with pytest.raises(OSError, match="gone"):
        pick_calls().sync(fd)
    assert not macos


def test_fsync_stands_in_for_fdatasync(monkeypatch):
    monkeypatch.delattr(os, "fdatasync", raising=False)
    assert pick_calls().sync is os.fsync


# ---- threads --------------------------------------------------------------------------------------


class Gate:
    """A call that many threads enter, and that ends when the test says so."""

    def __init__(self):
        self.inside = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, _fd, views, _offset):
        self.inside.release()
        self.opened.wait()
        return sum(len(view) for view in views)


async def test_threads_are_started_when_needed_and_are_few(engine):
    assert not engine._threads
    assert await engine.write(0, frames(b"x")) == 1
    assert await engine.write(0, frames(b"x")) == 1
    assert len(engine._threads) == 1
    gate = Gate()
    replace_calls(engine, writev=gate)
    asked = [engine.write(0, frames(b"abc")) for _ in range(100)]
    for _ in range(tuning.PREAD_THREADS_MAX):
        gate.inside.acquire()
    assert not gate.inside.acquire(blocking=False)
    assert len(engine._threads) == tuning.PREAD_THREADS_MAX
    assert engine.in_flight == 100
    gate.opened.set()
    assert await asyncio.gather(*asked) == [3] * 100
    assert engine.in_flight == 0


async def test_without_any_thread_the_caller_does_the_work(engine, monkeypatch):
    def refuse(_function, _args):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    assert await asyncio.gather(*[engine.write(0, frames(b"abc")) for _ in range(3)]) == [3] * 3


async def test_results_come_in_batches(engine):
    """While the loop is busy, any number of results cause one wake-up."""
    loop = engine._results.loop
    woken = []
    wake = loop.call_soon_threadsafe
    loop.call_soon_threadsafe = lambda *args: (woken.append(args), wake(*args))[1]
    done = threading.Semaphore(0)
    replace_calls(engine, writev=lambda _fd, views, _offset: (done.release(), len(views))[1])
    asked = [engine.write(0, frames(b"x")) for _ in range(50)]
    for _ in range(50):
        done.acquire()  # the loop stands still here
    await asyncio.gather(*asked)
    # Two threads may wake it at once, and results posted during a delivery wake it again.
    assert len(woken) < 50
    del loop.call_soon_threadsafe


async def test_a_lease_can_end_as_soon_as_its_operation_has(fd):
    pool = BufferPool(BLOCK, None, asked=0)
    engine = PreadEngine(
        asyncio.get_running_loop(), fd, pool=pool, direct_io=False, memory_align=1, reason=""
    )
    for _ in range(200):
        buf = pool.lease()
        await engine.write(0, [buf._frame(pool)])
        buf.release()  # BufferError if the engine still held it
    await engine.close()


async def test_a_cancelled_task_waits_for_its_operation(engine):
    gate = Gate()
    replace_calls(engine, readv=gate)
    task = asyncio.ensure_future(read_whole(engine, 0, *frames(bytearray(3), writable=True), "reading"))
    await asyncio.sleep(0)
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.in_flight == 0


class Struck(Exception):
    pass


async def test_a_strike_while_results_are_delivered_loses_none(engine):
    """A signal handler that raises in the middle of a delivery: the rest comes all the same."""
    turns_until_strike = [2, 0]
    reported = []

    class StruckSet(set):
        def discard(self, item):
            if turns_until_strike:
                turns_until_strike[0] -= 1
                if turns_until_strike[0] < 0:
                    del turns_until_strike[0]
                    raise Struck
            super().discard(item)

    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: reported.append(what["exception"]))
    completions = [engine.write(0, frames(b"x")) for _ in range(6)]
    engine._results.pending = StruckSet(engine._results.pending)
    assert await asyncio.gather(*completions) == [1] * 6
    await engine._results.wait_empty()
    assert engine.in_flight == 0
    assert [type(error) for error in reported] == [Struck, Struck]
    assert engine.counters.bytes_written == 6  # each counted once


# ---- the end --------------------------------------------------------------------------------------


async def test_close_waits_ends_the_threads_and_leaves_the_descriptor(fd):
    engine = open_engine(fd)
    gate = Gate()
    replace_calls(engine, writev=gate)
    asked = [engine.write(0, frames(b"abc")) for _ in range(20)]
    threads = list(engine._threads)
    closing = asyncio.ensure_future(engine.close())
    await asyncio.sleep(0)
    assert not closing.done()
    with pytest.raises(RuntimeError, match="closed"):
        engine.sync()
    gate.opened.set()
    await closing
    assert [completion.result() for completion in asked] == [3] * 20
    assert not any(thread._ended.locked() for thread in threads)
    assert os.fstat(fd)
    await engine.close()


async def test_two_who_close_wait_for_the_same_end(fd):
    engine = open_engine(fd)
    gate = Gate()
    replace_calls(engine, writev=gate)
    asked = engine.write(0, frames(b"abc"))
    closings = [asyncio.ensure_future(engine.close()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(closing.done() for closing in closings)
    gate.opened.set()
    await asyncio.gather(*closings)
    assert asked.result() == 3


async def test_a_cancelled_close_still_waits_and_ends_the_threads(fd):
    engine = open_engine(fd)
    gate = Gate()
    replace_calls(engine, writev=gate)
    asked = engine.write(0, frames(b"abc"))
    threads = list(engine._threads)
    closing = asyncio.ensure_future(engine.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.sleep(0)
    assert not closing.done()
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert asked.result() == 3
    assert not any(thread._ended.locked() for thread in threads)


@pytest.mark.parametrize("abandon", [False, True])
async def test_a_dropped_engine_ends_its_threads(fd, abandon):
    engine = open_engine(fd)
    await engine.write(0, frames(b"x"))
    threads = engine._threads
    if abandon:
        engine.abandon()
        with pytest.raises(RuntimeError, match="closed"):
            engine.sync()
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None
    for thread in threads:
        thread.join()


async def test_a_thread_that_a_signal_kept_off_the_list_ends_too(engine):
    """A handler may raise in ``Thread.start`` after the thread has begun."""
    gate = Gate()
    replace_calls(engine, writev=gate)
    asked = [engine.write(0, frames(b"abc")) for _ in range(4)]
    threads = list(engine._threads)
    del engine._threads[1:]
    gate.opened.set()
    await asyncio.gather(*asked)
    await engine.close()
    for thread in threads:
        thread.join()


@pytest.mark.leaks("libuv makes one pipe for signals in a process's life")
def test_it_works_on_uvloop(fd):
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed for this Python")

    async def main():
        engine = open_engine(fd)
        asked = [engine.write(number * BLOCK, frames(b"u" * BLOCK)) for number in range(20)]
        assert await asyncio.gather(*asked) == [BLOCK] * 20
        await engine.close()

    loop = uvloop.new_event_loop()
    loop.run_until_complete(main())
    loop.close()


def test_results_for_a_closed_loop_are_dropped(fd):
    loop = asyncio.new_event_loop()
    engine = PreadEngine(
        loop, fd, pool=BufferPool(BLOCK, None, asked=0), direct_io=False, memory_align=1, reason=""
    )
    gate = Gate()
    replace_calls(engine, writev=gate)
    engine.write(0, frames(b"abc"))
    gate.inside.acquire()
    loop.close()
    gate.opened.set()
    threads = engine._threads
    engine.abandon()
    for thread in threads:
        thread.join()


EXITS = {
    "idle": "",
    "in the middle of operations": "engine._calls = engine._calls._replace(readv=lambda *_: time.sleep(3600))\n"
    "    for _ in range(20): engine.read(0, frames)",
    "under load": "for _ in range(5000): engine.read(0, frames)",
}


@pytest.mark.parametrize("scene", EXITS.values(), ids=EXITS)
def test_interpreter_exit_is_clean(scene, store_path):
    program = f"""
import asyncio, os, sys, time
from uringblob.buffers.leases import frame_of
from uringblob.engines.pread.engine import PreadEngine
from uringblob.buffers.leases import BufferPool

async def main():
    global engine
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, bytes(4096), 0)
    pool = BufferPool(4096, None, asked=0)
    engine = PreadEngine(asyncio.get_running_loop(), fd, pool=pool, direct_io=False, memory_align=1, reason="")
    frames = [frame_of(bytearray(4096), 4096, writable=True, pool=None)]
    await engine.read(0, frames)
    {scene}

asyncio.run(main())
print("the end")
"""
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), store_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], *sys.path])},
    )
    assert (child.returncode, child.stdout, child.stderr) == (0, "the end\n", "")


async def test_many_writers_and_readers_at_once(engine):
    async def work(number):
        offset = number * BLOCK
        for turn in range(10):
            data = bytes([(number + turn) % 256]) * BLOCK
            await write_whole_then_sync(engine, offset, frames(data), "writing")
            got = bytearray(BLOCK)
            assert await read_whole(engine, offset, *frames(got, writable=True), "reading") == BLOCK
            assert got == data

    await asyncio.gather(*[work(number) for number in range(32)])
    assert len(engine._threads) <= tuning.PREAD_THREADS_MAX
