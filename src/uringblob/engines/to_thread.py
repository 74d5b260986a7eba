"""Blocking calls beside the loop: in a thread where there is one to be had, and else here.

Not by the loop's executor: where no thread can be started that keeps what it was given, to do it some
time later, and its end needs a thread of its own.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TypeVar

from uringblob.engines.base import IoCounters
from uringblob.engines.own_descriptor import CLOSED
from uringblob.engines.pread.crew import Crew

T = TypeVar("T")


async def aside(call: Callable[..., T], *args: object) -> T:
    """Return what ``call(*args)`` returns; a cancellation is delivered when that has ended."""
    crew = Crew(asyncio.get_running_loop(), IoCounters(), CLOSED, threads_max=1)
    no_memory = MemoryError("no memory for a call beside the event loop")
    try:
        result: T = await crew.ask(_count_nothing, no_memory, functools.partial(call, *args))
    except GeneratorExit:
        crew.abandon()  # dropped half-way: nothing may be awaited any more
        raise
    except BaseException:
        await crew.close()
        raise
    await crew.close()
    return result


def _count_nothing(_counters: IoCounters, _result: object) -> None:
    """These calls are no requests of an engine."""
