"""``BlobStore``: the contract of :class:`~uringblob.api.async_store.AsyncBlobStore` without ``async``.

Documentation and defaults are that class's own.  A default runs over a
:class:`SyncToAsyncAdapter`, whose coroutines call the synchronous store and never suspend, so one
step runs it to its end: no event loop is needed, and one that runs in the thread is not touched.
"""

from __future__ import annotations

import abc
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, TypeVar, cast, overload

from uringblob.api.async_store import AsyncBlobSnapshot, AsyncBlobStore
from uringblob.api.backup import AsyncBackups, BackupReport, takes_no_path
from uringblob.api.base import AnyBlobStore, take_documentation
from uringblob.api.blob_stat import BlobStat
from uringblob.api.listing import checked_limit, merged
from uringblob.api.open_options import StorePath
from uringblob.api.snapshots import Refusals
from uringblob.api.stats import StoreStats
from uringblob.api.vacuum_stats import VacuumStats
from uringblob.api.verify_report import Progress, VerifyReport
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import NO_CHECKSUMS, BlobBuffer, Checksums, Write, guid_list
from uringblob.errors import BlobNotFound, BlobStoreError
from uringblob.guid import BlobGuid, GuidLike, guid_bytes

Self = TypeVar("Self", bound="BlobStore")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class BlobStore(AnyBlobStore, abc.ABC):
    """Frames of ``page_size`` bytes under 16-byte names, for threads.

    Guids, buffers and errors are those of :class:`AsyncBlobStore`.

    **Concurrency**: every method may be called from any number of threads at once, also from one in
    which an event loop runs (which it blocks).  A signal handler that raises ends only the call
    that it interrupted, which is then wholly done or not begun.

    ``len(store)`` is the number of blobs, ``guid in store`` is :meth:`has_blob`.

    To write a store, implement the five abstract methods (``uringblob.views`` has the checks of
    arguments) and run ``uringblob.testing.check_blob_store`` over it.
    """

    def _run(self, default: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        """Run a default of ``AsyncBlobStore`` on this store."""
        return run_to_completion(default(SyncToAsyncAdapter(self), *args))

    # -- the five -----------------------------------------------------------------------------

    @abc.abstractmethod
    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None: ...

    @abc.abstractmethod
    def write_blob(self, guid: GuidLike, src: BlobBuffer, meta: bytes = b"") -> None: ...

    @abc.abstractmethod
    def delete_blob(self, guid: GuidLike) -> None: ...

    @abc.abstractmethod
    def list_blobs(self) -> list[BlobGuid]: ...

    @abc.abstractmethod
    def flush(self) -> None: ...

    # -- batches ------------------------------------------------------------------------------

    def write_blobs(self, writes: Iterable[Write]) -> None:
        self._run(AsyncBlobStore.write_blobs, writes)

    def write_blobs_with_data_sync(self, writes: Iterable[Write]) -> None:
        self._run(AsyncBlobStore.write_blobs_with_data_sync, writes)

    def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        return self._run(AsyncBlobStore.read_blobs, reads)

    def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        self._run(AsyncBlobStore.read_blob_range, guid, offset, dst)

    def commit(
        self,
        writes: Iterable[Write] = (),
        deletes: Iterable[GuidLike] = (),
        if_absent: Iterable[GuidLike] = (),
        if_checksum: Checksums = NO_CHECKSUMS,
    ) -> None:
        self._run(AsyncBlobStore.commit, writes, deletes, if_absent, if_checksum)

    # -- questions ----------------------------------------------------------------------------

    def has_blob(self, guid: GuidLike) -> bool:
        return self._run(AsyncBlobStore.has_blob, guid)

    def has_blobs(self, guids: Iterable[GuidLike]) -> list[bool]:
        self._check_open()  # not the default of the other trait, which takes four times as long a guid
        keys = list(map(guid_bytes, guid_list(guids, "guids")))
        return [self.has_blob(key) for key in keys]

    @overload
    def iter_blobs(
        self, after: GuidLike | None = ..., limit: int | None = ..., meta: Literal[False] = ...
    ) -> Iterator[BlobGuid]: ...

    @overload
    def iter_blobs(
        self, after: GuidLike | None = ..., limit: int | None = ..., *, meta: Literal[True]
    ) -> Iterator[tuple[BlobGuid, BlobStat]]: ...

    @overload
    def iter_blobs(
        self, after: GuidLike | None, limit: int | None, meta: Literal[True]
    ) -> Iterator[tuple[BlobGuid, BlobStat]]: ...

    def iter_blobs(
        self, after: GuidLike | None = None, limit: int | None = None, meta: bool = False
    ) -> Iterator[BlobGuid] | Iterator[tuple[BlobGuid, BlobStat]]:
        self._check_open()
        # Not over an asynchronous generator, which a loop running in this thread would finalize.
        beyond = None if after is None else guid_bytes(after)
        at_most = checked_limit(limit)
        return self._iterate_stats(beyond, at_most) if meta else self._iterate(beyond, at_most)

    def _iterate(self, after: bytes | None, limit: int | None) -> Iterator[BlobGuid]:
        return merged(self._run(AsyncBlobStore._sorted_runs, after, limit), limit)

    def _iterate_stats(self, after: bytes | None, limit: int | None) -> Iterator[tuple[BlobGuid, BlobStat]]:
        while True:  # as the other trait does
            found = named = 0
            for guid in self._iterate(after, limit):
                named, after = named + 1, guid
                try:
                    stat = self.stat_blob(guid)
                except BlobNotFound:
                    continue
                found += 1
                yield guid, stat
            if limit is None or found == named:
                return
            limit -= found

    def checksum(self, guid: GuidLike) -> int:
        return self._run(AsyncBlobStore.checksum, guid)

    def stat_blob(self, guid: GuidLike) -> BlobStat:
        return self._run(AsyncBlobStore.stat_blob, guid)

    def verify(
        self,
        progress: Progress | None = None,
        rate: float | None = None,
        deadline: float | None = None,
        since: GuidLike | None = None,
    ) -> VerifyReport:
        return self._run(AsyncBlobStore.verify, progress, rate, deadline, since)

    def vacuum(self, max_time: float | None = None) -> VacuumStats:
        return self._run(AsyncBlobStore.vacuum, max_time)

    def snapshot(self) -> BlobSnapshot:
        return _ReadThroughSnapshot(self._run(AsyncBlobStore.snapshot))

    def backup(
        self, target: BlobStore | StorePath, progress: Progress | None = None, rate: float | None = None
    ) -> BackupReport:
        if target is self:
            raise ValueError(f"{self!r} cannot be backed up into itself: give another store")
        if not isinstance(target, AnyBlobStore):
            return self._run(AsyncBlobStore.backup, target, progress, rate)
        if not isinstance(target, BlobStore):
            raise takes_no_path(self, target)
        return self._run(AsyncBlobStore.backup, SyncToAsyncAdapter(target), progress, rate)

    def _open_backup(self, path: StorePath) -> BlobStore:
        raise takes_no_path(self, path)

    def __len__(self) -> int:
        return len(self.list_blobs())

    def __contains__(self, guid: GuidLike) -> bool:
        return self.has_blob(guid)

    def __bool__(self) -> bool:
        """Return true: a store without a blob is a store."""
        return True

    # -- the end ------------------------------------------------------------------------------

    def close(self, flush: bool = True) -> None:
        """Flush (unless ``flush=False``) and close, whatever happens, then raise the flush's error.

        A second call is silent.  Later calls raise ``StoreClosed``; ``stats()`` and ``repr``
        go on.
        """
        if self._closed:
            return
        try:
            if flush:
                self.flush()
        finally:
            self._closed = True

    def __enter__(self: Self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


take_documentation(BlobStore, AsyncBlobStore)


class BlobSnapshot(Refusals, BlobStore):
    """A read-only :class:`BlobStore` of one moment, from :meth:`BlobStore.snapshot`."""


class _OnStore(AnyBlobStore):
    """The plain methods of a store on top of another one, which has them."""

    _store: AnyBlobStore

    @property
    def page_size(self) -> int:
        return self._store.page_size

    @property
    def closed(self) -> bool:
        return self._store.closed

    def _check_open(self) -> None:
        self._store._check_open()

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        return self._store.alloc_blob_buf_zeroed()

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        return self._store.alloc_blob_buf_uninit()

    def stats(self) -> StoreStats:
        return self._store.stats()

    def _signatures(self) -> tuple[bytes, bytes] | None:
        return self._store._signatures()


class _ReadThroughSnapshot(_OnStore, BlobSnapshot):
    """The default snapshot: an asynchronous one that never suspends."""

    def __init__(self, snapshot: AsyncBlobSnapshot) -> None:
        self._store: AsyncBlobSnapshot = snapshot

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        run_to_completion(self._store.read_blob(guid, dst))

    def list_blobs(self) -> list[BlobGuid]:
        return run_to_completion(self._store.list_blobs())

    def has_blob(self, guid: GuidLike) -> bool:
        return run_to_completion(self._store.has_blob(guid))

    def checksum(self, guid: GuidLike) -> int:
        return run_to_completion(self._store.checksum(guid))

    def stat_blob(self, guid: GuidLike) -> BlobStat:
        return run_to_completion(self._store.stat_blob(guid))

    def close(self, flush: bool = True) -> None:
        run_to_completion(self._store.aclose(flush))


def _forward(method: F) -> F:
    name = method.__name__.removeprefix("a")

    @functools.wraps(method, updated=())  # not that it is abstract
    async def call(self: SyncToAsyncAdapter, *args: object, **options: object) -> object:
        return await self._do(functools.partial(getattr(self._store, name), *args, **options))

    return cast("F", call)


class SyncToAsyncAdapter(_OnStore, AsyncBlobStore):
    """A synchronous store as an asynchronous one; each coroutine does the work in the calling thread.

    It has no state of its own: closing it closes the store.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store: BlobStore = store

    async def _iterate(self, after: bytes | None, limit: int | None) -> AsyncIterator[BlobGuid]:
        names = await self._do(functools.partial(self._store.iter_blobs, after, limit))
        while (guid := await self._do(functools.partial(next, names, None))) is not None:
            yield guid

    async def backup(
        self, target: AsyncBackups | StorePath, progress: Progress | None = None, rate: float | None = None
    ) -> BackupReport:
        into: Any = target._store if isinstance(target, SyncToAsyncAdapter) else target
        return await self._do(functools.partial(self._store.backup, into, progress, rate))

    async def _open_backup(self, path: StorePath) -> AsyncBlobStore:
        # What may be called opens itself: a place that this store does not know, such as a bucket.
        opener: Any = path if callable(path) else functools.partial(self._store._open_backup, path)
        return SyncToAsyncAdapter(await self._do(opener))

    async def _pause(self, seconds: float = 0) -> None:
        """Wait in this thread: there may be no loop, and other threads run anyway."""
        if seconds:
            time.sleep(seconds)  # noqa: ASYNC251 - this coroutine is run in one step

    async def _do(self, function: Callable[[], T]) -> T:
        return function()

    async def snapshot(self) -> AsyncBlobSnapshot:
        return SnapshotAdapter(await self._do(self._store.snapshot))

    snapshot.__doc__ = AsyncBlobStore.snapshot.__doc__

    read_blob = _forward(AsyncBlobStore.read_blob)
    write_blob = _forward(AsyncBlobStore.write_blob)
    delete_blob = _forward(AsyncBlobStore.delete_blob)
    list_blobs = _forward(AsyncBlobStore.list_blobs)
    flush = _forward(AsyncBlobStore.flush)
    write_blobs = _forward(AsyncBlobStore.write_blobs)
    write_blobs_with_data_sync = _forward(AsyncBlobStore.write_blobs_with_data_sync)
    read_blobs = _forward(AsyncBlobStore.read_blobs)
    read_blob_range = _forward(AsyncBlobStore.read_blob_range)
    commit = _forward(AsyncBlobStore.commit)
    has_blob = _forward(AsyncBlobStore.has_blob)
    has_blobs = _forward(AsyncBlobStore.has_blobs)
    checksum = _forward(AsyncBlobStore.checksum)
    stat_blob = _forward(AsyncBlobStore.stat_blob)
    verify = _forward(AsyncBlobStore.verify)
    vacuum = _forward(AsyncBlobStore.vacuum)
    aclose = _forward(AsyncBlobStore.aclose)

    def needs_flush(self) -> bool:
        return self._store.needs_flush()


class SnapshotAdapter(SyncToAsyncAdapter, AsyncBlobSnapshot):
    """A synchronous snapshot as an asynchronous one."""

    _store: BlobSnapshot

    @property
    def seq(self) -> int:
        return self._store.seq


def run_to_completion(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` to its end in one step, and return its result.

    An exception that a signal handler raises meanwhile passes through the coroutine like any other.

    :raises RuntimeError: the coroutine suspends, which needs an event loop.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        coroutine.close()
    raise RuntimeError(f"{coroutine!r} waits for something: run it on an event loop")
