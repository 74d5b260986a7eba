"""What a tier shows: the local store's blobs first, then those of the remote store that are not deleted.

The rule (``docs/maintainers/tiered.md`` has its proof): a name that the local store has is what that says; a
name that it lacks and that a visible tombstone of it names is deleted; any other is what the remote store
says.  Tombstones are blobs of the local store, so one moment of that is one moment of the tier.
"""

from __future__ import annotations

import dataclasses

from uringblob.api.async_store import AsyncBlobSnapshot, AsyncBlobStore
from uringblob.api.blob_stat import BlobStat
from uringblob.api.stats import StoreStats
from uringblob.api.uncancellable import uncancellable
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import BlobBuffer
from uringblob.errors import BlobNotFound
from uringblob.guid import BlobGuid, GuidLike
from uringblob.tiered.records import is_reserved, tombstone_name, user_guid


class View:
    """The rule, over two stores or a snapshot of each.

    :param tombstones: for each name the numbers of the tombstones that may name it.
    """

    def __init__(
        self, local: AsyncBlobStore, remote: AsyncBlobStore, tombstones: dict[bytes, tuple[int, ...]]
    ) -> None:
        self.local = local
        self.remote = remote
        self.tombstones = tombstones

    async def is_deleted(self, guid: bytes) -> bool:
        """Whether a tombstone says that a blob which the local store lacks is deleted."""
        for number in self.tombstones.get(guid, ()):
            if await self.local.has_blob(tombstone_name(number)):
                return True
        return False

    async def elsewhere(self, guid: bytes) -> BlobStat:
        """Return what the remote store says of a blob that the local one lacks.

        :raises BlobNotFound: it is deleted, or was never there.
        """
        if not await self.is_deleted(guid):
            try:
                return await self.remote.stat_blob(guid)
            except BlobNotFound:
                pass  # the message below names the tier
        raise BlobNotFound(
            guid, f"no blob {BlobGuid(guid)} in this tier over {self.local!r}: list_blobs() names those there"
        )

    async def has(self, guid: bytes) -> bool:
        """Whether the blob is there."""
        if await self.local.has_blob(guid):
            return True
        return not await self.is_deleted(guid) and await self.remote.has_blob(guid)

    async def stat(self, guid: bytes) -> BlobStat:
        """Return what is known of the blob without reading it.

        :raises BlobNotFound: there is none.
        """
        try:
            return await self.local.stat_blob(guid)
        except BlobNotFound:
            return await self.elsewhere(guid)

    async def names(self) -> list[BlobGuid]:
        """Return the names of all blobs.

        The local ones first: a frame may be evicted meanwhile, and then the remote store has it.
        """
        hidden = [guid for guid in list(self.tombstones) if await self.is_deleted(guid)]
        found = {guid for guid in await self.local.list_blobs() if not is_reserved(guid)}
        others = {guid for guid in await self.remote.list_blobs() if not is_reserved(guid)} - found
        others.difference_update(hidden)
        for guid in others & self.tombstones.keys():
            if await self.is_deleted(guid):
                others.discard(guid)
        return [*found, *others]


class AsyncTierSnapshot(AsyncBlobSnapshot):
    """A tier's moment: a snapshot of each store; frames that were evicted are read from the remote one."""

    def __init__(self, store: AsyncBlobStore, view: View, seq: int, blobs: int) -> None:
        self._store = store
        self._view = view
        self._seq = seq
        self._blobs = blobs

    @property
    def seq(self) -> int:
        """The local store's last durable group at or before this moment."""
        return self._seq

    @property
    def page_size(self) -> int:
        return self._store.page_size

    @property
    def closed(self) -> bool:
        return self._closed or self._store.closed

    async def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        self._check_open()
        key = user_guid(guid)
        try:
            await self._view.local.read_blob(key, dst)
        except BlobNotFound:
            await self._view.elsewhere(key)
            await self._view.remote.read_blob(key, dst)

    async def list_blobs(self) -> list[BlobGuid]:
        self._check_open()
        return await self._view.names()

    async def has_blob(self, guid: GuidLike) -> bool:
        self._check_open()
        return await self._view.has(user_guid(guid))

    async def stat_blob(self, guid: GuidLike) -> BlobStat:
        self._check_open()
        return await self._view.stat(user_guid(guid))

    async def checksum(self, guid: GuidLike) -> int:
        return (await self.stat_blob(guid)).checksum

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        self._check_open()
        return self._store.alloc_blob_buf_zeroed()

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        self._check_open()
        return self._store.alloc_blob_buf_uninit()

    def stats(self) -> StoreStats:
        return dataclasses.replace(self._store.stats(), blobs=self._blobs, read_only=True)

    async def aclose(self, flush: bool = True) -> None:  # noqa: ARG002 - there is nothing to flush
        """Give back what both stores keep for it; a second call is silent."""
        if not self._closed:
            self._closed = True
            await uncancellable(self._close())

    async def _close(self) -> None:
        try:
            await self._view.local.aclose()
        finally:
            await self._view.remote.aclose()
