"""The snapshot of a ``FileBlobStore``: each method runs its namesake on the store's loop, or asks in this thread."""

from __future__ import annotations

from collections.abc import Iterable

from uringblob.api.blob_stat import BlobStat
from uringblob.api.open_options import StorePath
from uringblob.api.sync_store import BlobStore
from uringblob.buffers.views import BlobBuffer
from uringblob.guid import GuidLike, guid_bytes
from uringblob.store.snapshot import AsyncFileSnapshot
from uringblob.sync.looped import LoopedSnapshot


class FileSnapshot(LoopedSnapshot):
    """What a ``FileBlobStore`` showed when :meth:`snapshot` was called; :meth:`read_blob` reads in this thread."""

    _core: AsyncFileSnapshot

    @property
    def _checked(self) -> AsyncFileSnapshot:
        self._check_open()
        return self._core

    def has_blob(self, guid: GuidLike) -> bool:
        return self._checked._has(guid_bytes(guid))

    def has_blobs(self, guids: Iterable[GuidLike]) -> list[bool]:
        return BlobStore.has_blobs(self, guids)  # in this thread

    def __len__(self) -> int:
        return self._checked._count

    def checksum(self, guid: GuidLike) -> int:
        return self._checked._reads.checksum(guid_bytes(guid))

    def stat_blob(self, guid: GuidLike) -> BlobStat:
        return self._checked._reads.stat(guid_bytes(guid))

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        got = self._handle.run_in_caller(self._core._read_in_caller, guid, dst)
        if got != self._core.page_size:
            self._handle.run(self._core._finish_read, guid, dst, got)

    def _open_backup(self, path: StorePath) -> BlobStore:
        return self._store._open_backup(path)
