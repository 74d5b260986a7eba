"""Blocking calls outside the event loop's thread; in it where no thread can be started.

The loop's executor will not do: where no thread can be started it keeps the call for later, and its
shutdown needs a thread of its own.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TypeVar

from uringblob.engines.base import IoCounters
from uringblob.engines.own_descriptor import CLOSED
from uringblob.engines.pread.results import count_nothing
from uringblob.engines.pread.worker_pool import WorkerPool

T = TypeVar("T")


async def to_thread(call: Callable[..., T], *args: object) -> T:
    """Return what ``call(*args)`` returns; a cancellation is delivered when the call has ended."""
    pool = WorkerPool(asyncio.get_running_loop(), IoCounters(), CLOSED, threads_max=1)
    no_memory = MemoryError("no memory for a call beside the event loop")
    try:
        result: T = await pool.submit(count_nothing, no_memory, functools.partial(call, *args))
    except GeneratorExit:
        pool.abandon()  # the coroutine was closed: it may await nothing
        raise
    except BaseException:
        await pool.close()
        raise
    await pool.close()
    return result
