"""``TieredBlobStore``: the tier for threads.

The asynchronous tier runs on the local store's loop thread.  The remote store has a thread of its own, and its
calls are made from a few more, which end with the tier.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from uringblob.api.blob_stat import BlobStat
from uringblob.api.stats import StoreStats
from uringblob.api.sync_store import BlobSnapshot, BlobStore, SyncToAsyncAdapter
from uringblob.api.verify_report import Progress, VerifyReport
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import NO_CHECKSUMS, BlobBuffer, Checksums, Write, guid_list
from uringblob.errors import BlobNotFound, BlobStoreError
from uringblob.guid import BlobGuid, GuidLike
from uringblob.owner import StoreOwner
from uringblob.sync.file_store import FileBlobStore
from uringblob.tiered.async_tiered import AsyncTieredBlobStore, TierStats
from uringblob.tiered.view import AsyncTierSnapshot

T = TypeVar("T")

#: Calls of the remote store at once: reads of evicted frames, and one upload, which is one call for many frames.
REMOTE_THREADS = 16


class _InThreads(SyncToAsyncAdapter):
    """A synchronous store for an event loop: what waits runs in ``threads``."""

    def __init__(self, store: BlobStore, threads: ThreadPoolExecutor) -> None:
        super().__init__(store)
        self._threads = threads

    async def _do(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    # Answered from memory.
    async def has_blob(self, guid: GuidLike) -> bool:
        return self._store.has_blob(guid)

    async def stat_blob(self, guid: GuidLike) -> BlobStat:
        return self._store.stat_blob(guid)


class TieredBlobStore(StoreOwner, BlobStore):
    """A :class:`BlobStore` over two stores; see :class:`AsyncTieredBlobStore`.

    Any number of threads may use it.  :meth:`read_blob` of a frame that is local reads in the calling thread, as a
    file store does.

    :param local: owned from now on, as ``remote`` is: both are closed with the tier.
    """

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
        self._local, self._remote = local, remote
        self._handle = local._handle
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
        self._used = self._core._used

    # -- answered in the calling thread -------------------------------------------------------

    @property
    def page_size(self) -> int:
        return self._local.page_size

    @property
    def closed(self) -> bool:
        return self._local.closed

    def _check_open(self) -> None:
        self._handle.check()

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        return self._local.alloc_blob_buf_zeroed()

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        return self._local.alloc_blob_buf_uninit()

    def needs_flush(self) -> bool:
        self._handle.check()
        return self._core.needs_flush()

    def stats(self) -> StoreStats:
        return self._core.stats()

    def tier_stats(self) -> TierStats:
        """Return the tier's own counters; works after closing too."""
        return self._core.tier_stats()

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        try:
            self._local.read_blob(guid, dst)
        except BlobNotFound:
            self._handle.run(self._core.read_blob, guid, dst)
        else:
            self._core.note_use(guid)

    # -- run on the local store's loop --------------------------------------------------------

    def has_blob(self, guid: GuidLike) -> bool:
        return self._handle.run(self._core.has_blob, guid)

    def stat_blob(self, guid: GuidLike) -> BlobStat:
        return self._handle.run(self._core.stat_blob, guid)

    def checksum(self, guid: GuidLike) -> int:
        return self._handle.run(self._core.checksum, guid)

    def list_blobs(self) -> list[BlobGuid]:
        return self._handle.run(self._core.list_blobs)

    def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        return self._handle.run(self._core.read_blobs, list(reads))

    def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        self._handle.run(self._core.read_blob_range, guid, offset, dst)

    def write_blob(self, guid: GuidLike, src: BlobBuffer, meta: bytes = b"") -> None:
        self._handle.run(self._core.write_blob, guid, src, meta)

    def delete_blob(self, guid: GuidLike) -> None:
        self._handle.run(self._core.delete_blob, guid)

    def write_blobs(self, writes: Iterable[Write]) -> None:
        self._handle.run(self._core.write_blobs, list(writes))

    def write_blobs_with_data_sync(self, writes: Iterable[Write]) -> None:
        self._handle.run(self._core.write_blobs_with_data_sync, list(writes))

    def commit(
        self,
        writes: Iterable[Write] = (),
        deletes: Iterable[GuidLike] = (),
        if_absent: Iterable[GuidLike] = (),
        if_checksum: Checksums = NO_CHECKSUMS,
    ) -> None:
        absent = guid_list(if_absent, "if_absent")
        checksums = dict(if_checksum) if isinstance(if_checksum, Mapping) else if_checksum
        self._handle.run(self._core.commit, list(writes), guid_list(deletes), absent, checksums)

    def flush(self) -> None:
        self._handle.run(self._core.flush)

    def durable_remotely(self) -> None:
        """Do what :meth:`AsyncTieredBlobStore.durable_remotely` does."""
        self._handle.run(self._core.durable_remotely)

    def verify(
        self,
        progress: Progress | None = None,
        rate: float | None = None,
        deadline: float | None = None,
        since: GuidLike | None = None,
    ) -> VerifyReport:
        verify = functools.partial(self._core.verify, rate=rate, deadline=deadline, since=since)
        return self._handle.run_with_progress(verify, progress)

    def snapshot(self) -> TierSnapshot:
        return TierSnapshot(self, self._handle.run(self._core.snapshot))

    # -- the end ------------------------------------------------------------------------------

    def close(self, flush: bool = True) -> None:
        """Flush and upload (unless ``flush=False``), and close both stores; see the asynchronous tier's ``aclose``."""
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

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._core!r}>"


class TierSnapshot(StoreOwner, BlobSnapshot):
    """What a ``TieredBlobStore`` showed when :meth:`snapshot` was called."""

    def __init__(self, store: TieredBlobStore, core: AsyncTierSnapshot) -> None:
        self._store = store  # open as long as its snapshot is used
        self._core = core
        self._handle = store._handle

    @property
    def seq(self) -> int:
        return self._core.seq

    @property
    def page_size(self) -> int:
        return self._core.page_size

    @property
    def closed(self) -> bool:
        return self._core.closed or self._handle.closed

    def _check_open(self) -> None:
        self._handle.check()
        self._core._check_open()

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        return self._core.alloc_blob_buf_zeroed()

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        return self._core.alloc_blob_buf_uninit()

    def stats(self) -> StoreStats:
        return self._core.stats()

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        self._handle.run(self._core.read_blob, guid, dst)

    def list_blobs(self) -> list[BlobGuid]:
        return self._handle.run(self._core.list_blobs)

    def has_blob(self, guid: GuidLike) -> bool:
        return self._handle.run(self._core.has_blob, guid)

    def stat_blob(self, guid: GuidLike) -> BlobStat:
        return self._handle.run(self._core.stat_blob, guid)

    def checksum(self, guid: GuidLike) -> int:
        return self._handle.run(self._core.checksum, guid)

    def close(self, flush: bool = True) -> None:  # noqa: ARG002 - there is nothing to flush
        """Give back what both stores keep for it; a second call is silent."""
        if not self.closed and not self._handle.inherited:
            self._handle.run(self._core.aclose)
