"""The tickers: a loop that is held up comes late to every tick it missed, and one that ends frees its timer."""

from __future__ import annotations

import asyncio
import math
import os
import time

import pytest

from uringblob_bench import ticker

pytestmark = pytest.mark.one_interpreter

HELD_UP_S = 0.005


class Ticks:
    """A worker that ends when the loop has been held up and has ticked again."""

    def __init__(self):
        self.seconds = []
        self.bound = math.inf
        self.done = False

    def passed(self, _moment):
        self.done = True


@pytest.mark.parametrize("kind", [ticker.tick, ticker.sleep], ids=lambda kind: kind.__name__)
async def test_a_loop_that_is_held_up_comes_late(kind):
    ticks = Ticks()
    ticking = asyncio.ensure_future(kind(ticks))
    while not ticks.seconds:
        await asyncio.sleep(0)
    before = len(ticks.seconds)
    time.sleep(HELD_UP_S)  # the stall that is to be seen
    ticks.bound = 0.0
    await ticking
    assert max(ticks.seconds[before:]) >= HELD_UP_S - 2 * ticker.TICK_S


async def test_every_tick_of_a_stall_counts():
    ticks = Ticks()
    ticking = asyncio.ensure_future(ticker.tick(ticks))
    while not ticks.seconds:
        await asyncio.sleep(0)
    before = len(ticks.seconds)
    time.sleep(HELD_UP_S)
    while len(ticks.seconds) == before:
        await asyncio.sleep(0)
    missed = ticks.seconds[before:]
    ticks.bound = 0.0
    await ticking
    assert len(missed) >= HELD_UP_S / ticker.TICK_S - 1
    assert missed == pytest.approx([missed[0] - ticker.TICK_S * tick for tick in range(len(missed))])


async def test_a_ticker_that_is_cancelled_leaves_no_descriptor():
    before = set(os.listdir("/proc/self/fd"))
    ticks = Ticks()
    ticking = asyncio.ensure_future(ticker.tick(ticks))
    while not ticks.seconds:
        await asyncio.sleep(0)
    ticking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ticking
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_timer_that_the_kernel_refuses_is_an_error():
    with pytest.raises(OSError, match="timerfd_settime"), ticker.timer(-1.0, ticker.TICK_S):
        raise AssertionError("there is no such time")
