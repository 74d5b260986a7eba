"""What makes a store a snapshot: it refuses changes, and the default compares what it reads.

The traits' own files make classes of these parts: a default of a trait returns a store of that trait.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from uringblob.api.base import AnyBlobStore
from uringblob.api.blob_stat import BlobStat
from uringblob.api.stats import StoreStats
from uringblob.api.vacuum_stats import VacuumStats
from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import BlobBuffer, check_writable, readable_view
from uringblob.errors import BlobChanged, BlobCorrupt, BlobNotFound, StoreReadOnly
from uringblob.guid import BlobGuid, GuidLike, guid_bytes


class AnySnapshot(AnyBlobStore):
    """A read-only store of one moment; :meth:`_refuse` is every change of it."""

    @property
    def seq(self) -> int:
        """The number of the last durable group at or before this moment; 0 in a store without groups.

        What was visible and not durable yet belongs to the snapshot, too.
        """
        return 0

    def needs_flush(self) -> bool:
        """Return false: a snapshot has nothing to make durable."""
        self._check_open()
        return False

    def _refuse(self) -> StoreReadOnly:
        self._check_open()
        return StoreReadOnly(f"{self!r} is a snapshot, which never changes: change its store")


class AsyncRefusals(AnySnapshot):
    """The changes of :class:`AsyncBlobStore`, refused."""

    async def write_blob(self, *_: Any, **__: Any) -> None:
        raise self._refuse()

    write_blobs = write_blobs_with_data_sync = delete_blob = commit = write_blob

    async def vacuum(self, max_time: float | None = None) -> VacuumStats:  # noqa: ARG002 - the trait's
        raise self._refuse()

    async def flush(self) -> None:
        """Do nothing: a snapshot has nothing to make durable."""
        self._check_open()


class Refusals(AnySnapshot):
    """The changes of :class:`BlobStore`, refused."""

    def write_blob(self, *_: Any, **__: Any) -> None:
        raise self._refuse()

    write_blobs = write_blobs_with_data_sync = delete_blob = commit = write_blob

    def vacuum(self, max_time: float | None = None) -> VacuumStats:  # noqa: ARG002 - the trait's
        raise self._refuse()

    def flush(self) -> None:
        """Do nothing: a snapshot has nothing to make durable."""
        self._check_open()


async def checksums_of(store: Any) -> dict[bytes, int | None]:
    """Return the checksum of every blob of ``store``, an ``AsyncBlobStore``; ``None`` where it is corrupt."""
    checksums: dict[bytes, int | None] = {}
    for guid in await store.list_blobs():
        try:
            checksums[guid_bytes(guid)] = await store.checksum(guid)
        except BlobCorrupt:
            checksums[guid_bytes(guid)] = None
        except BlobNotFound:
            continue  # deleted since it was listed
    return checksums


class ReadsThrough(AsyncRefusals):
    """The reads of the default snapshot: a copy of names and checksums, and the store itself for frames.

    ``store`` is an :class:`AsyncBlobStore`, ``checksums`` are what :func:`checksums_of` it returned.
    """

    def __init__(self, store: Any, checksums: Mapping[bytes, int | None]) -> None:
        self._store = store
        self._checksums = checksums

    async def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        """Fill ``dst`` with the blob's frame; where ``BlobChanged`` is raised, it has undefined contents."""
        self._check_open()
        key, size = guid_bytes(guid), self.page_size
        check_writable(dst, size)
        want = self._known(key)
        try:
            await self._store.read_blob(key, dst)
        except BlobNotFound:
            raise self._changed(key, "deleted") from None
        with readable_view(dst, size) as view:
            if frame_checksum(view) != want:
                raise self._changed(key, "replaced")

    async def list_blobs(self) -> list[BlobGuid]:
        self._check_open()
        return list(map(BlobGuid, self._checksums))

    async def has_blob(self, guid: GuidLike) -> bool:
        self._check_open()
        return guid_bytes(guid) in self._checksums

    async def checksum(self, guid: GuidLike) -> int:
        self._check_open()
        key = guid_bytes(guid)
        known = self._known(key)
        if known is not None:
            return known
        await self._store.checksum(key)
        raise self._changed(key, "replaced")  # it was corrupt, and is not

    async def stat_blob(self, guid: GuidLike) -> BlobStat:
        key, checksum = guid_bytes(guid), await self.checksum(guid)
        try:
            stat: BlobStat = await self._store.stat_blob(key)
        except BlobNotFound:
            raise self._changed(key, "deleted") from None
        if stat.checksum != checksum:
            raise self._changed(key, "replaced")
        return stat

    def _known(self, guid: bytes) -> int | None:
        try:
            return self._checksums[guid]
        except KeyError:
            raise BlobNotFound(
                guid, f"no blob {BlobGuid(guid)} in {self!r}: list_blobs() names those there"
            ) from None

    def _changed(self, guid: bytes, how: str) -> BlobChanged:
        return BlobChanged(
            f"blob {BlobGuid(guid)} was {how} after {self!r} was taken, and this store keeps no older frame: "
            "take a new snapshot, or hold writers back while one is read",
            guid,
        )

    async def aclose(self, flush: bool = True) -> None:  # noqa: ARG002 - there is nothing to flush
        """Forget the names; the store stays open."""
        self._closed = True
        self._checksums = {}

    # -- asked of the store -------------------------------------------------------------------

    @property
    def page_size(self) -> int:
        size: int = self._store.page_size
        return size

    def _check_open(self) -> None:
        super()._check_open()
        self._store._check_open()

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        self._check_open()
        buf: AlignedBlobBuf = self._store.alloc_blob_buf_zeroed()
        return buf

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        self._check_open()
        buf: AlignedBlobBuf = self._store.alloc_blob_buf_uninit()
        return buf

    def stats(self) -> StoreStats:
        stats: StoreStats = self._store.stats()
        return dataclasses.replace(stats, blobs=len(self._checksums), read_only=True)
