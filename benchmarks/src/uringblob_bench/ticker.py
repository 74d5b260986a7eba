"""Two tickers of a millisecond: how late the event loop comes to what is due.

A ``timerfd`` that the loop listens to becomes readable on time, to a few microseconds, whatever
the loop does; how long it then waits for its turn is what the loop was held up.

``asyncio.sleep`` is what programs use, and it is later than that without any stall: the selector
waits for whole milliseconds, rounded up, and every completion in between makes it round anew
what is left.  On a loop that is woken now and then a sleep of a millisecond is late by up to
another one (p99 1.06 ms beside a bare ring that does nothing else; Python 3.11, Linux 6.18).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import Iterator
from typing import Final

from uringblob_bench.meter import Worker, now

TICK_S: Final = 0.001
_TFD_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME: Final = 1
_NANO: Final = 1_000_000_000


class _TimerSpec(ctypes.Structure):
    """``struct itimerspec``: seconds and nanoseconds of the interval, then of the first tick."""

    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "first_s", "first_ns")]


@contextlib.contextmanager
def timer(first: float, interval_s: float) -> Iterator[int]:
    """Yield a descriptor that counts ticks, from ``first`` on (of ``time.monotonic()``).

    ``os.timerfd_create`` does the same from Python 3.13 on.
    """
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.timerfd_create(time.CLOCK_MONOTONIC, _TFD_FLAGS)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    try:
        spec = _TimerSpec(*divmod(round(interval_s * _NANO), _NANO), *divmod(round(first * _NANO), _NANO))
        if library.timerfd_settime(descriptor, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        yield descriptor
    finally:
        os.close(descriptor)


async def tick(worker: Worker) -> None:
    """Note for every millisecond's tick how long after it the loop came to it.

    A loop that was held up for five milliseconds came late to five ticks.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    due = time.monotonic() + TICK_S
    with timer(due, TICK_S) as descriptor:

        def on_ticks() -> None:
            nonlocal due
            ticks = int.from_bytes(os.read(descriptor, 8), "little")
            moment, late = now(), time.monotonic() - due
            for _ in range(ticks):
                if worker.done:
                    break
                worker.seconds.append(max(late, 0.0))
                late -= TICK_S
                if moment >= worker.bound:
                    worker.passed(moment)
            due += ticks * TICK_S
            if worker.done and not ended.done():
                ended.set_result(None)

        loop.add_reader(descriptor, on_ticks)
        try:
            await ended
        finally:
            loop.remove_reader(descriptor)


async def sleep(worker: Worker) -> None:
    """Sleep for a millisecond again and again; the time beyond that counts."""
    due = now() + TICK_S
    while not worker.done:
        await asyncio.sleep(max(due - now(), 0))
        moment = now()
        worker.seconds.append(max(moment - due, 0.0))
        if moment >= worker.bound:
            worker.passed(moment)
        due = moment + TICK_S
