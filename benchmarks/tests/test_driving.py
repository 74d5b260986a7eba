"""What is counted in a turn: calls that end between its beginning and its end, and nothing else."""

from __future__ import annotations

import asyncio
import math
import os
import signal

import pytest

from uringblob_bench import drive, meter
from uringblob_bench.contenders.base import run_on
from uringblob_bench.load import Load, Verb
from uringblob_bench.picker import Exhausted, Picker
from uringblob_bench.sample import Latency

pytestmark = pytest.mark.one_interpreter


class Clock:
    """A clock that only calls move."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(meter, "now", made)
    monkeypatch.setattr(drive, "now", made)
    return made


def drive_calls(clock, durations, *, seconds, warm_up=True, load=None):
    load = load or Load(Verb.READ)
    steps = iter(durations)

    async def call():
        try:
            clock.time += next(steps)
        except StopIteration:
            raise Exhausted from None

    driven = asyncio.run(drive.drive_tasks(lambda *_: call, [load], seconds, warm_up=warm_up))
    (sample,) = driven.samples(4096)
    return sample


def test_calls_of_the_warm_up_do_not_count(clock):
    # The turn is from 1 to 11: calls end at 0.5, 1.5, 2.5, ... and the one that ends at 11.5 is too late.
    sample = drive_calls(clock, [0.5] + [1.0] * 20, seconds=10)
    assert (sample.frames, sample.seconds) == (10, 10)


def test_a_call_that_ends_after_the_turn_does_not_count(clock):
    sample = drive_calls(clock, [1.0, 4.0, 4.0, 4.0], seconds=10)
    assert sample.frames == 3  # the first ends as counting begins
    assert sample.latency.max_s == 4.0


def test_frames_of_a_batch_all_count(clock):
    sample = drive_calls(clock, [1.0] * 20, seconds=10, load=Load(Verb.WRITE, 1, 8))
    assert sample.frames == 10 * 8


def test_a_turn_in_which_no_call_ends_takes_the_one_under_way(clock):
    sample = drive_calls(clock, [100.0], seconds=1)
    assert (sample.frames, sample.seconds, sample.extra["overran"]) == (1, 100.0, True)


def test_one_pass_over_a_cold_file_ends_when_every_frame_was_read(clock):
    sample = drive_calls(clock, [1.0] * 4, seconds=10, warm_up=False)
    assert (sample.frames, sample.seconds) == (4, 4.0)


def test_a_worker_that_fails_ends_the_turn(clock):
    async def call():
        clock.time += 1
        raise OSError("broke")

    with pytest.raises(OSError, match="broke"):
        asyncio.run(drive.drive_tasks(lambda *_: call, [Load(Verb.READ, 3)], 5))


def test_a_thread_that_fails_ends_the_turn():
    def call():
        raise OSError("broke")

    with pytest.raises(OSError, match="broke"):
        drive.drive_threads(lambda *_: call, [Load(Verb.READ, 2)], 0.01)


def test_every_frame_is_picked_once_in_every_round():
    picker = Picker(10, seed=3)
    first, second = picker.some(10), picker.some(10)
    assert first == second
    assert sorted(first) == list(range(10))
    assert first != Picker(10, seed=4).some(10)


def test_one_pass_picks_every_frame_once():
    picker = Picker(5, once=True)
    assert sorted(picker.one() for _ in range(5)) == list(range(5))
    with pytest.raises(Exhausted):
        picker.one()


def test_percentiles_are_of_the_sorted_latencies():
    latency = Latency.of([n / 100 for n in range(100, 0, -1)])
    assert latency.p50_s == 0.51
    assert latency.p99_s == latency.max_s == 1.0
    assert math.isclose(latency.mean_s, 0.505)


@pytest.mark.parametrize(
    "kind",
    ["asyncio", pytest.param("uvloop", marks=pytest.mark.leaks("libuv's signal pipe stays for good"))],
)
def test_ctrl_c_lets_a_session_end(kind):
    """It was raised in the middle of the loop's work: tasks were destroyed, stores and rings left open."""
    ended = []

    async def work():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_on(kind, work())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended


def test_a_signal_that_nobody_heeds_yet_ends_the_turn_before_it_has_begun(monkeypatch):
    """It came between the task's making and the handler's; then the task ran into the loop's clearing up."""
    begun = []

    async def work():
        begun.append(True)
        await asyncio.sleep(60)

    def strike(_loop, _number, _callback):
        raise KeyboardInterrupt

    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", strike)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_on("asyncio", work())
    finally:
        signal.signal(signal.SIGINT, before)
    assert not begun
