"""Commits into a store that deletes have left in pieces, and a bare ring that makes the same writes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from uringblob import AsyncFileBlobStore, FileBlobStore
from uringblob.ring import Ring, ops
from uringblob.slab import IoBuffer, Slab
from uringblob_bench.contenders.base import TaskContender
from uringblob_bench.contenders.ring_sync import FIXED, settled
from uringblob_bench.contenders.store import guid_of
from uringblob_bench.drive import TaskCall
from uringblob_bench.load import Load
from uringblob_bench.picker import Exhausted
from uringblob_bench.workdir import direct_flag, noise

#: Of so many frames side by side, so many are deleted: the pieces that free space consists of.
STRIDE, PIECE = 7, 4
FRAMES = 21_000
#: Frames of one commit: so many pieces are written, and then there is one flush.
BATCH = 64


def commits_of(frames: int) -> int:
    """Return how many commits the pieces of a store of ``frames`` frames take; some are left free."""
    return max(frames // STRIDE * PIECE * 3 // 4 // BATCH, 1)


class FragmentedStore(TaskContender):
    """Each turn commits new blobs into the pieces, and deletes them at its end."""

    name = "store"

    def __init__(self, *given: Any, frames: int = FRAMES) -> None:
        super().__init__(*given)
        self.frames = frames
        self._counted: dict[str, float] = {}

    def settings(self) -> dict[str, Any]:
        return {"frames": self.frames, "deleted": f"{PIECE} of {STRIDE}", **self._counted}

    def prepare(self) -> None:
        self.workdir.once(self._name, self._fill)

    @property
    def _name(self) -> str:
        return f"fragmented-{self.params.page_size}-{self.frames}.blobs"

    def _fill(self, path: str) -> None:
        frame = noise(self.params.page_size)
        with FileBlobStore.open(path, page_size=self.params.page_size) as store:
            for begin in range(0, self.frames, BATCH):
                some = range(begin, min(begin + BATCH, self.frames))
                store.commit([(guid_of(number), frame) for number in some])
            store.commit(deletes=[guid_of(n) for n in range(self.frames) if n % STRIDE < PIECE])

    def extra(self) -> dict[str, Any]:
        return self._counted

    @contextlib.asynccontextmanager
    async def session(self, loads: Sequence[Load]) -> AsyncGenerator[Callable[[Load, int], TaskCall], None]:
        (load,) = loads
        store = await AsyncFileBlobStore.open(self.workdir.path(self._name), buffers=load.frames + 16)
        made: list[bytes] = []
        with contextlib.ExitStack() as leases:
            buffers = [leases.enter_context(store.alloc_blob_buf_uninit()) for _ in range(load.frames)]
            for buffer in buffers:
                buffer.view[:] = noise(self.params.page_size)
            try:
                before = store.stats()
                yield lambda load, _number: self._call(store, load, buffers, made)
                after = store.stats()
                commits = max(after.commits - before.commits, 1)
                self._counted = {
                    "writes a commit": (after.writes - before.writes) / commits,
                    "file_bytes": after.file_bytes - before.file_bytes,
                }
                await store.commit(deletes=made)
            finally:
                await store.aclose()

    def _call(self, store: AsyncFileBlobStore, load: Load, buffers: list[Any], made: list[bytes]) -> TaskCall:
        fresh = itertools.count(self.frames)
        left = iter(range(commits_of(self.frames)))

        async def commit() -> None:
            if next(left, None) is None:
                raise Exhausted
            names = [guid_of(next(fresh)) for _ in range(load.frames)]
            await store.commit(list(zip(names, buffers, strict=True)))
            made.extend(names)

        return commit


class ScatteredRing(TaskContender):
    """Writes the same pieces to a plain file, all in one submission, and flushes once."""

    name = "bare ring"

    def __init__(self, *given: Any, frames: int = FRAMES) -> None:
        super().__init__(*given)
        self.frames = frames

    def settings(self) -> dict[str, Any]:
        path = self.workdir.raw_file(self.frames * self.params.page_size)
        return {"frames": self.frames, "piece": PIECE, "stride": STRIDE, "direct_io": bool(direct_flag(path))}

    def prepare(self) -> None:
        self.workdir.raw_file(self.frames * self.params.page_size)

    @contextlib.asynccontextmanager
    async def session(self, loads: Sequence[Load]) -> AsyncGenerator[Callable[[Load, int], TaskCall], None]:
        (load,) = loads
        size = self.params.page_size
        path = self.workdir.raw_file(self.frames * size)
        descriptor = os.open(path, os.O_RDWR | direct_flag(path))
        ring = Ring(256, loop=asyncio.get_running_loop())
        try:
            ring.register_files([descriptor])
            slab = Slab(size, load.frames)
            index = ring.register_slab(slab)
            for number in range(load.frames):
                slab.frame(number).view[:] = noise(size)
            pieces = [
                IoBuffer(slab.frame(n).view, slab.frame(n).address, min(PIECE, load.frames - n) * size, index)
                for n in range(0, load.frames, PIECE)
            ]
            yield lambda _load, _number: self._call(ring, pieces)
        finally:
            await ring.aclose()
            os.close(descriptor)

    def _call(self, ring: Ring, pieces: list[IoBuffer]) -> TaskCall:
        strides = itertools.cycle(range(self.frames // STRIDE))
        size = self.params.page_size

        async def write_and_flush() -> None:
            writes = [
                ops.write_fixed(0, next(strides) * STRIDE * size, piece, flags=FIXED) for piece in pieces
            ]
            await settled(ring.submit(writes), [piece.size for piece in pieces])
            await settled(ring.submit([ops.fsync(0, data_only=True, flags=FIXED)]), [0])

        return write_and_flush
