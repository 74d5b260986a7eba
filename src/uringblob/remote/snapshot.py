"""A snapshot of a store in a bucket: a copy of its map; the frames stay until it is closed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from uringblob.api.async_store import AsyncBlobSnapshot
from uringblob.api.blob_stat import BlobStat
from uringblob.api.scrub import Note
from uringblob.api.stats import StoreStats
from uringblob.buffers.views import BlobBuffer, as_pair, check_writable
from uringblob.errors import BlobStoreError, StoreClosed
from uringblob.guid import BlobGuid, GuidLike, guid_bytes
from uringblob.owner import StoreOwner
from uringblob.remote.core import Core


class SnapshotStore(Protocol):
    """The store that a snapshot is of."""

    @property
    def path(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    def _check_open(self) -> None: ...
    def _check_loop(self) -> None: ...


class AsyncRemoteSnapshot(StoreOwner, AsyncBlobSnapshot):
    """What an ``AsyncRemoteBlobStore`` showed when :meth:`snapshot` was called, on the same event loop."""

    def __init__(self, store: SnapshotStore, core: Core) -> None:
        self._store, self._core = store, core
        self._seq, self._blobs = core.history.seq, core.shown()
        core.snapshots.add(self)

    @property
    def seq(self) -> int:
        return self._seq

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

    async def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        self._check_loop()
        check_writable(dst, self.page_size)
        await self._core.read(self._blobs.get, guid_bytes(guid), dst)

    async def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        self._check_loop()
        checked = [(guid_bytes(guid), dst) for guid, dst in map(as_pair, reads)]
        for _, dst in checked:
            check_writable(dst, self.page_size)
        return await self._core.read_many(self._blobs.get, checked)

    async def list_blobs(self) -> list[BlobGuid]:
        self._check_loop()
        return list(map(BlobGuid, self._blobs))

    async def has_blob(self, guid: GuidLike) -> bool:
        self._check_loop()
        return guid_bytes(guid) in self._blobs

    async def checksum(self, guid: GuidLike) -> int:
        return (await self.stat_blob(guid)).checksum

    async def stat_blob(self, guid: GuidLike) -> BlobStat:
        self._check_loop()
        return self._core.stat(self._blobs.get, guid_bytes(guid))

    _frames_at_once = 64

    async def _check_frames(self, guids: Sequence[BlobGuid], note: Note) -> None:
        self._check_loop()
        await self._core.check_many(self._blobs.get, guids, note)

    def stats(self) -> StoreStats:
        return dataclasses.replace(self._core.stats(), blobs=len(self._blobs), read_only=True)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} of {self._store.path!r} seq={self.seq} {state}>"

    async def aclose(self, flush: bool = True) -> None:  # noqa: ARG002 - there is nothing to flush
        """Let go of its frames; the store stays open."""
        self._closed = True
        self._core.snapshots.discard(self)
