"""Stores that keep their frames in memory: for tests, caches, and as the simplest implementation.

What makes them faithful stand-ins for a file store:

* Frames are immutable ``bytes``, with their metadata, in one ``dict``.  Every change is *one* ``dict`` operation in C, so
  neither another thread nor a signal handler that raises ever sees half of it.
* A commit's deletes become ``None`` in that same operation; the dead names are removed afterwards.
* Changes hold a reentrant lock; a change from a signal handler that interrupted a change is a
  ``RuntimeError``.  Reads and finalizers take no lock.
* A forked child may not use its parent's store, as with a file store.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.base import observe
from uringblob.api.blob_stat import BlobStat
from uringblob.api.observer import StoreObserver
from uringblob.api.stats import StoreStats
from uringblob.api.sync_store import BlobSnapshot, BlobStore, SnapshotAdapter, SyncToAsyncAdapter
from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.views import (
    NO_CHECKSUMS,
    BlobBuffer,
    Checksums,
    Write,
    check_range,
    checked_commit,
    checked_conditions,
    readable_view,
    size_of,
    writable_view,
)
from uringblob.errors import BlobNotFound, ConditionFailed, StoreClosed, check_limit
from uringblob.guid import BlobGuid, GuidLike, guid_bytes
from uringblob.owner import StoreOwner
from uringblob.units import PAGE_SIZE, check_max_bytes, check_page_size


class _Blob(NamedTuple):
    frame: bytes
    meta: bytes


class MemoryBlobStore(StoreOwner, BlobStore):
    """A :class:`BlobStore` in memory; batches and commits are atomic.

    :param page_size: the frame size in bytes, a multiple of 4096 up to 64 MiB.
    :param max_bytes: a limit for all frames together; see :meth:`set_max_bytes`.
    :param observer: is called after every call; see :class:`uringblob.StoreObserver`.
    """

    def __init__(
        self,
        page_size: int = PAGE_SIZE,
        *,
        max_bytes: int | None = None,
        observer: StoreObserver | None = None,
    ) -> None:
        self._page_size = check_page_size(page_size)
        self._max_bytes = check_max_bytes(max_bytes)
        self._frames: dict[bytes, _Blob | None] = {}
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._changing = False
        self._dirty = False
        self._reads = self._writes = 0
        self._snapshots: weakref.WeakSet[MemorySnapshot] = weakref.WeakSet()
        if observer is not None:
            observe(self, observer)

    @property
    def page_size(self) -> int:
        return self._page_size

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("this store was inherited through fork(): open one in the child instead")
        if self._closed:
            raise StoreClosed("this memory store is closed: its frames are gone, make a new one")

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        self._check_open()
        key = guid_bytes(guid)
        with writable_view(dst, self._page_size) as target:
            target[:] = self._blob(key).frame
        self._reads += 1

    def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        self._check_open()
        key = guid_bytes(guid)
        size = size_of(dst)
        check_range(offset, size, self._page_size)
        with writable_view(dst, size) as target:
            target[:] = memoryview(self._blob(key).frame)[offset : offset + size]
        self._reads += 1

    def write_blob(self, guid: GuidLike, src: BlobBuffer, meta: bytes = b"") -> None:
        self._change([(guid, src, meta)])

    def write_blobs(self, writes: Iterable[Write]) -> None:
        self._change(writes)

    def write_blobs_with_data_sync(self, writes: Iterable[Write]) -> None:
        self._change(writes)

    def delete_blob(self, guid: GuidLike) -> None:
        if self.has_blob(guid):
            self._change((), [guid])

    def commit(
        self,
        writes: Iterable[Write] = (),
        deletes: Iterable[GuidLike] = (),
        if_absent: Iterable[GuidLike] = (),
        if_checksum: Checksums = NO_CHECKSUMS,
    ) -> None:
        self._change(writes, deletes, list(checked_conditions(if_absent, if_checksum)))

    def set_max_bytes(self, max_bytes: int | None) -> None:
        """Limit all frames together to ``max_bytes``; ``None``: to nothing.

        Beyond it a change that adds frames is a ``BlobStoreIOError`` (ENOSPC), as on a full disk.  With
        less than what is there, nothing is lost.
        """
        self._check_open()
        self._max_bytes = check_max_bytes(max_bytes)

    def _change(
        self,
        writes: Iterable[Write],
        deletes: Iterable[GuidLike] = (),
        conditions: Sequence[tuple[bytes, int | None]] = (),
    ) -> None:
        self._check_open()
        metas: dict[bytes, bytes] = {}
        latest, doomed = checked_commit(writes, deletes, self._page_size, metas)
        changes: dict[bytes, _Blob | None] = dict.fromkeys(doomed)
        for guid, src in latest.items():
            with readable_view(src, self._page_size) as view:
                changes[bytes(guid)] = _Blob(bytes(view), metas.get(guid, b""))
        self._apply(changes, len(latest), conditions)

    def has_blob(self, guid: GuidLike) -> bool:
        self._check_open()
        return self._frames.get(guid_bytes(guid)) is not None

    def list_blobs(self) -> list[BlobGuid]:
        self._check_open()
        return [BlobGuid(guid) for guid, blob in self._frames.copy().items() if blob is not None]

    def stat_blob(self, guid: GuidLike) -> BlobStat:
        self._check_open()
        blob = self._blob(guid_bytes(guid))
        return BlobStat(self._page_size, frame_checksum(blob.frame), blob.meta)

    def snapshot(self) -> MemorySnapshot:
        self._check_open()
        return MemorySnapshot(self)

    def flush(self) -> None:
        self._check_open()
        self._dirty = False

    def needs_flush(self) -> bool:
        self._check_open()
        return self._dirty

    def close(self, flush: bool = True) -> None:  # noqa: ARG002 - there is nothing to flush
        """Drop all frames; a second call is silent."""
        self._closed = True
        self._frames = {}

    def stats(self) -> StoreStats:
        shown = {guid: frame for guid, frame in self._frames.copy().items() if frame is not None}
        live = len(shown)
        snapshots = [snapshot for snapshot in list(self._snapshots) if not snapshot.closed]
        kept = {id(frame) for snapshot in snapshots for frame in snapshot._frames.values() if frame}
        held = len(kept.difference(map(id, shown.values())))
        return StoreStats(
            engine="memory",
            engine_reason="frames are kept in this process's memory",
            page_size=self._page_size,
            blobs=live,
            slots_live=live,
            slots_held=held,
            held_bytes=held * self._page_size,
            snapshots=len(snapshots),
            allocated_bytes=live * self._page_size,
            max_bytes=self._max_bytes or 0,
            reads=self._reads,
            writes=self._writes,
            bytes_read=self._reads * self._page_size,
            bytes_written=self._writes * self._page_size,
        )

    def _blob(self, guid: bytes) -> _Blob:
        blob = self._frames.get(guid)
        if blob is None:
            raise BlobNotFound(
                guid, f"no blob {BlobGuid(guid)} in this memory store: list_blobs() names those there"
            )
        return blob

    def _check_conditions(self, conditions: Sequence[tuple[bytes, int | None]]) -> None:
        for guid, expected in conditions:
            blob = self._frames.get(guid)
            found = None if blob is None else frame_checksum(blob.frame)
            if found != expected:
                raise ConditionFailed(guid, expected, found)

    def _check_room(self, changes: Mapping[bytes, _Blob | None]) -> None:
        if self._max_bytes is None:
            return
        frames = self._frames
        more = sum((blob is not None) - (frames.get(guid) is not None) for guid, blob in changes.items())
        size = (len(frames) + more) * self._page_size
        if more > 0:
            check_limit(size, self._max_bytes, f"keeping {size} bytes of frames")

    def _apply(
        self,
        changes: Mapping[bytes, _Blob | None],
        writes: int,
        conditions: Sequence[tuple[bytes, int | None]],
    ) -> None:
        changed = False
        with self._lock:
            if self._changing:
                raise RuntimeError(
                    "a signal handler that interrupted a change of this store may not change it"
                )
            # No context manager of our own: one that is interrupted while it is entered keeps the lock.
            try:
                self._changing = True
                self._check_conditions(conditions)
                self._check_room(changes)
                changed = bool(changes)
                self._frames.update(changes)
                self._writes += writes
                self._sweep(changes)
            finally:
                # Interrupted in the middle, the change may have been applied.  No calls and no jumps
                # here: after each of those a handler may raise, and the rest would not run.
                self._dirty |= changed
                self._changing = False

    def _sweep(self, changes: Mapping[bytes, _Blob | None]) -> None:
        """Remove the names without a frame; interrupted, some stay, and readers treat them as absent.

        A function of its own: the jumps of a loop inside the ``try`` are not covered by it on CPython 3.13.
        """
        for guid, blob in changes.items():
            if blob is None:
                self._frames.pop(guid, None)


class MemorySnapshot(BlobSnapshot, MemoryBlobStore):
    """A copy of a memory store's map; the frames are shared, and immutable."""

    def __init__(self, store: MemoryBlobStore) -> None:
        super().__init__(store.page_size)
        self._store = store
        self._frames = store._frames.copy()
        store._snapshots.add(self)

    @property
    def closed(self) -> bool:
        return self._closed or self._store.closed

    def _check_open(self) -> None:
        self._store._check_open()
        if self._closed:
            raise StoreClosed("this snapshot of a memory store is closed: take another one")

    def stats(self) -> StoreStats:
        return dataclasses.replace(super().stats(), read_only=True)


class AsyncMemorySnapshot(StoreOwner, SnapshotAdapter):
    """The same for tasks; an iteration lets other tasks run."""

    _iterate = AsyncBlobStore._iterate

    async def _pause(self, seconds: float = 0) -> None:
        await asyncio.sleep(seconds)


class AsyncMemoryBlobStore(StoreOwner, SyncToAsyncAdapter):
    """An :class:`AsyncBlobStore` in memory; its calls never suspend, an iteration lets other tasks run.

    :param page_size: the frame size in bytes, a multiple of 4096 up to 64 MiB.
    :param max_bytes: a limit for all frames together; see :meth:`set_max_bytes`.
    :param observer: is called after every call; see :class:`uringblob.StoreObserver`.
    """

    _store: MemoryBlobStore

    def __init__(
        self,
        page_size: int = PAGE_SIZE,
        *,
        max_bytes: int | None = None,
        observer: StoreObserver | None = None,
    ) -> None:
        super().__init__(MemoryBlobStore(page_size, max_bytes=max_bytes))
        if observer is not None:
            observe(self, observer)

    async def snapshot(self) -> AsyncMemorySnapshot:
        return AsyncMemorySnapshot(await self._do(self._store.snapshot))

    _iterate = AsyncBlobStore._iterate  # which calls list_blobs() of this store: observers are told
    backup = AsyncBlobStore.backup
    verify = AsyncBlobStore.verify  # which lets other tasks run

    async def set_max_bytes(self, max_bytes: int | None) -> None:
        """Do what :meth:`MemoryBlobStore.set_max_bytes` does."""
        self._store.set_max_bytes(max_bytes)

    async def _pause(self, seconds: float = 0) -> None:
        await asyncio.sleep(seconds)
