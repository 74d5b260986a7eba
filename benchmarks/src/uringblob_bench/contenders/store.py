"""The store itself, on either engine, through either face."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import itertools
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from typing import Any

from uringblob import AlignedBlobBuf, AsyncFileBlobStore, FileBlobStore, StoreStats
from uringblob.errors import BlobStoreError
from uringblob_bench.contenders.base import TaskContender, ThreadContender
from uringblob_bench.drive import TaskCall, ThreadCall
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.memory_kind import small_pages
from uringblob_bench.picker import Picker
from uringblob_bench.workdir import WorkDir, aligned_frames, noise

#: Frames of one call while the store is filled.
_FILL_FRAMES = 32
#: Registered frames beside those of the workers, for the store itself.
_SPARE_FRAMES = 16
_COUNTERS = ("reads", "writes", "syncs", "ring_enters", "commits", "log_groups", "batches_linked",
             "batches_scattered", "compactions", "bounces", "file_bytes")  # fmt: skip


def guid_of(number: int) -> bytes:
    """Return the name of the benchmark's frame ``number``."""
    return number.to_bytes(16, "big")


class StoreFiller:
    """Makes the store that the turns open: three eighths of its slots are live, the rest are written and free."""

    def __init__(self, params: Params, workdir: WorkDir, engine: str, name: str = "store") -> None:
        self.params = params
        self.engine = engine
        self._workdir = workdir
        self._name = f"{name}-{params.page_size}-{params.data_bytes}.blobs"
        self.path = workdir.path(self._name)

    def prepare(self) -> None:
        """Fill it, unless another contender did."""
        self._workdir.once(self._name, self._fill)

    def _fill(self, path: str) -> None:
        with FileBlobStore.open(path, page_size=self.params.page_size, engine=self.engine) as store:
            content = noise(self.params.page_size)
            with contextlib.ExitStack() as leases:
                buffers = [leases.enter_context(store.alloc_blob_buf_uninit()) for _ in range(_FILL_FRAMES)]
                for buffer in buffers:
                    buffer.view[:] = content
                for start in range(0, self.params.frames, _FILL_FRAMES):
                    count = min(_FILL_FRAMES, self.params.frames - start)
                    store.write_blobs([(guid_of(start + n), buffers[n]) for n in range(count)])
            store.flush()
            for number in range(self.params.live, self.params.frames):
                store.delete_blob(guid_of(number))

    def options(self, in_flight: int) -> dict[str, Any]:
        """Return what the store is opened with for a turn."""
        registered = self.params.registered
        return {
            "page_size": self.params.page_size,
            "engine": self.engine,
            "verify": self.params.verify,
            "buffers": in_flight + _SPARE_FRAMES if registered else 0,
        }

    def settings(self, stats: StoreStats | None) -> dict[str, Any]:
        """Return how the store was opened, with its own statistics of that."""
        found = {} if stats is None else dataclasses.asdict(stats)
        kept = ("engine", "engine_reason", "direct_io", "buffers", "buffers_registered", "buffers_reason",
                "buffers_huge")  # fmt: skip
        return {"checksums": self.params.verify, **{name: found.get(name) for name in kept}}


def call_of(
    store: Any, load: Load, number: int, params: Params, lease: Callable[[], Any]
) -> Callable[[], Any]:
    """Return a worker's call: of a coroutine for the asynchronous face, blocking for the other."""
    picker = Picker(params.live, seed=number)
    buffers = [lease() for _ in range(load.frames)]
    if load.verb is Verb.READ:
        guids = itertools.cycle([guid_of(n) for n in picker.some(params.live)])
        if load.frames > 1:
            return _batch_read_of(store, guids, buffers)
        (buffer,) = buffers
        next_guid = guids.__next__
        read = store.read_blob
        return lambda: read(next_guid(), buffer)
    change = {
        Verb.WRITE: store.write_blobs,
        Verb.BATCH: store.write_blobs_with_data_sync,
        Verb.COMMIT: store.commit,
    }[load.verb]
    return lambda: change([(guid_of(n), b) for n, b in zip(picker.some(load.frames), buffers, strict=True)])


def _batch_read_of(store: Any, guids: Iterator[bytes], buffers: list[Any]) -> Callable[[], Any]:
    count = len(buffers)

    async def read_async() -> None:
        _check(await store.read_blobs(list(zip(itertools.islice(guids, count), buffers, strict=True))))

    def read() -> None:
        _check(store.read_blobs(list(zip(itertools.islice(guids, count), buffers, strict=True))))

    return read_async if inspect.iscoroutinefunction(store.read_blobs) else read


def _check(outcomes: list[BlobStoreError | None]) -> None:
    if any(outcomes):
        raise next(filter(None, outcomes))


class _Leases:
    """Buffers of a turn: from the registered pool, or of the caller's own memory."""

    def __init__(self, store: Any, params: Params) -> None:
        self._store = store
        self._params = params
        self._content = noise(params.page_size)
        self._held: list[AlignedBlobBuf] = []

    def lease(self) -> Any:
        if self._params.registered:
            buffer = self._store.alloc_blob_buf_uninit()
        elif self._params.huge:
            return aligned_frames(self._params.page_size, 1)[0].view
        else:
            buffer = AlignedBlobBuf.uninit(self._params.page_size)
        buffer.view[:] = self._content
        self._held.append(buffer)
        return buffer

    def release(self) -> None:
        for buffer in self._held:
            buffer.release()


def _difference(before: StoreStats, after: StoreStats) -> dict[str, int]:
    return {name: getattr(after, name) - getattr(before, name) for name in _COUNTERS}


class AsyncStore(TaskContender):
    """``AsyncFileBlobStore``; ``engine`` is ``io_uring`` or ``pread``."""

    def __init__(self, params: Params, workdir: WorkDir, engine: str = "io_uring") -> None:
        super().__init__(params, workdir)
        self.name = "store" if engine == "io_uring" else f"store ({engine})"
        self.filler = StoreFiller(params, workdir, engine)
        self._stats: StoreStats | None = None
        self._counted: dict[str, int] = {}

    def settings(self) -> dict[str, Any]:
        return {**self.filler.settings(self._stats), "loop": self.params.loop, "wake-up": self.params.wakeup}

    def prepare(self) -> None:
        self.filler.prepare()

    def extra(self) -> dict[str, Any]:
        return self._counted

    @contextlib.asynccontextmanager
    async def session(self, loads: Sequence[Load]) -> AsyncGenerator[Callable[[Load, int], TaskCall], None]:
        in_flight = sum(load.in_flight for load in loads)
        with small_pages(not self.params.huge):
            store = await AsyncFileBlobStore.open(self.filler.path, **self.filler.options(in_flight))
        leases = _Leases(store, self.params)
        try:
            async with contextlib.AsyncExitStack() as company:
                await self.accompany(store, company)
                before = store.stats()
                yield lambda load, number: call_of(store, load, number, self.params, leases.lease)
                self._stats = store.stats()
                self._counted = _difference(before, self._stats)
        finally:
            leases.release()
            await store.aclose()

    async def accompany(self, store: AsyncFileBlobStore, company: contextlib.AsyncExitStack) -> None:
        """Begin what goes on beside the loads until ``company`` ends: here nothing."""


class SyncStore(ThreadContender):
    """``FileBlobStore``, used by threads."""

    def __init__(self, params: Params, workdir: WorkDir, engine: str = "io_uring") -> None:
        super().__init__(params, workdir)
        self.name = "store (sync)" if engine == "io_uring" else f"store (sync, {engine})"
        self.filler = StoreFiller(params, workdir, engine)
        self._stats: StoreStats | None = None

    def settings(self) -> dict[str, Any]:
        return self.filler.settings(self._stats)

    def prepare(self) -> None:
        self.filler.prepare()

    @contextlib.contextmanager
    def session(self, loads: Sequence[Load]) -> Generator[Callable[[Load, int], ThreadCall], None, None]:
        in_flight = sum(load.in_flight for load in loads)
        with small_pages(not self.params.huge):
            store = FileBlobStore.open(self.filler.path, **self.filler.options(in_flight))
        leases = _Leases(store, self.params)
        try:
            yield lambda load, number: call_of(store, load, number, self.params, leases.lease)
            self._stats = store.stats()
        finally:
            leases.release()
            store.close()
