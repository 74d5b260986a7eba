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
import os
import threading
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.base import observe
from uringblob.api.blob_stat import BlobStat
from uringblob.api.observer import StoreObserver
from uringblob.api.stats import StoreStats
from uringblob.api.sync_store import BlobStore, SyncToAsyncAdapter
from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.views import (
    BlobBuffer,
    Write,
    check_range,
    checked_commit,
    readable_view,
    size_of,
    writable_view,
)
from uringblob.errors import BlobNotFound, StoreClosed
from uringblob.guid import BlobGuid, GuidLike, guid_bytes
from uringblob.owner import StoreOwner
from uringblob.units import PAGE_SIZE, check_page_size


class _Blob(NamedTuple):
    frame: bytes
    meta: bytes


class MemoryBlobStore(StoreOwner, BlobStore):
    """A :class:`BlobStore` in memory; batches and commits are atomic.

    :param page_size: the frame size in bytes, a multiple of 4096 up to 64 MiB.
    :param observer: is called after every call; see :class:`uringblob.StoreObserver`.
    """

    def __init__(self, page_size: int = PAGE_SIZE, *, observer: StoreObserver | None = None) -> None:
        self._page_size = check_page_size(page_size)
        self._frames: dict[bytes, _Blob | None] = {}
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._changing = False
        self._dirty = False
        self._reads = self._writes = 0
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
    ) -> None:
        self._change(writes, deletes)

    def _change(self, writes: Iterable[Write], deletes: Iterable[GuidLike] = ()) -> None:
        self._check_open()
        metas: dict[bytes, bytes] = {}
        latest, doomed = checked_commit(writes, deletes, self._page_size, metas)
        changes: dict[bytes, _Blob | None] = dict.fromkeys(doomed)
        for guid, src in latest.items():
            with readable_view(src, self._page_size) as view:
                changes[bytes(guid)] = _Blob(bytes(view), metas.get(guid, b""))
        self._apply(changes, len(latest))

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
        live = sum(blob is not None for blob in self._frames.copy().values())
        return StoreStats(
            engine="memory",
            engine_reason="frames are kept in this process's memory",
            page_size=self._page_size,
            blobs=live,
            slots_live=live,
            allocated_bytes=live * self._page_size,
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

    def _apply(self, changes: Mapping[bytes, _Blob | None], writes: int) -> None:
        changed = bool(changes)
        with self._lock:
            if self._changing:
                raise RuntimeError(
                    "a signal handler that interrupted a change of this store may not change it"
                )
            # No context manager of our own: one that is interrupted while it is entered keeps the lock.
            try:
                self._changing = True
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


class AsyncMemoryBlobStore(StoreOwner, SyncToAsyncAdapter):
    """An :class:`AsyncBlobStore` in memory; its calls never suspend, an iteration lets other tasks run.

    :param page_size: the frame size in bytes, a multiple of 4096 up to 64 MiB.
    :param observer: is called after every call; see :class:`uringblob.StoreObserver`.
    """

    def __init__(self, page_size: int = PAGE_SIZE, *, observer: StoreObserver | None = None) -> None:
        super().__init__(MemoryBlobStore(page_size))
        if observer is not None:
            observe(self, observer)

    _iterate = AsyncBlobStore._iterate  # which calls list_blobs() of this store: observers are told

    async def _pause(self) -> None:
        await asyncio.sleep(0)
