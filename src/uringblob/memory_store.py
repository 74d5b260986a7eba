"""Stores that keep their frames in memory: for tests, caches, and as the plainest example.

What makes them honest stand-ins for a file store:

* Frames are immutable ``bytes`` in one ``dict``.  Every change is *one* ``dict`` operation in C, so
  neither another thread nor a signal handler that raises ever sees a half of it.
* A commit's deletes become ``None`` in that same operation; the dead names are swept afterwards.
* Changes hold a lock that its own thread may enter again; a change asked for by a signal handler
  that interrupted a change is a ``RuntimeError``.  Reads and finalizers take no lock.
* A forked child may not use its parent's store, as with a file store.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping

from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.observer import StoreObserver, observe
from uringblob.api.stats import StoreStats
from uringblob.api.sync_store import BlobStore
from uringblob.buffers.views import (
    BlobBuffer,
    check_range,
    checked_commit,
    checked_writes,
    readable_view,
    size_of,
    writable_view,
)
from uringblob.errors import BlobNotFound, StoreClosed
from uringblob.guid import BlobGuid, GuidLike, guid_bytes
from uringblob.owner import StoreOwner
from uringblob.units import PAGE_SIZE, check_page_size

REASON = "frames are kept in this process's memory"


class Frames(StoreOwner):
    """The frames of one memory store, and everything it decides; both faces only call it."""

    def __init__(self, page_size: int) -> None:
        self.page_size = check_page_size(page_size)
        self.closed = False
        self._frames: dict[bytes, bytes | None] = {}
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._changing = False
        self._dirty = False
        self._reads = self._writes = 0

    def check(self) -> None:
        """Raise if the store may not be used: in a forked child, or after closing."""
        if os.getpid() != self._pid:
            raise RuntimeError("this store was inherited through fork(): open one in the child instead")
        if self.closed:
            raise StoreClosed("this memory store is closed: its frames are gone, make a new one")

    def read(self, guid: GuidLike, dst: BlobBuffer) -> None:
        """Fill ``dst`` with the whole frame."""
        self.check()
        key = guid_bytes(guid)
        with writable_view(dst, self.page_size) as target:
            target[:] = self._frame(key)
        self._reads += 1

    def read_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        """Fill ``dst`` with the frame's bytes from ``offset`` on."""
        self.check()
        key = guid_bytes(guid)
        size = size_of(dst)
        check_range(offset, size, self.page_size)
        with writable_view(dst, size) as target:
            target[:] = memoryview(self._frame(key))[offset : offset + size]
        self._reads += 1

    def write(self, writes: Iterable[tuple[GuidLike, BlobBuffer]]) -> None:
        """Apply a batch at once."""
        self.check()
        self._apply(checked_writes(writes, self.page_size))

    def commit(self, writes: Iterable[tuple[GuidLike, BlobBuffer]], deletes: Iterable[GuidLike]) -> None:
        """Apply writes and deletes at once."""
        self.check()
        self._apply(*checked_commit(writes, deletes, self.page_size))

    def delete(self, guid: GuidLike) -> None:
        """Forget one blob."""
        self.check()
        key = guid_bytes(guid)
        if self.has(key):
            self._apply({}, [key])

    def has(self, guid: GuidLike) -> bool:
        """Whether the blob is there."""
        self.check()
        return self._frames.get(guid_bytes(guid)) is not None

    def names(self) -> list[BlobGuid]:
        """Return all live names."""
        self.check()
        return [BlobGuid(guid) for guid, frame in self._frames.copy().items() if frame is not None]

    def flush(self) -> None:
        """Note that nothing is pending: memory is as durable as it gets at once."""
        self.check()
        self._dirty = False

    def needs_flush(self) -> bool:
        """Whether anything changed since the last flush, as a file store would say."""
        self.check()
        return self._dirty

    def close(self) -> None:
        """Drop all frames.  In a forked child only the child's copies go."""
        self.closed = True
        self._frames = {}

    def stats(self) -> StoreStats:
        """Count."""
        live = sum(frame is not None for frame in self._frames.copy().values())
        return StoreStats(
            engine="memory",
            engine_reason=REASON,
            page_size=self.page_size,
            blobs=live,
            slots_live=live,
            allocated_bytes=live * self.page_size,
            reads=self._reads,
            writes=self._writes,
            bytes_read=self._reads * self.page_size,
            bytes_written=self._writes * self.page_size,
        )

    def _frame(self, guid: bytes) -> bytes:
        frame = self._frames.get(guid)
        if frame is None:
            raise BlobNotFound(
                guid, f"no blob {BlobGuid(guid)} in this memory store: list_blobs() names those there"
            )
        return frame

    def _apply(self, writes: Mapping[bytes, BlobBuffer], deletes: Iterable[bytes] = ()) -> None:
        changes: dict[bytes, bytes | None] = dict.fromkeys(deletes)
        for guid, src in writes.items():
            with readable_view(src, self.page_size) as view:
                changes[bytes(guid)] = bytes(view)
        changed = bool(changes)
        with self._lock:
            if self._changing:
                raise RuntimeError(
                    "a signal handler that interrupted a change of this store may not change it"
                )
            # No context manager of our own: one that is struck while it is entered keeps the lock.
            try:
                self._changing = True
                self._frames.update(changes)
                self._writes += len(writes)
                self._sweep(changes)
            finally:
                # Struck in the middle, the change may have been applied.  Here are no calls and no
                # jumps: after each of those a handler may raise, and what follows would not be done.
                self._dirty |= changed
                self._changing = False

    def _sweep(self, changes: Mapping[bytes, bytes | None]) -> None:
        # Struck in the middle, it leaves a dead name behind, which everybody reads as absent.
        for guid, frame in changes.items():
            if frame is None:
                self._frames.pop(guid, None)


class AsyncMemoryBlobStore(StoreOwner, AsyncBlobStore):
    """An :class:`AsyncBlobStore` in memory; its calls never wait.

    :param page_size: the frame size in bytes, a power of two from 4096 to 16 MiB.
    :param observer: is told of every call; see :class:`uringblob.StoreObserver`.
    """

    def __init__(self, page_size: int = PAGE_SIZE, *, observer: StoreObserver | None = None) -> None:
        self._frames = Frames(page_size)
        if observer is not None:
            observe(self, observer)

    @property
    def page_size(self) -> int:
        """The frame size in bytes."""
        return self._frames.page_size

    @property
    def closed(self) -> bool:
        """Whether ``aclose`` was called."""
        return self._frames.closed

    async def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        """See :meth:`AsyncBlobStore.read_blob`."""
        self._frames.read(guid, dst)

    async def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        """See :meth:`AsyncBlobStore.read_blob_range`."""
        self._frames.read_range(guid, offset, dst)

    async def write_blob(self, guid: GuidLike, src: BlobBuffer) -> None:
        """See :meth:`AsyncBlobStore.write_blob`."""
        self._frames.write([(guid, src)])

    async def write_blobs(self, writes: Iterable[tuple[GuidLike, BlobBuffer]]) -> None:
        """See :meth:`AsyncBlobStore.write_blobs`; here it is atomic."""
        self._frames.write(writes)

    async def write_blobs_with_data_sync(self, writes: Iterable[tuple[GuidLike, BlobBuffer]]) -> None:
        """See :meth:`AsyncBlobStore.write_blobs_with_data_sync`; here ``write_blobs`` is all of it."""
        self._frames.write(writes)

    async def commit(
        self,
        writes: Iterable[tuple[GuidLike, BlobBuffer]] = (),
        deletes: Iterable[GuidLike] = (),
    ) -> None:
        """See :meth:`AsyncBlobStore.commit`; here it is atomic."""
        self._frames.commit(writes, deletes)

    async def delete_blob(self, guid: GuidLike) -> None:
        """See :meth:`AsyncBlobStore.delete_blob`."""
        self._frames.delete(guid)

    async def has_blob(self, guid: GuidLike) -> bool:
        """See :meth:`AsyncBlobStore.has_blob`."""
        return self._frames.has(guid)

    async def list_blobs(self) -> list[BlobGuid]:
        """See :meth:`AsyncBlobStore.list_blobs`."""
        return self._frames.names()

    async def flush(self) -> None:
        """See :meth:`AsyncBlobStore.flush`."""
        self._frames.flush()

    def needs_flush(self) -> bool:
        """See :meth:`AsyncBlobStore.needs_flush`."""
        return self._frames.needs_flush()

    def stats(self) -> StoreStats:
        """See :meth:`AsyncBlobStore.stats`."""
        return self._frames.stats()

    async def aclose(self, flush: bool = True) -> None:  # noqa: ARG002 - there is nothing to flush
        """Drop all frames; a second call is silent."""
        self._frames.close()


class MemoryBlobStore(StoreOwner, BlobStore):
    """A :class:`BlobStore` in memory.

    :param page_size: the frame size in bytes, a power of two from 4096 to 16 MiB.
    :param observer: is told of every call; see :class:`uringblob.StoreObserver`.
    """

    def __init__(self, page_size: int = PAGE_SIZE, *, observer: StoreObserver | None = None) -> None:
        self._frames = Frames(page_size)
        if observer is not None:
            observe(self, observer)

    @property
    def page_size(self) -> int:
        """The frame size in bytes."""
        return self._frames.page_size

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._frames.closed

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        """See :meth:`BlobStore.read_blob`."""
        self._frames.read(guid, dst)

    def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        """See :meth:`BlobStore.read_blob_range`."""
        self._frames.read_range(guid, offset, dst)

    def write_blob(self, guid: GuidLike, src: BlobBuffer) -> None:
        """See :meth:`BlobStore.write_blob`."""
        self._frames.write([(guid, src)])

    def write_blobs(self, writes: Iterable[tuple[GuidLike, BlobBuffer]]) -> None:
        """See :meth:`BlobStore.write_blobs`; here it is atomic."""
        self._frames.write(writes)

    def write_blobs_with_data_sync(self, writes: Iterable[tuple[GuidLike, BlobBuffer]]) -> None:
        """See :meth:`BlobStore.write_blobs_with_data_sync`; here ``write_blobs`` is all of it."""
        self._frames.write(writes)

    def commit(
        self,
        writes: Iterable[tuple[GuidLike, BlobBuffer]] = (),
        deletes: Iterable[GuidLike] = (),
    ) -> None:
        """See :meth:`BlobStore.commit`; here it is atomic."""
        self._frames.commit(writes, deletes)

    def delete_blob(self, guid: GuidLike) -> None:
        """See :meth:`BlobStore.delete_blob`."""
        self._frames.delete(guid)

    def has_blob(self, guid: GuidLike) -> bool:
        """See :meth:`BlobStore.has_blob`."""
        return self._frames.has(guid)

    def list_blobs(self) -> list[BlobGuid]:
        """See :meth:`BlobStore.list_blobs`."""
        return self._frames.names()

    def flush(self) -> None:
        """See :meth:`BlobStore.flush`."""
        self._frames.flush()

    def needs_flush(self) -> bool:
        """See :meth:`BlobStore.needs_flush`."""
        return self._frames.needs_flush()

    def stats(self) -> StoreStats:
        """See :meth:`BlobStore.stats`."""
        return self._frames.stats()

    def close(self, flush: bool = True) -> None:  # noqa: ARG002 - there is nothing to flush
        """Drop all frames; a second call is silent."""
        self._frames.close()
