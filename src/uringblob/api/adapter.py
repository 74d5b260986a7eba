"""A synchronous store as an asynchronous one whose methods never suspend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.defaults import Progress
from uringblob.api.stats import StoreStats
from uringblob.api.verify_report import VerifyReport
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import BlobBuffer
from uringblob.errors import BlobStoreError
from uringblob.guid import BlobGuid, GuidLike

if TYPE_CHECKING:
    from uringblob.api.sync_store import BlobStore


T = TypeVar("T")


class SyncToAsyncAdapter(AsyncBlobStore):
    """Every method of ``store`` as a coroutine that does the work in the calling thread.

    It holds no state of its own: closing it closes the store.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    async def _do(self, function: Callable[..., T], *args: object) -> T:
        return function(*args)

    @property
    def page_size(self) -> int:
        """See the store."""
        return self._store.page_size

    @property
    def closed(self) -> bool:
        """See the store."""
        return self._store.closed

    async def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        """See the store."""
        await self._do(self._store.read_blob, guid, dst)

    async def write_blob(self, guid: GuidLike, src: BlobBuffer) -> None:
        """See the store."""
        await self._do(self._store.write_blob, guid, src)

    async def delete_blob(self, guid: GuidLike) -> None:
        """See the store."""
        await self._do(self._store.delete_blob, guid)

    async def list_blobs(self) -> list[BlobGuid]:
        """See the store."""
        return await self._do(self._store.list_blobs)

    async def flush(self) -> None:
        """See the store."""
        await self._do(self._store.flush)

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        """See the store."""
        return self._store.alloc_blob_buf_zeroed()

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        """See the store."""
        return self._store.alloc_blob_buf_uninit()

    async def write_blobs(self, writes: Iterable[tuple[GuidLike, BlobBuffer]]) -> None:
        """See the store."""
        await self._do(self._store.write_blobs, writes)

    async def write_blobs_with_data_sync(self, writes: Iterable[tuple[GuidLike, BlobBuffer]]) -> None:
        """See the store."""
        await self._do(self._store.write_blobs_with_data_sync, writes)

    async def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        """See the store."""
        return await self._do(self._store.read_blobs, reads)

    async def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        """See the store."""
        await self._do(self._store.read_blob_range, guid, offset, dst)

    async def commit(
        self,
        writes: Iterable[tuple[GuidLike, BlobBuffer]] = (),
        deletes: Iterable[GuidLike] = (),
    ) -> None:
        """See the store."""
        await self._do(self._store.commit, writes, deletes)

    def needs_flush(self) -> bool:
        """See the store."""
        return self._store.needs_flush()

    async def has_blob(self, guid: GuidLike) -> bool:
        """See the store."""
        return await self._do(self._store.has_blob, guid)

    async def checksum(self, guid: GuidLike) -> int:
        """See the store."""
        return await self._do(self._store.checksum, guid)

    async def verify(self, progress: Progress | None = None) -> VerifyReport:
        """See the store."""
        return await self._do(self._store.verify, progress)

    def stats(self) -> StoreStats:
        """See the store."""
        return self._store.stats()

    async def aclose(self, flush: bool = True) -> None:
        """See the store's ``close``."""
        await self._do(self._store.close, flush)

    def __repr__(self) -> str:
        return repr(self._store)
