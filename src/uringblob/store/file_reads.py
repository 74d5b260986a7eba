"""The reads of a file store and of its snapshots: arguments are checked, then ``FrameReads`` answers.

Both read the same file, and differ in what they show; see :class:`~uringblob.store.frame_reads.Shown`.
``read_blob`` is each one's own: the store's is the hot path.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from uringblob.api.async_reads import AsyncReads
from uringblob.api.blob_stat import BlobStat
from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import frame_of
from uringblob.buffers.views import BlobBuffer, check_range, size_of
from uringblob.errors import BlobStoreError
from uringblob.guid import BlobGuid, GuidLike, guid_bytes, known_guids
from uringblob.store.arguments import checked_reads
from uringblob.store.core import Core
from uringblob.store.frame_reads import FrameReads
from uringblob.store.multi_read import read_batch

T = TypeVar("T")


class FileReads(AsyncReads):
    """The part that ``AsyncFileBlobStore`` and ``AsyncFileSnapshot`` share."""

    _core: Core
    _reads: FrameReads

    @abc.abstractmethod
    def _check_loop(self) -> None:
        """Raise unless it is open and this runs on its own loop."""

    @abc.abstractmethod
    async def _read(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a read in the caller's task."""

    @abc.abstractmethod
    def _list_names(self, found: Callable[[list[bytes]], object]) -> Coroutine[Any, Any, None]:
        """Pass the guids of all blobs to ``found``, some at a time."""

    def _frame(self, dst: BlobBuffer, size: int) -> IoBuffer:
        return frame_of(dst, size, writable=True, pool=self._core.file_io.engine.pool)

    def _read_in_caller(self, guid: GuidLike, dst: BlobBuffer) -> int:
        """Read in the calling thread, which may be any; see ``CallerReads``."""
        self._check_open()
        frame = self._frame(dst, self.page_size)
        return self._core.caller_reads.read(self._reads.plan(guid_bytes(guid), frame))

    async def _finish_read(self, guid: GuidLike, dst: BlobBuffer, answer: int) -> None:
        """Finish a read that :meth:`_read_in_caller` could not; ``answer`` is what it returned."""
        self._check_loop()
        frame, answered = self._frame(dst, self.page_size), answer if answer < 0 else None
        await self._read(self._reads.read(guid_bytes(guid), frame, answered))

    async def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        self._check_loop()
        key, size = guid_bytes(guid), size_of(dst)
        check_range(offset, size, self.page_size)
        await self._read(self._reads.read_range(key, offset, self._frame(dst, size)))

    async def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        self._check_loop()
        checked = await checked_reads(self._core, reads)
        self._check_open()  # it may have been closed meanwhile
        reading = read_batch(self._reads, checked)
        del checked
        return await self._read(reading)

    async def has_blob(self, guid: GuidLike) -> bool:
        self._check_loop()
        return self._has(guid_bytes(guid))

    def _has(self, guid: bytes) -> bool:
        """Answer from memory, in any thread."""
        self._check_open()
        return self._reads.index.find(guid) is not None

    async def checksum(self, guid: GuidLike) -> int:
        self._check_loop()
        return self._reads.checksum(guid_bytes(guid))

    async def stat_blob(self, guid: GuidLike) -> BlobStat:
        self._check_loop()
        return self._reads.stat(guid_bytes(guid))

    async def list_blobs(self) -> list[BlobGuid]:
        """Return the names of all live blobs, as of one moment, in any order."""
        self._check_loop()
        guids: list[BlobGuid] = []
        await self._read(self._list_names(lambda names: guids.extend(known_guids(names))))
        return guids
