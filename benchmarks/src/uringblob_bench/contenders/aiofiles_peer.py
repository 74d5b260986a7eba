"""aiofiles: an asyncio file over the loop's thread pool.

It has one position per file and no ``pread``; so one file object per task, opened unbuffered
(``buffering=0``) so that each call is one system call, and an executor with a thread per task.
Its documentation knows no O_DIRECT, but ``readinto`` into aligned memory works with one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from uringblob_bench.contenders.base import TaskContender, require
from uringblob_bench.contenders.thread_pool import THREADS_MAX
from uringblob_bench.drive import TaskCall
from uringblob_bench.load import Load, Verb
from uringblob_bench.picker import Picker
from uringblob_bench.workdir import aligned_frames, direct_flag


class AioFiles(TaskContender):
    """See the module."""

    name = "aiofiles"
    durability = "the harness runs fdatasync in the same executor after the writes"

    def prepare(self) -> None:
        require("aiofiles")
        self.workdir.raw_file(self.params.data_bytes)

    def settings(self) -> dict[str, Any]:
        direct = bool(direct_flag(self.workdir.raw_file(self.params.data_bytes)))
        return {
            "direct_io": direct,
            "buffering": 0,
            "files": "one per worker",
            "threads": f"one per frame in flight, at most {THREADS_MAX}",
            "durability": self.durability,
        }

    @contextlib.asynccontextmanager
    async def session(self, loads: Sequence[Load]) -> AsyncGenerator[Callable[[Load, int], TaskCall], None]:
        import aiofiles

        path = self.workdir.raw_file(self.params.data_bytes)
        in_flight = sum(load.in_flight for load in loads)
        flag = direct_flag(path)

        def opener(name: str, flags: int) -> int:
            return os.open(name, flags | flag)

        async with contextlib.AsyncExitStack() as stack:
            executor = stack.enter_context(ThreadPoolExecutor(min(in_flight, THREADS_MAX)))
            files: dict[Load, list[Any]] = {}
            for load in loads:
                files[load] = [
                    await stack.enter_async_context(
                        aiofiles.open(path, "r+b", buffering=0, opener=opener, executor=executor)
                    )
                    for _ in range(0 if load.is_ticker else load.workers)
                ]
            yield lambda load, number: self._call(files[load][number], executor, load, number)

    def _call(self, file: Any, executor: ThreadPoolExecutor, load: Load, number: int) -> TaskCall:
        size = self.params.page_size
        picker = Picker(self.params.frames, seed=number)
        views = [frame.view for frame in aligned_frames(size, load.frames)]

        async def read() -> None:
            await file.seek(picker.one() * size)
            await file.readinto(views[0])

        async def change() -> None:
            for view, at in zip(views, picker.some(load.frames), strict=True):
                await file.seek(at * size)
                await file.write(view)
            if load.verb is not Verb.WRITE:
                await asyncio.get_running_loop().run_in_executor(executor, os.fdatasync, file.fileno())

        return read if load.verb is Verb.READ else change
