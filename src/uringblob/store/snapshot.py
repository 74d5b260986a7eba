"""A snapshot of a file store: the store's reads, over a moment of its index.

The slots that it shows and the index no longer does are held until it is closed, when the last of its calls
has ended.  The store's own checks come first: a snapshot of a closed store is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from uringblob.api.async_store import AsyncBlobSnapshot
from uringblob.api.open_options import StorePath
from uringblob.api.stats import StoreStats
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import BlobBuffer
from uringblob.completion import Completion
from uringblob.errors import BlobNotFound, BlobStoreError, StoreClosed
from uringblob.guid import BlobGuid, GuidLike, guid_bytes
from uringblob.owner import StoreOwner
from uringblob.store.core import Core
from uringblob.store.file_reads import FileReads
from uringblob.store.frame_reads import FrameReads
from uringblob.store.index.moments import Moment

T = TypeVar("T")


class SnapshotStore(Protocol):
    """The ``AsyncFileBlobStore`` that a snapshot is of."""

    _core: Core
    _loop: asyncio.AbstractEventLoop
    _pid: int

    @property
    def closed(self) -> bool: ...
    @property
    def path(self) -> str: ...
    def _check_open(self) -> None: ...
    def _check_loop(self) -> None: ...
    async def _read(self, coroutine: Coroutine[Any, Any, T]) -> T: ...
    async def _change(self, coroutine: Coroutine[Any, Any, T]) -> T: ...
    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf: ...
    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf: ...
    def stats(self) -> StoreStats: ...
    async def _open_backup(self, path: StorePath) -> Any: ...


class _MomentReads(FrameReads):
    """Reads of what a moment shows."""

    def __init__(self, core: Core, moment: Moment) -> None:
        super().__init__(core.file_io, moment, core.page_size, verifies=core.reads.verifies)
        self._moment = moment

    def not_found(self, guid: bytes) -> BlobStoreError:
        """Return the error for a blob that was not there; or for a snapshot that was closed just now."""
        if not self._moment.is_open:
            return StoreClosed(f"the snapshot of {self.file_io.path} was closed during this call")
        return BlobNotFound(
            guid,
            f"no blob {BlobGuid(guid)} in this snapshot of {self.file_io.path}: it was written later, or "
            "deleted before; list_blobs() names those there",
        )


class AsyncFileSnapshot(StoreOwner, FileReads, AsyncBlobSnapshot):
    """What an ``AsyncFileBlobStore`` showed when :meth:`snapshot` was called, on the same event loop."""

    def __init__(self, store: SnapshotStore, moment: Moment) -> None:
        self._store, self._moment = store, moment
        self._core = store._core
        self._reads = _MomentReads(self._core, moment)
        #: Calls that have begun and not ended, and what ``aclose`` waits for while there are any.
        self._active, self._idle = 0, Completion[None](loop=store._loop)

    @property
    def seq(self) -> int:
        return self._moment.seq

    @property
    def page_size(self) -> int:
        return self._core.page_size

    @property
    def closed(self) -> bool:
        return self._closed or self._store.closed

    def _check_open(self) -> None:
        self._store._check_open()
        if self._closed:
            raise StoreClosed(f"this snapshot of {self._store.path} is closed: take another one")

    def _check_loop(self) -> None:
        self._store._check_loop()
        self._check_open()

    async def _read(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a read in the caller's task; the moment stays open meanwhile."""
        self._active += 1
        try:
            return await self._store._read(coroutine)
        finally:
            self._active -= 1
            if self._closed and not self._active:
                self._idle.resolve(None)

    # --- reading -------------------------------------------------------------------------

    async def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        self._check_loop()
        await self._read(self._reads.read(guid_bytes(guid), self._frame(dst, self.page_size)))

    def _list_names(self, found: Callable[[list[bytes]], object]) -> Coroutine[Any, Any, None]:
        return self._core.list_names_at(self._moment, found)

    # --- any thread may ask --------------------------------------------------------------

    @property
    def _count(self) -> int:
        return self._moment.count

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        self._check_open()
        return self._store.alloc_blob_buf_zeroed()

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        self._check_open()
        return self._store.alloc_blob_buf_uninit()

    def stats(self) -> StoreStats:
        return dataclasses.replace(self._store.stats(), blobs=self._count, read_only=True)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} of {self._store.path!r} seq={self.seq} blobs={self._count} {state}>"

    async def _open_backup(self, path: StorePath) -> Any:
        return await self._store._open_backup(path)

    # --- the end -------------------------------------------------------------------------

    async def aclose(self, flush: bool = True) -> None:  # noqa: ARG002 - there is nothing to flush
        """Wait for the calls of this snapshot that had begun, and let go of its frames; the store stays open.

        A second call is silent, and cancelling it does not stop it.  In a forked child, and once the store is
        closed, there is nothing to let go of.
        """
        if self.closed or os.getpid() != self._store._pid:
            self._closed = True
            return
        self._store._check_loop()
        self._closed = True
        if not self._active:
            self._idle.resolve(None)
        await self._store._change(_end(self._core, self._moment, self._idle))

    def __del__(self) -> None:
        store = getattr(self, "_store", None)
        if store is None or self.closed or os.getpid() != store._pid or store._loop.is_closed():
            return
        try:
            warnings.warn(f"unclosed snapshot {self!r}", ResourceWarning, source=self, stacklevel=2)
        finally:
            # In any thread, and without a lock; a loop that is closed meanwhile has nothing to reuse.
            with contextlib.suppress(RuntimeError):
                store._loop.call_soon_threadsafe(_end_dropped, store, self._moment)


async def _end(core: Core, moment: Moment, idle: Completion[None]) -> None:
    """End ``moment`` when its snapshot is ``idle``."""
    await idle
    await core.end_snapshot(moment)


def _end_dropped(store: SnapshotStore, moment: Moment) -> None:
    """End the moment of a snapshot that nobody closed."""
    if not store.closed:
        core = store._core
        core.file_io.start(store._change(core.end_snapshot(moment)))
