"""A bounded number of asyncio tasks over many items, and threads that end before their caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def for_each(items: Iterable[Item], work: Callable[[Item], Awaitable[None]], *, at_once: int) -> None:
    """Await ``work(item)`` for every item, ``at_once`` of them at a time.

    The first error cancels the rest, and is raised when every task has ended: no task outlives
    the call, so the store and the buffers they use may be closed after it.
    """
    remaining = iter(items)

    async def worker() -> None:
        # All workers share one iterator: each takes the next item when it is free.
        for item in remaining:
            await work(item)

    workers = [asyncio.ensure_future(worker()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def in_thread(work: Callable[..., Result], *arguments: object) -> Result:
    """Return ``work(*arguments)``, run in a thread; ends only when the thread's work has ended.

    ``asyncio.to_thread`` alone returns at once when it is cancelled, and the thread continues: into
    a buffer that has been given back meanwhile.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        raise cancelled
    return running.result()
