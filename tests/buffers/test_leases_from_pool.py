"""The pool leases each frame to one holder at a time, also where a signal handler interrupts a lease."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import threading

import pytest

from uringblob.buffers.leases import BufferPool
from uringblob.buffers.slab import Slab

SIZE = 4096


def make_pool(count=8, **options):
    return BufferPool(SIZE, Slab(SIZE, count) if count else None, asked=count, **options)


def index_of(pool, buf):
    return (buf.address - pool.slab.address) // SIZE


def test_the_lowest_free_frame_goes_first():
    pool = make_pool()
    bufs = [pool.lease() for _ in range(8)]
    assert [index_of(pool, buf) for buf in bufs] == list(range(8))
    for index in (6, 1, 4):
        bufs[index].release()
    assert [index_of(pool, buf) for buf in [pool.lease(), pool.lease(), pool.lease()]] == [1, 4, 6]


def test_a_thousand_buffers_from_a_pool_of_eight():
    pool = make_pool(8, buf_index=0)
    bufs = [pool.lease() for _ in range(1000)]
    assert len({buf.address for buf in bufs}) == 1000
    assert sum(buf.registered for buf in bufs) == 8 == pool.leased
    for number, buf in enumerate(bufs):
        buf.view[:2] = number.to_bytes(2, "big")
    assert [int.from_bytes(buf.view[:2], "big") for buf in bufs] == list(range(1000))
    bufs.clear()
    del buf
    assert pool.leased == 0


@pytest.mark.parametrize("count", [0, 1])
def test_an_exhausted_pool_leases_from_the_heap(count):
    pool = make_pool(count, buf_index=0)
    bufs = [pool.lease(), pool.lease(zero=True)]
    assert pool.capacity == count == pool.leased
    assert [buf.registered for buf in bufs] == [bool(count), False]
    assert pool.registered is bool(count)
    assert all(buf.address % 4096 == 0 and len(buf) == SIZE for buf in bufs)


def test_capacity_may_be_less_than_the_slab():
    pool = make_pool(8, buf_index=0, capacity=3)
    assert [pool.lease().registered for _ in range(3)] == [True] * 3
    bufs = [pool.lease() for _ in range(5)]
    assert [buf.registered for buf in bufs] == [True] * 3 + [False] * 2


def test_garbage_collection_gives_frames_back():
    pool = make_pool()
    buf = pool.lease()
    cycle = [buf]
    cycle.append(cycle)
    del buf, cycle
    gc.collect()
    assert pool.leased == 0


def test_zeroed_is_zero_on_a_reused_frame_and_uninit_is_left_alone():
    pool = make_pool(1)
    with pool.lease() as buf:
        address = buf.address
        buf.view[:] = b"\xff" * SIZE
    with pool.lease() as buf:
        assert buf.address == address
        assert bytes(buf.view) == b"\xff" * SIZE
    with pool.lease(zero=True) as buf:
        assert buf.address == address
        assert not any(buf.view)


def test_a_retired_pool_is_not_registered_and_its_buffers_stay_memory():
    pool = make_pool(2, buf_index=0)
    buf = pool.lease()
    buf.view[:] = b"k" * SIZE
    pool.retire()
    assert not pool.registered
    assert not buf.registered
    assert bytes(buf.copy().view) == b"k" * SIZE
    del pool
    gc.collect()
    assert bytes(buf.view) == b"k" * SIZE


def test_a_view_outlives_pool_and_buffer():
    view = make_pool(2).lease().view[:]
    gc.collect()
    view[:] = b"v" * SIZE
    assert bytes(view) == b"v" * SIZE


class BrokenSlab(Slab):
    """Fails to make an exporter, before or after there is one."""

    __slots__ = ("after",)

    def exporter(self, index, on_free):
        exporter = super().exporter(index, on_free) if self.after else None
        if self.after == "gone":
            exporter = None
        raise MemoryError(str(exporter)[:10])


@pytest.mark.parametrize("after", [False, True, "gone"])
def test_a_lease_that_fails_loses_no_frame(after):
    slab = BrokenSlab(SIZE, 2)
    slab.after = after
    pool = BufferPool(SIZE, slab, asked=2)
    with pytest.raises(MemoryError):
        pool.lease()
    gc.collect()
    assert pool.leased == 0


def test_the_last_frame_that_goes_to_another_thread_meanwhile_leaves_the_heap():
    """The count said that one was free; when it is looked for, all are taken."""

    class Raced(dict):
        def __len__(self):
            return super().__len__() - 1

    pool = make_pool(1)
    first = pool.lease()
    pool._owners = Raced(pool._owners)
    second = pool.lease()
    assert not second.registered
    assert not pool.slab.address <= second.address < pool.slab.address + SIZE
    assert index_of(pool, first) == 0


def test_threads_never_hold_the_same_frame():
    pool = make_pool(4, buf_index=0)
    failures = []
    start = threading.Barrier(8)

    def hammer(number):
        stamp = bytes([number]) * 8
        start.wait()
        for _ in range(1500):
            bufs = [pool.lease(), pool.lease()]
            for buf in bufs:
                buf.view[:8] = stamp
            if any(bytes(buf.view[:8]) != stamp for buf in bufs):
                failures.append(number)
            bufs.pop().release()
            buf = None

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert pool.leased == 0


class Struck(Exception):
    pass


@pytest.fixture
def itimer():
    """Set and clear the interval timer; the handler is the caller's."""
    before = signal.getsignal(signal.SIGALRM)

    def start(handler, seconds):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)

    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_handler_may_lease_while_it_interrupts_a_lease(itimer):
    pool = make_pool(4, buf_index=0)
    held = []
    doubles = []

    def handler(_signum, _frame):
        buf = pool.lease()
        held.append(buf.address)
        buf.view[:1] = b"h"

    itimer(handler, 0.0005)
    for _ in itertools.takewhile(lambda _: len(held) < 100, itertools.count()):
        first, second = pool.lease(), pool.lease(zero=True)
        if first.address == second.address or second.view[0]:
            doubles.append(first.address)
    signal.setitimer(signal.ITIMER_REAL, 0)
    first = second = None
    assert not doubles
    assert pool.leased == 0


class StrikeAt:
    """Raises before the n-th bytecode that the library executes, as a signal handler might."""

    def __init__(self, number):
        self.left = number

    def __call__(self, frame, event, _argument):
        if f"{os.sep}uringblob{os.sep}" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                raise Struck
        return self


def strike_each_bytecode(action):
    """Do ``action`` repeatedly, interrupted one bytecode later each time; return how often."""
    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # 3.12 looks for this only when tracing is switched on
    for number in itertools.count(1):
        try:
            sys.settrace(StrikeAt(number))
            action()
        except Struck:
            continue
        finally:
            sys.settrace(before)
        return number - 1
    return None


@pytest.mark.parametrize("reused", [False, True])
def test_no_strike_in_a_lease_or_release_loses_a_frame(reused):
    pool = make_pool(4, buf_index=0)
    if reused:
        pool.lease().release()
    leased_after = []

    def lease_and_release():
        leased_after.append(pool.leased)
        buf = pool.lease(zero=True)
        twin = buf.copy()
        twin.view[0] = 1
        twin.release()
        buf.release()

    assert strike_each_bytecode(lease_and_release) > 100
    gc.collect()
    assert set(leased_after) == {0}
    assert pool.leased == 0
