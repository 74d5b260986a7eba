"""Queued adjacent writes become one call; each gets the result it would have had alone."""

from __future__ import annotations

import asyncio
import collections
import errno
import gc
import os
import sys
import threading
import weakref

import pytest

from uringblob import tuning
from uringblob.buffers.leases import BufferPool, frame_of
from uringblob.completion import Completion
from uringblob.engines.posix_calls import pick_calls
from uringblob.engines.pread.coalesce import CoalescedWrite, Part
from uringblob.engines.pread.engine import PreadEngine

BLOCK = 4096


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def part_of(loop):
    """Make a part of a run: the ``number``-th block, or another size at that block's place."""

    def make(number, size=BLOCK):
        return Part(Completion(loop=loop), number * BLOCK, [memoryview(bytes([number % 256]) * size)], size)

    return make


class Box:
    """A result queue; what is posted twice counts once."""

    def __init__(self):
        self.answers = []

    def post(self, part):
        self.answers.append((part.sink, part.result))


def work_off(run):
    """Do what a worker does with a run; return completions and results."""
    box = run._results
    already = len(box.answers)
    run.work()
    run.post()
    return box.answers[already:]


class Disk:
    """Takes writes, notes them, and answers as told."""

    def __init__(self, answer=lambda views, offset: sum(len(view) for view in views)):
        self.calls = []
        self._answer = answer

    def __call__(self, views, offset):
        self.calls.append((offset, b"".join(views)))
        return self._answer(views, offset)


# ---- what belongs together ----------------------------------------------------------------------


def test_what_follows_is_written_by_one_call(part_of):
    disk = Disk()
    first, *others = [part_of(n) for n in range(4)]
    run = CoalescedWrite(first, disk, Box())
    assert [run.add(part) for part in others] == [True] * 3
    assert not any(run.try_remove(part) for part in (first, *others))
    assert work_off(run) == [(part.sink, BLOCK) for part in (first, *others)]
    assert disk.calls == [(0, b"".join(bytes([n]) * BLOCK for n in range(4)))]


@pytest.mark.parametrize("number", [0, 2, 3], ids=["the same place", "a gap", "a larger gap"])
def test_what_does_not_follow_is_not_added(part_of, number):
    disk = Disk()
    run = CoalescedWrite(part_of(0), disk, Box())
    assert not run.add(part_of(number))
    assert len(work_off(run)) == 1


def test_a_run_is_no_larger_than_a_thread_should_be_busy_with(part_of):
    half = tuning.COALESCED_BYTES_MAX // 2
    run = CoalescedWrite(part_of(0, half), Disk(), Box())
    assert run.add(part_of(half // BLOCK, half))
    assert not run.add(part_of(tuning.COALESCED_BYTES_MAX // BLOCK))
    many = CoalescedWrite(part_of(0), Disk(), Box())
    assert [many.add(part_of(n)) for n in range(1, tuning.COALESCED_WRITES_MAX + 1)] == [True] * (
        tuning.COALESCED_WRITES_MAX - 1
    ) + [False]


# ---- results ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "together", [-errno.EIO, 0, BLOCK, 2 * BLOCK - 512, ValueError("odd")], ids=lambda value: repr(value)
)
def test_where_one_call_fails_or_falls_short_each_is_written_by_itself(part_of, together):
    """The one at fault alone has the error, and those beside it are whole."""

    def answer(views, offset):
        if len(views) > 1:
            return together
        return -errno.ENOSPC if offset == BLOCK else BLOCK

    disk = Disk(answer)
    run = CoalescedWrite(part_of(0), disk, Box())
    run.add(part_of(1))
    run.add(part_of(2))
    assert [result for _, result in work_off(run)] == [BLOCK, -errno.ENOSPC, BLOCK]
    assert [offset for offset, _ in disk.calls] == [0, 0, BLOCK, 2 * BLOCK]


def test_where_there_is_no_memory_for_all_each_is_written_by_itself(part_of):
    def answer(views, offset):
        if len(views) > 1:
            raise MemoryError
        return BLOCK

    run = CoalescedWrite(part_of(0), Disk(answer), Box())
    run.add(part_of(1))
    assert [result for _, result in work_off(run)] == [BLOCK] * 2


def test_one_alone_is_written_once_whatever_comes_of_it(part_of):
    disk = Disk(lambda _views, _offset: -errno.EIO)
    assert [result for _, result in work_off(CoalescedWrite(part_of(3), disk, Box()))] == [-errno.EIO]
    assert disk.calls == [(3 * BLOCK, bytes([3]) * BLOCK)]


# ---- a worker that comes at any moment ----------------------------------------------------------


class Watched(collections.deque):
    """Calls back before each of its steps."""

    before = None

    def _step(self):
        if self.before is not None:
            before, self.before = self.before, None
            before()

    def append(self, item):
        self._step()
        super().append(item)

    def popleft(self):
        self._step()
        return super().popleft()

    def remove(self, item):
        self._step()
        super().remove(item)


def test_what_a_worker_did_not_see_is_taken_back(part_of):
    """The worker comes between the loop's look and its addition."""
    run = CoalescedWrite(part_of(0), Disk(), Box())
    run._parts = parts = Watched(run._parts)
    parts.before = lambda: worked.extend(work_off(run))
    worked = []
    second = part_of(1)
    assert run.add(second)
    assert len(worked) == 1
    assert run.try_remove(second)
    assert not run.try_remove(second)
    assert not run.add(part_of(2))


@pytest.mark.parametrize("already", range(3))
def test_a_part_goes_to_the_worker_or_back_but_never_to_both(part_of, already):
    """The loop looks for the last of three while the worker, who has some ``already``, empties the run."""
    run = CoalescedWrite(part_of(0), disk := Disk(), Box())
    run.add(part_of(1))
    run.add(last := part_of(2))
    run._parts = parts = Watched(run._parts)
    back = []
    steps = []

    def look():
        if len(steps) < already:
            steps.append("not yet")
            parts.before = look
        else:
            back.append(run.try_remove(last))

    parts.before = look
    worked = work_off(run)
    assert back == [True]
    assert [offset for offset, _ in disk.calls] == [0]
    assert [result for _, result in worked] == [BLOCK] * 2


def test_what_the_worker_has_is_not_taken_back(part_of):
    run = CoalescedWrite(first := part_of(0), Disk(), Box())
    run.add(second := part_of(1))
    work_off(run)
    assert not run.try_remove(first)
    assert not run.try_remove(second)


def test_a_look_that_the_worker_disturbs_is_made_again(part_of):
    """``deque.remove`` gives up when the deque changes meanwhile."""
    run = CoalescedWrite(part_of(0), Disk(), Box())
    run.add(last := part_of(1))
    run._parts = parts = Watched(run._parts)
    run._taken = True

    def disturb():
        raise IndexError("deque mutated during remove().")

    parts.before = disturb
    assert run.try_remove(last)


def test_a_handler_that_writes_in_the_middle_of_an_addition_moves_no_byte(part_of):
    """Its part comes before the one that it struck, and follows it in the file."""
    disk = Disk()
    run = CoalescedWrite(part_of(0), disk, Box())
    run._parts = parts = Watched(run._parts)
    parts.before = lambda: added.append(run.add(part_of(2)))
    added = []
    assert run.add(part_of(1))
    assert added == [True]
    assert [result for _, result in work_off(run)] == [BLOCK] * 3
    assert sorted(disk.calls) == [(n * BLOCK, bytes([n]) * BLOCK) for n in range(3)]


def test_a_handler_that_raises_in_the_middle_of_an_addition_moves_no_byte(part_of):
    """What it struck is not written, and what is added after that goes to its own place."""

    def strike():
        raise KeyboardInterrupt

    disk = Disk()
    run = CoalescedWrite(part_of(0), disk, Box())
    run._parts = parts = Watched(run._parts)
    parts.before = strike
    with pytest.raises(KeyboardInterrupt):
        run.add(part_of(1))
    assert run.add(part_of(2))
    assert [result for _, result in work_off(run)] == [BLOCK] * 2
    assert sorted(disk.calls) == [(n * BLOCK, bytes([n]) * BLOCK) for n in (0, 2)]


# ---- in the engine ------------------------------------------------------------------------------


@pytest.fixture
async def engine(store_path):
    fd = os.open(store_path, os.O_RDWR | os.O_CREAT, 0o600)
    pool = BufferPool(BLOCK, None, asked=0)
    opened = PreadEngine(
        asyncio.get_running_loop(), fd, pool=pool, direct_io=False, memory_align=1, reason=""
    )
    yield opened
    await opened.close()
    os.close(fd)


class Gate:
    """Keeps every thread of the pool busy until it is opened; notes the writes that come then."""

    def __init__(self, engine, write=None):
        self.calls = []
        self._real = pick_calls().writev
        self._then = write or self._real
        self._open = threading.Event()
        self._busy = threading.Semaphore(0)
        engine._calls = engine._calls._replace(writev=self._write)
        self.held = [
            engine.write(2 * n * BLOCK, frames(b"h")) for n in range(100, 100 + tuning.PREAD_THREADS_MAX)
        ]
        for _ in self.held:
            self._busy.acquire()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._open.set()

    def _write(self, fd, views, offset):
        if offset >= 200 * BLOCK:
            self._busy.release()
            self._open.wait()
            return self._real(fd, views, offset)
        self.calls.append((offset, len(views)))
        return self._then(fd, views, offset)


def frames(*chunks):
    return [frame_of(chunk, len(chunk), writable=False, pool=None) for chunk in chunks]


async def test_while_all_threads_are_busy_what_follows_waits_for_one_of_them(engine):
    with Gate(engine) as gate:
        written = [engine.write(n * BLOCK, frames(bytes([n]) * BLOCK)) for n in range(4)]
        apart = engine.write(6 * BLOCK, frames(b"\6" * BLOCK))
        assert engine.in_flight == tuning.PREAD_THREADS_MAX + 5
    assert [await each for each in gate.held] == [1] * tuning.PREAD_THREADS_MAX
    assert [await each for each in (*written, apart)] == [BLOCK] * 5
    assert sorted(gate.calls) == [(0, 4), (6 * BLOCK, 1)]
    assert os.pread(engine._fd, 4 * BLOCK, 0) == b"".join(bytes([n]) * BLOCK for n in range(4))
    assert (engine.counters.writes, engine.counters.bytes_written) == (
        tuning.PREAD_THREADS_MAX + 5,
        5 * BLOCK + tuning.PREAD_THREADS_MAX,
    )


async def test_what_a_thread_did_not_see_is_written_all_the_same(engine):
    with Gate(engine) as gate:
        first = engine.write(0, frames(b"a" * BLOCK))
        run = engine._queue.get()
        run._parts = parts = Watched(run._parts)

        def a_thread_comes():
            run.work()
            run.post()

        parts.before = a_thread_comes
        second = engine.write(BLOCK, frames(b"b" * BLOCK))
        assert engine._run is not run
    assert [await first, await second] == [BLOCK] * 2
    assert gate.calls == [(0, 1), (BLOCK, 1)]


async def test_a_run_that_was_not_queued_is_not_added_to(engine, monkeypatch):
    """No thread would take it, and a close would wait for ever."""

    class Full:
        def put(self, _job):
            raise MemoryError

    assert await engine.write(8 * BLOCK, frames(b"c" * BLOCK)) == BLOCK  # its thread is there
    jobs = engine._queue
    monkeypatch.setattr(engine, "_queue", Full())
    with pytest.raises(MemoryError):
        engine.write(0, frames(b"a" * BLOCK))
    monkeypatch.setattr(engine, "_queue", jobs)
    assert await engine.write(BLOCK, frames(b"b" * BLOCK)) == BLOCK


async def test_no_write_is_delayed_for_another(engine):
    """It is made although the loop does nothing more."""
    made = threading.Event()
    real = engine._calls.writev

    def write(fd, views, offset):
        made.set()
        return real(fd, views, offset)

    engine._calls = engine._calls._replace(writev=write)
    written = engine.write(0, frames(b"x" * BLOCK))
    assert made.wait(60)
    assert await written == BLOCK


async def test_an_error_of_one_keeps_no_view_of_its_neighbours(engine):
    """An error may be kept long, and its traceback refers to the callers' stack frames."""

    def write(_fd, views, _offset):
        raise ValueError(f"odd: {len(views)}")

    memory = [bytearray(BLOCK), bytearray(BLOCK)]
    with Gate(engine, write) as gate:
        written = [engine.write(n * BLOCK, frames(each)) for n, each in enumerate(memory)]
    errors = []
    for each in written:
        with pytest.raises(ValueError, match="odd: 1") as caught:
            await each
        errors.append(caught.value)
    assert gate.calls == [(0, 2), (0, 1), (BLOCK, 1)]
    del written, each, caught
    gc.collect()
    for each in memory:
        each.clear()  # refused while anything views it
    assert len(errors) == 2


async def test_a_run_keeps_no_frame_when_its_writes_are_done(engine):
    """Also the newest, which the engine still knows."""

    class Memory(bytearray):
        """Can be weakly referenced."""

    memory = Memory(b"m" * BLOCK)
    gone = weakref.ref(memory)
    assert await engine.write(0, frames(memory)) == BLOCK
    del memory
    gc.collect()
    assert gone() is None


async def test_many_writes_beside_one_another_are_each_made_once(engine, monkeypatch):
    """Threads come at any moment: 2,000 writes, each in its place."""
    made = []
    real = engine._calls.writev

    def write(fd, views, offset):
        made.append(sum(len(view) for view in views))
        return real(fd, views, offset)

    monkeypatch.setattr(tuning, "COALESCED_BYTES_MAX", 8 * BLOCK)
    engine._calls = engine._calls._replace(writev=write)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        written = []
        for number in range(2000):
            content = number.to_bytes(4, "big") * (BLOCK // 4)
            written.append(engine.write(number * BLOCK, frames(content)))
            if number % 7 == 0:
                await asyncio.sleep(0)
        assert [await each for each in written] == [BLOCK] * 2000
    finally:
        sys.setswitchinterval(interval)
    for number in range(2000):
        assert os.pread(engine._fd, BLOCK, number * BLOCK) == number.to_bytes(4, "big") * (BLOCK // 4)
    assert sum(made) == 2000 * BLOCK
    assert engine.in_flight == 0
