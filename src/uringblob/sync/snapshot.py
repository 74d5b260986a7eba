"""The snapshot of a ``FileBlobStore``: each method runs its namesake on the store's loop, or asks in this thread."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from uringblob.api.blob_stat import BlobStat
from uringblob.api.open_options import StorePath
from uringblob.api.stats import StoreStats
from uringblob.api.sync_store import BlobSnapshot, BlobStore
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import BlobBuffer
from uringblob.errors import BlobStoreError, StoreClosed
from uringblob.guid import BlobGuid, GuidLike, guid_bytes
from uringblob.owner import StoreOwner
from uringblob.store.async_store import AsyncFileBlobStore
from uringblob.store.snapshot import AsyncFileSnapshot
from uringblob.sync.store_handle import StoreHandle


class FileSnapshot(StoreOwner, BlobSnapshot):
    """What a ``FileBlobStore`` showed when :meth:`snapshot` was called; :meth:`read_blob` reads in this thread."""

    def __init__(
        self, store: BlobStore, handle: StoreHandle[AsyncFileBlobStore], core: AsyncFileSnapshot
    ) -> None:
        self._store = store  # open as long as its snapshot is used
        self._handle, self._core = handle, core

    # -- answered in the calling thread -------------------------------------------------------

    @property
    def seq(self) -> int:
        return self._core.seq

    @property
    def page_size(self) -> int:
        return self._core.page_size

    @property
    def closed(self) -> bool:
        return self._core.closed or self._handle.closed

    @property
    def _checked(self) -> AsyncFileSnapshot:
        self._check_open()
        return self._core

    def _check_open(self) -> None:
        self._handle.check()
        self._core._check_open()

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        return self._checked.alloc_blob_buf_zeroed()

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        return self._checked.alloc_blob_buf_uninit()

    def has_blob(self, guid: GuidLike) -> bool:
        return self._checked._has(guid_bytes(guid))

    def __len__(self) -> int:
        return self._checked._count

    def checksum(self, guid: GuidLike) -> int:
        return self._checked._reads.checksum(guid_bytes(guid))

    def stat_blob(self, guid: GuidLike) -> BlobStat:
        return self._checked._reads.stat(guid_bytes(guid))

    def stats(self) -> StoreStats:
        return self._core.stats()

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        got = self._handle.run_in_caller(self._core._read_in_caller, guid, dst)
        if got != self._core.page_size:
            self._handle.run(self._core._finish_read, guid, dst, got)

    # -- run on the store's loop --------------------------------------------------------------

    def list_blobs(self) -> list[BlobGuid]:
        return self._handle.run(self._core.list_blobs)

    def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        return self._handle.run(self._core.read_blobs, list(reads))

    def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        self._handle.run(self._core.read_blob_range, guid, offset, dst)

    def close(self, flush: bool = True) -> None:  # noqa: ARG002 - there is nothing to flush
        if self.closed or self._handle.inherited:
            return
        with contextlib.suppress(StoreClosed):  # the store was closed meanwhile, and the snapshot with it
            self._handle.run(self._core.aclose)

    def _open_backup(self, path: StorePath) -> BlobStore:
        return self._store._open_backup(path)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._core!r}>"
