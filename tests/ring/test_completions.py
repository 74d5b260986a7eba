"""Completions are matched by user_data; no interruption loses or swaps one."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from uringblob import tuning
from uringblob.buffers.slab import Slab
from uringblob.ring import Opcode, Ring, completions


class Struck(Exception):
    """What a test's signal handler raises."""


@pytest.fixture
def alarm():
    """Set SIGALRM's handler and timer; both are put back.

    A handler that raises must raise once: on a busy machine the second beat of a repeating timer
    strikes whatever comes after the test's own ``except``, pytest itself included.
    """
    old = signal.getsignal(signal.SIGALRM)

    def every(seconds, handler, *, again=True):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds if again else 0)

    yield every
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


def test_completions_out_of_order_find_their_own(ring, pipe):
    reader, writer = pipe
    slow = ring.read(reader, 0, Slab(4096, 1).frame(0))
    quick = [ring.nop() for _ in range(5)]
    assert [ring.wait(nop) for nop in quick] == [0] * 5
    assert not slow.done()
    os.write(writer, b"abc")
    assert ring.wait(slow) == 3


def test_a_wait_that_signals_interrupt_waits_on(ring, pipe, alarm):
    reader, writer = pipe
    frame = Slab(4096, 1).frame(0)
    beats = []

    def beat(*_):
        beats.append(1)
        if len(beats) == 20:
            os.write(writer, b"late")

    read = ring.read(reader, 0, frame)
    alarm(0.001, beat)
    assert ring.wait(read) == 4
    assert bytes(frame.view[:4]) == b"late"
    assert len(beats) >= 20


def test_a_handler_that_raises_ends_the_wait_and_nothing_else(ring, pipe, alarm):
    reader, writer = pipe
    frame = Slab(4096, 1).frame(0)

    def strike(*_):
        raise Struck

    read = ring.read(reader, 0, frame)
    with pytest.raises(Struck):
        alarm(0.001, strike, again=False)
        ring.wait(read)
    assert not read.done()
    os.write(writer, b"still")
    assert ring.wait(read) == 5
    assert bytes(frame.view[:5]) == b"still"


@pytest.mark.untraced("its handler raises at any moment")
def test_a_storm_of_raising_handlers_loses_no_completion(file, alarm):
    """Wherever they strike: in asking, submitting, reaping or waiting."""
    ring = Ring(8)
    slab = Slab(4096, 16)
    ring.register_slab(slab)
    armed = []

    def strike(*_):
        if armed:
            armed.clear()
            raise Struck

    asked = []
    done = 0

    def work():
        nonlocal done
        armed.append(1)
        while len(asked) < 16:
            block = len(asked)
            asked.append((block, ring.read_fixed(file, block * 4096, slab.frame(block, 0))))
        while asked:
            block, read = asked[-1]
            assert ring.wait(read) == 4096
            view = slab.frame(block).view
            assert view[0] == view[-1] == block
            asked.pop()
            done += 1
        armed.clear()

    alarm(0.0002, strike)
    strikes = 0
    while done < 10000 or strikes < 200:
        try:
            work()
        except Struck:
            strikes += 1
    ring.close()
    assert ring.in_flight == 0


def test_reaping_that_an_exception_interrupts_starts_over(ring, monkeypatch):
    """A handler raises after half of the batch; the next reaping resolves every completion once."""
    nops = [ring.nop() for _ in range(8)]
    ring._queue.flush()
    table = ring._in_flight.table

    class StruckTable(dict):
        left = 4

        def __delitem__(self, key):
            self.left -= 1
            if not self.left:
                raise Struck
            super().__delitem__(key)

    ring._in_flight.table = StruckTable(table)
    with pytest.raises(Struck):
        ring._reap()
    assert 0 < sum(nop.done() for nop in nops) < 8
    assert ring.in_flight == 8  # none has left the completion queue
    assert [ring.wait(nop) for nop in nops] == [0] * 8
    assert ring.in_flight == 0
    assert not ring._in_flight.table


def every_result_is_one_byte(monkeypatch):
    real = completions._COMPLETION

    class OneByteEach:
        @staticmethod
        def iter_unpack(data):
            return [(user_data, 1, flags) for user_data, _, flags in real.iter_unpack(data)]

    monkeypatch.setattr(completions, "_COMPLETION", OneByteEach)


def test_a_reaping_resolves_a_limited_number_of_bytes(ring, monkeypatch):
    """A reader works on its frame in the same loop iteration; the other completions stay in the queue."""
    nops = [ring.nop() for _ in range(6)]
    ring._queue.flush()
    monkeypatch.setattr(tuning, "COMPLETED_BYTES_AT_ONCE", 2)
    every_result_is_one_byte(monkeypatch)
    for done in (2, 4, 6):
        assert ring._in_flight.reap()
        assert sum(nop.done() for nop in nops) == done
    assert ring._in_flight.reap() == 0
    assert ring.in_flight == 0


class Noting:
    """A sink that notes its results; ``light`` if what it does takes no time."""

    keep = None

    def __init__(self, *, light):
        self.light = light
        self.results = []

    def complete(self, result, mismatch=0):
        self.results.append((result, mismatch))


def test_bytes_of_light_sinks_do_not_count(ring, monkeypatch):
    """They resume nothing, or one for many; each of the others counts."""
    sinks = [Noting(light=light) for light in (True, True, False, False, True, True)]
    for sink in sinks:
        assert ring.stage(sink, Opcode.NOP, 0, 0, 0, 0, 0) > 0
    ring.push()
    monkeypatch.setattr(tuning, "COMPLETED_BYTES_AT_ONCE", 1)
    every_result_is_one_byte(monkeypatch)
    for done in (3, 4, 6):
        assert ring._in_flight.reap()
        assert [sink.results for sink in sinks] == [[(1, 0)]] * done + [[]] * (6 - done)
    assert ring._in_flight.reap() == 0
    assert ring.in_flight == 0


async def test_a_completion_event_comes_again_after_an_interrupted_reaping(loop_ring):
    nops = [loop_ring.nop() for _ in range(8)]
    loop_ring._queue.flush()
    loop_ring._lib.ub_reap(loop_ring._c_ring, 1)  # copied, and interrupted before any is resolved
    assert await asyncio.gather(*nops) == [0] * 8


async def test_cancelling_a_task_waits_for_its_operation(loop_ring, pipe):
    reader, writer = pipe
    frame = Slab(4096, 1).frame(0)

    async def read():
        await loop_ring.read(reader, 0, frame)

    task = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    task.cancel()
    for _ in range(5):
        await loop_ring.nop()
    assert not task.done()
    assert loop_ring.in_flight == 1
    os.write(writer, b"x")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert frame.view[0] == ord("x")
    assert loop_ring.in_flight == 0


def test_memory_lives_until_the_completion(ring, pipe):
    import weakref

    reader, writer = pipe
    freed = {0: "leased"}
    slab = Slab(4096, 1)
    exporter = slab.exporter(0, freed.pop)
    lease = weakref.ref(exporter)
    from uringblob.buffers.iobuf import IoBuffer

    read = ring.read(reader, 0, IoBuffer(memoryview(exporter), slab.address, 4096))
    del exporter
    ring.flush()
    assert lease() is not None
    assert freed
    os.write(writer, b"x")
    assert ring.wait(read) == 1
    assert lease() is None
    assert not freed


def test_waiting_for_what_is_not_this_rings_is_an_error(ring):
    other = Ring(8)
    nop = other.nop()
    with pytest.raises(RuntimeError, match="not of this ring"):
        ring.wait(nop)
    assert other.wait(nop) == 0
    other.close()
