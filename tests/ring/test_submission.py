"""Every operation reaches the kernel exactly once, chains whole, whatever the kernel answers."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
from pathlib import Path

import pytest

from uringblob.ring import Op, Opcode, SqeFlags, ops

_spec = importlib.util.spec_from_file_location("ring_faulty", Path(__file__).with_name("faulty.py"))
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
FaultyLib = _module.FaultyLib

NOP = ops.nop()


def trace_lengths(ring):
    lengths = []
    ring.trace = lambda batch: lengths.append(len(batch))
    return lengths


async def test_one_tick_is_one_enter(loop_ring):
    before = loop_ring.enters
    completions = [loop_ring.nop() for _ in range(8)]
    assert await asyncio.gather(*completions) == [0] * 8
    assert loop_ring.enters == before + 1


async def test_more_requests_than_the_queue_is_deep(loop_ring):
    lengths = trace_lengths(loop_ring)
    assert await asyncio.gather(*(loop_ring.nop() for _ in range(1000))) == [0] * 1000
    assert sum(lengths) == 1000
    assert max(lengths) == 8
    assert loop_ring.in_flight == 0


def test_more_in_flight_than_the_completion_queue_holds_waits_its_turn(ring, pipe):
    reader, writer = pipe
    frame = _one_byte()
    reads = [ring.read(reader, 0, frame) for _ in range(100)]
    ring.flush()
    stats = ring.stats()
    assert (stats.submitted, stats.waiting, stats.in_flight) == (16, 84, 100)
    import os

    os.write(writer, b"x" * 100)
    assert [ring.wait(read) for read in reads] == [1] * 100
    assert ring.in_flight == 0


def test_a_completion_queue_that_overflows_loses_nothing(ring, pipe):
    ring._queue.in_flight_max = 1000  # normally the queue's size, so that this cannot happen
    nops = [ring.nop() for _ in range(100)]
    ring._queue.flush()
    assert ring.stats().submitted == 100
    assert ring.stats().cq_entries == 16
    assert [ring.wait(nop) for nop in nops] == [0] * 100


def test_a_chain_goes_into_one_submission_whole(ring):
    lengths = trace_lengths(ring)
    singles = [ring.nop() for _ in range(5)]
    chained = ring.chain(NOP, NOP, NOP, NOP)
    assert [ring.wait(each) for each in singles + chained] == [0] * 9
    assert lengths == [5, 4]


def test_a_chain_as_long_as_the_queue_waits_until_it_fits(ring, pipe):
    import os

    reader, writer = pipe
    held = [ring.read(reader, 0, _one_byte()) for _ in range(9)]
    chained = ring.chain(*[NOP] * 8)
    ring.flush()
    assert not any(each.done() for each in chained)
    assert ring.stats().waiting == 8
    os.write(writer, b"x")
    assert [ring.wait(each) for each in chained] == [0] * 8
    os.write(writer, b"x" * 8)
    assert [ring.wait(each) for each in held] == [1] * 9


def test_a_chain_longer_than_the_queue_is_refused_and_nothing_is_queued(ring):
    with pytest.raises(ValueError, match="chain of more than 8"):
        ring.chain(*[NOP] * 9)
    assert ring.in_flight == 0


def test_a_link_to_nothing_is_refused(ring):
    with pytest.raises(ValueError, match="none follows"):
        ring.submit([NOP, NOP.link()])
    assert ring.in_flight == 0


@pytest.mark.parametrize("number", [{"offset": -1}, {"length": -1}, {"length": 2**32}, {"buf_index": -1}])
def test_numbers_out_of_range_are_refused_and_nothing_is_queued(ring, number):
    with pytest.raises(ValueError, match="out of range"):
        ring.submit([NOP, Op(Opcode.READ, **number)])
    assert ring.in_flight == 0
    assert not ring._in_flight.table


@pytest.mark.parametrize("answer", [-errno.EINTR, -errno.EAGAIN, -errno.EBUSY, 0])
def test_a_transient_refusal_is_retried(ring, answer):
    FaultyLib(ring, [answer, 3, answer])
    nops = [ring.nop() for _ in range(8)]
    assert [ring.wait(nop) for nop in nops] == [0] * 8
    assert ring.stats().submitted == 8


@pytest.mark.parametrize("answer", [-errno.EAGAIN, -errno.EBUSY])
async def test_a_transient_refusal_is_retried_by_the_loop(loop_ring, answer):
    FaultyLib(loop_ring, [answer, 1, answer, 2, answer])
    assert await asyncio.gather(*(loop_ring.nop() for _ in range(20))) == [0] * 20
    assert loop_ring.stats().submitted == 20


def test_a_kernel_that_takes_fewer_gets_the_rest_later_each_once(ring):
    faulty = FaultyLib(ring, [1, 2, 3])
    nops = [ring.nop() for _ in range(20)]
    assert [ring.wait(nop) for nop in nops] == [0] * 20
    assert [len(batch) for batch in faulty.batches[:3]] == [1, 2, 3]
    assert sum(len(batch) for batch in faulty.batches) == 20


def test_the_rest_of_a_chain_that_the_kernel_split_is_cancelled(ring):
    """Sent by itself it would no longer wait for its first half: an fsync could overtake its write."""
    faulty = FaultyLib(ring, [2])
    first, second, third = ring.chain(NOP, ops.nop(flags=SqeFlags.ASYNC), ops.fsync(-1))
    after = ring.nop()
    assert ring.wait(after) == 0
    assert [ring.wait(each) for each in (first, second, third)] == [0, 0, -errno.ECANCELED]
    assert [len(batch) for batch in faulty.batches] == [2, 1]
    assert ring.in_flight == 0


def test_of_a_long_chain_all_that_was_left_is_cancelled_and_nothing_behind_it(ring):
    faulty = FaultyLib(ring, [1])
    chain = ring.chain(NOP, NOP, NOP, NOP)
    after = ring.nop()
    assert ring.wait(after) == 0
    assert [ring.wait(each) for each in chain] == [0] + [-errno.ECANCELED] * 3
    assert [len(batch) for batch in faulty.batches] == [1, 1]
    assert ring.chains_split == 1


def test_giving_up_that_a_handler_interrupts_is_repeated_and_ends_each_once(ring):
    """Operations completed before the exception keep their result; the rest gets it the second time."""
    FaultyLib(ring, [-errno.EPERM, -errno.EPERM])
    real, completed = ring._queue._complete, []

    def complete(user_data, result):
        real(user_data, result)
        completed.append(user_data)
        if len(completed) == 2:
            raise KeyboardInterrupt

    ring._queue._complete = complete
    nops = [ring.nop() for _ in range(5)]
    with pytest.raises(KeyboardInterrupt):
        ring.flush()
    assert [nop.done() for nop in nops] == [True, True, False, False, False]
    assert [ring.wait(nop) for nop in nops] == [-errno.EPERM] * 5
    assert len(completed) == 7
    assert ring.in_flight == 0
    assert not ring._in_flight.table


def test_a_kernel_that_refuses_for_good_ends_every_operation_with_its_errno(ring):
    FaultyLib(ring, [-errno.EPERM])
    nops = [ring.nop() for _ in range(20)]
    assert [ring.wait(nop) for nop in nops] == [-errno.EPERM] * 20
    assert ring.wait(ring.nop()) == 0


def test_an_exception_in_the_middle_of_submitting_neither_loses_nor_repeats(ring):
    """A signal handler may raise between the kernel's answer and Python's notice of it."""
    faulty = FaultyLib(ring)
    real = faulty.ub_submit

    def struck(core, packed, count):
        faulty.ub_submit = real
        real(core, packed, count)
        raise KeyboardInterrupt

    faulty.ub_submit = struck
    nops = [ring.nop() for _ in range(12)]
    with pytest.raises(KeyboardInterrupt):
        ring.wait(nops[0])
    assert [ring.wait(nop) for nop in nops] == [0] * 12
    assert ring.stats().submitted == 12


def test_operations_queued_between_staging_and_the_next_flush_keep_their_order(ring):
    FaultyLib(ring, [0, 1, 0])
    seen = []
    assert ring.trace is None
    ring.trace = lambda batch: seen.extend(traced.user_data for traced in batch)
    nops = []
    for _ in range(6):
        nops.append(ring.nop())
        ring.flush()
    assert [ring.wait(nop) for nop in nops] == [0] * 6
    assert seen == sorted(seen)
    assert len(seen) == 6


def _one_byte():
    from uringblob.buffers.slab import Slab

    return Slab(4096, 1).frame(0).part(0, 1)


def without_memory_once(ring, monkeypatch):
    """Let the next submission find no memory for what it hands to the kernel."""
    queue = ring._queue
    real, failed = type(queue)._enter, []

    def enter(self, packed):
        if not failed:
            failed.append(len(packed))
            raise MemoryError("for a submission")
        return real(self, packed)

    monkeypatch.setattr(type(queue), "_enter", enter)
    return failed


async def test_a_flush_that_a_signal_handler_drops_is_made_by_the_second_call(loop_ring, monkeypatch):
    """A handler that raises before the first line of a callback ends it; later operations are flushed, too."""
    loop = asyncio.get_running_loop()
    real, dropped = loop.call_soon, []

    def call_soon(callback, *args, **context):
        if callback == loop_ring._flush_if_due and not dropped:
            dropped.append(callback)
            return None
        return real(callback, *args, **context)

    monkeypatch.setattr(loop, "call_soon", call_soon)
    assert await loop_ring.nop() == 0
    assert dropped
    assert await loop_ring.nop() == 0


@pytest.mark.parametrize("way", ["one", "many"])
async def test_what_there_is_no_memory_for_now_is_submitted_at_the_ticks_end(
    loop_ring, pipe, monkeypatch, way
):
    """It is queued: a caller that takes it for failed reuses its memory and its slot."""
    failed = without_memory_once(loop_ring, monkeypatch)
    if way == "many":
        completions = loop_ring.submit([NOP, NOP], submit=True)
    else:
        completions = [loop_ring._enqueue(*NOP, submit=True)]
    assert failed == [len(completions)]
    assert not any(completion.done() for completion in completions)
    assert await asyncio.gather(*completions) == [0] * len(completions)
    assert loop_ring.in_flight == 0


def test_without_a_loop_it_is_raised_and_the_next_submission_takes_it_along(ring, monkeypatch):
    without_memory_once(ring, monkeypatch)
    answers = []
    with pytest.raises(MemoryError, match="for a submission"):
        ring.submit([NOP, NOP], submit=True, answers=answers)
    assert len(answers) == 2
    assert [ring.wait(answer) for answer in answers] == [0, 0]
