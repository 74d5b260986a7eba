"""The tier, with every frame in its local store: what it adds to a hit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from uringblob import AsyncFileBlobStore, StoreStats
from uringblob.tiered import AsyncTieredBlobStore
from uringblob_bench.contenders.base import TaskContender
from uringblob_bench.contenders.store import StoreFiller, call_of
from uringblob_bench.drive import TaskCall
from uringblob_bench.load import Load, Params
from uringblob_bench.workdir import WorkDir, noise


class TierHits(TaskContender):
    """``AsyncTieredBlobStore`` over a file store, before another one that has all frames, too."""

    name = "tier, local hits"

    def __init__(self, params: Params, workdir: WorkDir) -> None:
        super().__init__(params, workdir)
        self.filler = StoreFiller(params, workdir, "io_uring", "tier")
        self._remote_name = f"tier-remote-{params.page_size}-{params.data_bytes}.blobs"
        self._remote_path = workdir.path(self._remote_name)
        self._workdir = workdir
        self._stats: StoreStats | None = None

    def settings(self) -> dict[str, Any]:
        return {**self.filler.settings(self._stats), "loop": self.params.loop}

    def prepare(self) -> None:
        self.filler.prepare()
        self._workdir.once(self._remote_name, lambda path: asyncio.run(self._upload(path)))

    async def _upload(self, path: str) -> None:
        async with await self._open(path, 64) as tier:
            await tier.durable_remotely()

    async def _open(self, remote_path: str, in_flight: int) -> AsyncTieredBlobStore:
        options = self.filler.options(in_flight)
        local = await AsyncFileBlobStore.open(self.filler.path, **options)
        remote = await AsyncFileBlobStore.open(remote_path, **{**options, "buffers": 0})
        return await AsyncTieredBlobStore(local, remote)

    @contextlib.asynccontextmanager
    async def session(self, loads: Sequence[Load]) -> AsyncGenerator[Callable[[Load, int], TaskCall], None]:
        content = noise(self.params.page_size)
        in_flight = sum(load.in_flight for load in loads)
        async with await self._open(self._remote_path, in_flight) as store:
            with contextlib.ExitStack() as leases:

                def lease() -> object:
                    buffer = leases.enter_context(store.alloc_blob_buf_uninit())
                    buffer.view[:] = content
                    return buffer

                yield lambda load, number: call_of(store, load, number, self.params, lease)
                self._stats = store.stats()
