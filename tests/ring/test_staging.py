"""Operations staged one by one into sinks: none is lost or ends twice, whatever the sinks do when they end."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import os
from pathlib import Path

import pytest

from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.slab import Slab
from uringblob.ring import Opcode, ops, submission
from uringblob.wait import Wait

_spec = importlib.util.spec_from_file_location("ring_faulty", Path(__file__).with_name("faulty.py"))
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
FaultyLib = _module.FaultyLib

READ = int(Opcode.READ)
BLOCK = 4096


class Noting:
    """A sink that notes what it got, and then does what a test says."""

    light = False

    def __init__(self, then=None):
        self.keep = None
        self.got = []
        self.then = then

    def complete(self, result, mismatch=0):
        self.got.append((result, mismatch))
        if self.then is not None and len(self.got) == 1:
            self.then()


@pytest.fixture
def staging(ring, file):
    """A ring without a loop, with the file registered."""
    ring.register_files([file])
    return ring


@pytest.fixture
async def loop_staging(loop_ring, file):
    loop_ring.register_files([file])
    return loop_ring


def stage(ring, sink, block=0, *, frame=None, want=None):
    """Stage a read of that block."""
    frame = Slab(BLOCK, 1).frame(0) if frame is None else frame
    sink.keep = frame
    check = want is not None
    return ring.stage(sink, READ, 0, 0, frame.address, block * BLOCK, BLOCK, check, want or 0)


def stage_all(ring, sinks):
    """Stage a read for each sink, submitting where there is no room."""
    for sink in sinks:
        while stage(ring, sink) < 0:
            ring.flush()


def flush_until(ring, done):
    while not done():
        ring.flush()


def once(sinks):
    return [sink.got for sink in sinks] == [[(BLOCK, 0)]] * len(sinks)


# ---- room -----------------------------------------------------------------------------------------


def test_what_finds_no_room_was_not_staged_and_leaves_nothing(staging):
    sinks = [Noting() for _ in range(9)]
    assert [stage(staging, sink) for sink in sinks] == [*range(1, 9), -errno.EAGAIN]
    assert set(staging._in_flight.table.values()) == set(sinks[:8])
    flush_until(staging, lambda: not staging.in_flight)
    assert once(sinks[:8])
    assert sinks[8].got == []


def test_no_more_is_staged_than_may_be_in_flight(staging):
    staging._queue.in_flight_max = 3
    sinks = [Noting() for _ in range(4)]
    assert [stage(staging, sink) for sink in sinks] == [1, 2, 3, -errno.EAGAIN]
    staging.push()
    assert stage(staging, sinks[3]) == -errno.EAGAIN
    flush_until(staging, lambda: not staging.in_flight)
    assert stage(staging, sinks[3]) == 1
    flush_until(staging, lambda: not staging.in_flight)
    assert once(sinks)


def test_what_is_queued_beside_it_is_submitted_behind_it(staging):
    opcodes = []
    staging.trace = lambda batch: opcodes.extend(traced.op.opcode for traced in batch)
    nops = [staging.nop() for _ in range(7)]
    sinks = [Noting() for _ in range(3)]
    assert [stage(staging, sink) for sink in sinks] == [1, 2, 3]
    assert staging.in_flight == 10
    flush_until(staging, lambda: not staging.in_flight)
    assert opcodes == [READ] * 3 + [int(Opcode.NOP)] * 7
    assert once(sinks)
    assert [nop.result() for nop in nops] == [0] * 7


async def test_what_is_staged_in_one_tick_is_submitted_at_its_end_by_one_enter(loop_staging):
    before = loop_staging.enters
    waits = [Wait(asyncio.get_running_loop()) for _ in range(5)]
    for block, wait in enumerate(waits):
        stage(loop_staging, wait, block)
    assert loop_staging.in_kernel == 0
    for wait in waits:
        await wait
    assert [wait.got for wait in waits] == [BLOCK] * 5
    assert loop_staging.enters == before + 1
    await asyncio.sleep(0)  # this task was resumed inside the reaping
    assert loop_staging.in_flight == 0


def test_a_closing_ring_stages_nothing(staging):
    staging.close()
    with pytest.raises(RuntimeError, match="closed"):
        stage(staging, Noting())


@pytest.mark.parametrize(("wrong", "mismatch"), [(0, False), (1, True)])
def test_a_mismatch_comes_with_the_result(staging, wrong, mismatch):
    sink = Noting()
    want = frame_checksum(memoryview(bytes([3]) * BLOCK)) ^ wrong
    assert stage(staging, sink, 3, want=want) == 1
    flush_until(staging, lambda: sink.got)
    ((result, found),) = sink.got
    assert (result, bool(found)) == (BLOCK, mismatch)


# ---- reaping inside the reaping -------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 3, 7])
@pytest.mark.parametrize("inner", ["flush", "reap", "wait"])
def test_a_sink_that_reaps_itself_loses_nothing_and_ends_nothing_twice(staging, at, inner):
    """What a task does that was resumed there: it reads on, and may flush, close or block."""
    late = []

    def then():
        late.append(Noting())
        stage_all(staging, [late[-1]])
        if inner == "flush":
            staging.flush()
        elif inner == "reap":
            staging.push()
            staging._in_flight.reap()
        else:
            staging.wait(staging.nop())

    sinks = [Noting(then if number == at else None) for number in range(8)]
    stage_all(staging, sinks)
    flush_until(staging, lambda: not staging.in_flight)
    for sink in (*sinks, *late):
        assert set(sink.got) == {(BLOCK, 0)}
    # The one in whose end it was reaped may be ended again; that is idempotent in every sink.
    assert once([sink for number, sink in enumerate(sinks) if number != at] + late)
    assert not staging._in_flight.table


def test_reapings_as_deep_as_there_are_completions_end_each_once(staging):
    """Each sink reaps: the rest of every array is another one's."""
    ended = []

    class Reaping(Noting):
        def complete(self, result, mismatch=0):
            if self.got:
                return
            super().complete(result, mismatch)
            ended.append(self)
            staging.flush()

    sinks = [Reaping() for _ in range(40)]
    stage_all(staging, sinks)
    flush_until(staging, lambda: not staging.in_flight)
    assert sorted(map(id, ended)) == sorted(map(id, sinks))
    assert not staging._in_flight.table


async def test_tasks_resumed_in_the_reaping_read_on_and_flush_and_each_gets_its_own(loop_staging):
    """Depth 12 on 8 entries: where nothing can be staged, the queue takes it."""
    loop, frames = asyncio.get_running_loop(), Slab(BLOCK, 12)
    queued = []

    async def read(frame, block):
        wait = Wait(loop)
        if stage(loop_staging, wait, block, frame=frame) < 0:
            queued.append(block)
            await loop_staging.read(0, block * BLOCK, frame, flags=1)  # IOSQE_FIXED_FILE
        else:
            await wait
            assert wait.got == BLOCK
        assert frame.view[0] == frame.view[-1] == block

    async def reader(number):
        for turn in range(50):
            await read(frames.frame(number), (number * 7 + turn) % 16)
            if turn % 3 == number % 3:
                loop_staging.flush()
            if turn % 5 == 0:
                loop_staging._in_flight.reap()

    await asyncio.gather(*(reader(number) for number in range(12)))
    assert queued
    assert loop_staging.in_flight == 0
    assert not loop_staging._in_flight.table


def test_a_reaping_that_an_exception_ends_goes_on_with_the_rest(staging):
    """A signal handler's, in one sink; the array was not consumed, and the next reaping begins with it."""

    def strike():
        raise KeyboardInterrupt

    sinks = [Noting(strike if number == 3 else None) for number in range(8)]
    stage_all(staging, sinks)
    with pytest.raises(KeyboardInterrupt):
        flush_until(staging, lambda: not staging.in_flight)
    flush_until(staging, lambda: not staging.in_flight)
    assert once(sinks[:3] + sinks[4:])
    assert sinks[3].got == [(BLOCK, 0)] * 2


# ---- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [-errno.EAGAIN, -errno.EBUSY, -errno.EINTR])
def test_a_transient_refusal_leaves_it_staged(staging, answer):
    faulty = FaultyLib(staging, pushes=[answer, 2, answer])
    sinks = [Noting() for _ in range(5)]
    stage_all(staging, sinks)
    staging.push()
    assert staging._c_ring.staged == 5
    staging.push()
    assert staging._c_ring.staged == 3
    flush_until(staging, lambda: not staging.in_flight)
    assert once(sinks)
    assert not faulty.pushes


async def test_what_the_kernel_does_not_take_is_submitted_by_the_loop(loop_staging):
    FaultyLib(loop_staging, pushes=[-errno.EAGAIN, -errno.EAGAIN, 1])
    waits = [Wait(asyncio.get_running_loop()) for _ in range(4)]
    for wait in waits:
        stage(loop_staging, wait)
    loop_staging.push()
    for wait in waits:
        await wait
    assert [wait.got for wait in waits] == [BLOCK] * 4


def test_any_other_refusal_ends_what_is_staged_with_it(staging):
    FaultyLib(staging, pushes=[-errno.EFAULT])
    sinks = [Noting() for _ in range(5)]
    stage_all(staging, sinks)
    staging.push()
    assert [sink.got for sink in sinks] == [[(-errno.EFAULT, 0)]] * 5
    assert (staging.in_flight, staging._c_ring.staged) == (0, 0)
    assert not staging._in_flight.table
    sinks = [Noting() for _ in range(8)]
    stage_all(staging, sinks)
    flush_until(staging, lambda: not staging.in_flight)
    assert once(sinks)


def test_what_a_sink_asks_for_while_staged_ones_are_given_up_is_not_given_up_with_them(staging):
    """It finds no room to stage, and is queued: it would be withdrawn without an end."""
    asked = []

    def then():
        late = Noting()
        asked.append((stage(staging, late), staging.nop()))

    FaultyLib(staging, pushes=[-errno.EFAULT])
    sinks = [Noting(then) for _ in range(3)]
    stage_all(staging, sinks)
    staging.push()
    assert [staged for staged, _ in asked] == [-errno.EAGAIN] * 3
    assert [staging.wait(nop) for _, nop in asked] == [0] * 3
    assert staging._queue.in_flight_max == 16


@pytest.mark.parametrize("call", ["push", "flush", "nop"])
def test_what_is_being_given_up_is_not_submitted_by_a_sink_that_submits(staging, call):
    """Its memory is let go of already: the kernel would write to whatever lies there by then."""

    def then():
        if call == "nop":
            staging.submit([ops.nop()], submit=True)[0]
        else:
            getattr(staging, call)()

    FaultyLib(staging, pushes=[-errno.EFAULT])
    sinks = [Noting(then) for _ in range(4)]
    stage_all(staging, sinks)
    staging.push()
    assert [sink.got[0] for sink in sinks] == [(-errno.EFAULT, 0)] * 4
    assert staging._c_ring.staged == 0
    flush_until(staging, lambda: not staging.in_flight)
    assert staging._c_ring.accepted == (4 if call == "nop" else 0)


@pytest.mark.parametrize("call", ["push", "flush", "nop"])
def test_giving_up_that_a_handler_interrupts_is_done_again_and_nothing_of_it_is_submitted(staging, call):
    def strike():
        raise KeyboardInterrupt

    FaultyLib(staging, pushes=[-errno.EFAULT])
    sinks = [Noting(strike if number == 2 else None) for number in range(4)]
    stage_all(staging, sinks)
    with pytest.raises(KeyboardInterrupt):
        staging.push()
    if call == "nop":
        assert staging.wait(staging.submit([ops.nop()], submit=True)[0]) == 0
    else:
        getattr(staging, call)()
    assert {result for sink in sinks for result in sink.got} == {(-errno.EFAULT, 0)}
    assert all(sink.got for sink in sinks)
    assert staging._c_ring.accepted == (call == "nop")
    last = Noting()
    assert stage(staging, last) == 1
    flush_until(staging, lambda: last.got)
    assert once([last])


def test_after_too_many_refusals_staged_and_queued_ones_end_with_the_errno(staging, monkeypatch):
    monkeypatch.setattr(submission, "REFUSALS_MAX", 3)
    FaultyLib(staging, script=[-errno.EBUSY] * 100, pushes=[-errno.EBUSY] * 100)
    sinks = [Noting() for _ in range(3)]
    stage_all(staging, sinks)
    assert staging.wait(staging.nop()) == -errno.EBUSY
    assert [sink.got for sink in sinks] == [[(-errno.EBUSY, 0)]] * 3
    assert staging.in_flight == 0


async def test_after_too_many_refusals_the_loop_gives_up_what_is_staged_alone(loop_staging, monkeypatch):
    monkeypatch.setattr(submission, "REFUSALS_MAX", 3)
    FaultyLib(loop_staging, pushes=[-errno.EAGAIN] * 100)
    wait = Wait(asyncio.get_running_loop())
    stage(loop_staging, wait)
    await wait
    assert wait.got == -errno.EAGAIN
    await asyncio.sleep(0)  # this task was resumed inside the giving up
    assert loop_staging.in_flight == 0


# ---- the trace ------------------------------------------------------------------------------------


def test_the_trace_has_each_when_the_kernel_took_it_in_order(staging):
    batches = []
    staging.trace = lambda batch: batches.append([traced.op.offset // BLOCK for traced in batch])
    FaultyLib(staging, pushes=[2, -errno.EAGAIN])
    for block in range(5):
        stage(staging, Noting(), block)
    assert batches == []
    staging.push()
    assert batches == [[0, 1]]
    staging.push()
    assert batches == [[0, 1]]
    stage(staging, Noting(), 5)
    staging.push()
    assert batches == [[0, 1], [2, 3, 4, 5]]
    flush_until(staging, lambda: not staging.in_flight)


def test_what_is_given_up_is_not_in_the_trace(staging):
    batches = []
    staging.trace = batches.append
    FaultyLib(staging, pushes=[-errno.EFAULT])
    stage(staging, Noting())
    staging.push()
    assert batches == []
    stage(staging, Noting(), 9)
    staging.push()
    ((traced,),) = batches
    assert traced.op.offset == 9 * BLOCK
    flush_until(staging, lambda: not staging.in_flight)


# ---- memory ---------------------------------------------------------------------------------------


def test_a_sink_and_its_memory_live_until_the_end(ring, pipe):
    """The table holds the sink, and the sink the memory, although nobody else does."""
    reader, writer = pipe
    ring.register_files([reader])
    frame, got = Slab(BLOCK, 1).frame(0), []

    class Sink(Noting):
        def complete(self, result, mismatch=0):
            got.append(bytes(self.keep.view[:result]))

    stage(ring, Sink(), frame=frame)
    del frame
    ring.push()
    os.write(writer, b"late")
    flush_until(ring, lambda: got)
    assert got == [b"late"]
