"""A store of which every second frame was deleted, with ``vacuum()`` beside the loads, and without."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from uringblob import AsyncFileBlobStore, FileBlobStore
from uringblob_bench.contenders.base import TaskContender
from uringblob_bench.contenders.store import guid_of
from uringblob_bench.drive import TaskCall
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.workdir import WorkDir, noise

_BATCH = 64


class VacuumedStore(TaskContender):
    """Each turn deletes every second frame, and writes them again at its end."""

    def __init__(self, params: Params, workdir: WorkDir, *, vacuums: bool) -> None:
        super().__init__(params, workdir)
        self.vacuums = vacuums
        self.name = "beside vacuum" if vacuums else "without vacuum"
        self._counted: dict[str, Any] = {}

    def settings(self) -> dict[str, Any]:
        return {"frames": self.params.frames, "deleted": "every second", **self._counted}

    @property
    def _name(self) -> str:
        return f"vacuumed-{self.params.page_size}-{self.params.data_bytes}.blobs"

    def prepare(self) -> None:
        self.workdir.once(self._name, self._fill)

    def _fill(self, path: str) -> None:
        frame = noise(self.params.page_size)
        with FileBlobStore.open(path, page_size=self.params.page_size) as store:
            for begin in range(0, self.params.frames, _BATCH):
                some = range(begin, min(begin + _BATCH, self.params.frames))
                store.commit([(guid_of(number), frame) for number in some])

    def extra(self) -> dict[str, Any]:
        return self._counted

    @contextlib.asynccontextmanager
    async def session(self, loads: Sequence[Load]) -> AsyncGenerator[Callable[[Load, int], TaskCall], None]:
        frame, deleted = noise(self.params.page_size), [guid_of(n) for n in range(1, self.params.frames, 2)]
        in_flight = sum(load.in_flight for load in loads)
        path = self.workdir.path(self._name)
        async with AsyncFileBlobStore.open(path, buffers=in_flight + 16) as store:
            await store.commit(deletes=deleted)
            vacuum = asyncio.ensure_future(self._vacuum(store))
            try:
                yield lambda load, number: self._call(store, load, number)
            finally:
                vacuum.cancel()
                await asyncio.gather(vacuum, return_exceptions=True)
            if not vacuum.cancelled():
                vacuum.result()
            for begin in range(0, len(deleted), _BATCH):
                await store.commit([(name, frame) for name in deleted[begin : begin + _BATCH]])

    async def _vacuum(self, store: AsyncFileBlobStore) -> None:
        if not self.vacuums:
            return
        before, clock = store.stats(), asyncio.get_running_loop().time
        began = clock()
        try:
            await store.vacuum()
        finally:
            freed = before.file_bytes - store.stats().file_bytes
            self._counted = {"vacuum_s": clock() - began, "file_bytes_freed": freed}

    def _call(self, store: AsyncFileBlobStore, load: Load, number: int) -> TaskCall:
        left = [guid_of(n) for n in range(0, self.params.frames, 2)]
        begin = number * len(left) // load.workers
        names = itertools.cycle(left[begin:] + left[:begin])
        buffers = [store.alloc_blob_buf_zeroed() for _ in range(load.frames)]
        if load.verb is Verb.READ:
            (buffer,) = buffers
            return lambda: store.read_blob(next(names), buffer)
        return lambda: store.commit([(next(names), buffer) for buffer in buffers])
