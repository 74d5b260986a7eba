"""asyncio with a thread pool: ``preadv`` and ``pwrite`` with O_DIRECT and huge-page memory.

The best that the standard library can do: one thread per frame in flight, the caller's own aligned
memory, one executor call where a write and its sync belong together.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from uringblob_bench.contenders.plain_file import PlainFile, Transfer

THREADS_MAX = 64


class _Pool(Transfer):
    def __init__(self, descriptor: int, executor: ThreadPoolExecutor) -> None:
        self._fd = descriptor
        self._executor = executor
        self._loop = asyncio.get_running_loop()

    def read(self, offset: int, view: memoryview) -> Awaitable[object]:
        return self._loop.run_in_executor(self._executor, os.preadv, self._fd, [view], offset)

    def write(self, offset: int, source: Any) -> Awaitable[object]:
        return self._loop.run_in_executor(self._executor, os.pwrite, self._fd, source, offset)

    def sync(self) -> Awaitable[object]:
        return self._loop.run_in_executor(self._executor, os.fdatasync, self._fd)

    def commit_one(self, offset: int, source: Any) -> Awaitable[object]:
        return self._loop.run_in_executor(self._executor, self._both, offset, source)

    def _both(self, offset: int, source: Any) -> None:
        os.pwrite(self._fd, source, offset)
        os.fdatasync(self._fd)


class ThreadPool(PlainFile):
    """See the module."""

    name = "thread pool"

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "threads": f"one per frame in flight, at most {THREADS_MAX}"}

    @contextlib.asynccontextmanager
    async def opened(self, descriptor: int, in_flight: int) -> AsyncGenerator[Transfer, None]:
        with ThreadPoolExecutor(min(max(in_flight, 1), THREADS_MAX)) as executor:
            yield _Pool(descriptor, executor)
