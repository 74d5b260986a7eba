"""``TieredBlobStore``: the tier for threads.

The asynchronous tier runs on the local store's loop thread.  The remote store has a thread of its own, and its
calls are made from a few more, which end with the tier.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from uringblob.api.async_store import AsyncBlobSnapshot
from uringblob.api.base import take_documentation
from uringblob.api.sync_store import BlobStore, SnapshotAdapter, SyncToAsyncAdapter
from uringblob.buffers.views import BlobBuffer
from uringblob.errors import BlobNotFound
from uringblob.guid import GuidLike
from uringblob.sync.file_store import FileBlobStore
from uringblob.sync.looped import LoopedBlobStore
from uringblob.tiered.async_tiered import AsyncTieredBlobStore
from uringblob.tiered.tier_stats import TierStats

T = TypeVar("T")

#: Calls of the remote store at once: reads of evicted frames, and the one of an upload, which is for many frames.
REMOTE_THREADS = 16


class _InThreads(SyncToAsyncAdapter):
    """A synchronous store for an event loop: its calls are made in ``threads``."""

    def __init__(self, store: BlobStore, threads: ThreadPoolExecutor) -> None:
        super().__init__(store)
        self._threads = threads

    async def _do(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def snapshot(self) -> AsyncBlobSnapshot:
        return _SnapshotInThreads(await self._do(self._store.snapshot), self._threads)


class _SnapshotInThreads(_InThreads, SnapshotAdapter):
    """The same of a snapshot."""


class TieredBlobStore(LoopedBlobStore):
    """A :class:`BlobStore` over two stores; see :class:`AsyncTieredBlobStore`.

    A frame that is local is read in the calling thread, as a file store does.

    :param local: owned from now on, as ``remote`` is: both are closed with the tier.
    """

    _core: AsyncTieredBlobStore

    def __init__(
        self,
        local: FileBlobStore,
        remote: BlobStore,
        write_back: bool = True,
        *,
        max_local_bytes: int | None = None,
        discard_local: bool = False,
    ) -> None:
        if not isinstance(local, FileBlobStore) or not isinstance(remote, BlobStore):
            raise TypeError(
                f"a TieredBlobStore takes a FileBlobStore and a BlobStore, not {local!r} and {remote!r}"
            )
        self._local, self._remote, self._handle = local, remote, local._handle
        self._threads = ThreadPoolExecutor(REMOTE_THREADS, "uringblob-tier")
        try:
            self._core = AsyncTieredBlobStore(
                local._core,
                _InThreads(remote, self._threads),
                write_back,
                max_local_bytes=max_local_bytes,
                discard_local=discard_local,
            )
            self._handle.run(self._core._attach)
        except BaseException:
            self._threads.shutdown(wait=False)
            raise

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        try:
            self._local.read_blob(guid, dst)
        except BlobNotFound:
            self._handle.run(self._core.read_blob, guid, dst)
        else:
            self._core.note_use(guid)

    def durable_remotely(self) -> None:
        self._handle.run(self._core.durable_remotely)

    def tier_stats(self) -> TierStats:
        return self._core.tier_stats()

    def close(self, flush: bool = True) -> None:
        """Flush and upload (unless ``flush=False``), and close both stores, whatever happens.

        An upload that fails is a warning in the log: all is durable locally, and the next opening goes on with it.
        """
        if self.closed:
            return
        try:
            if not self._handle.inherited:
                self._handle.run(self._core._finish, flush)
        finally:
            try:
                self._remote.close(flush=False)
            finally:
                self._threads.shutdown(wait=False)
                self._local.close(flush)


take_documentation(TieredBlobStore, AsyncTieredBlobStore)
