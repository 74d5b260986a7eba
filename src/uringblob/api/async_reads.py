"""How blobs are read, listed and looked up: the part of ``AsyncBlobStore`` that changes nothing.

Two methods are abstract; the defaults of the others follow from them.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Literal, overload

from uringblob.api.base import AnyBlobStore
from uringblob.api.blob_stat import BlobStat
from uringblob.api.listing import checked_limit, merged
from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.views import (
    BlobBuffer,
    as_pair,
    check_range,
    check_writable,
    guid_list,
    size_of,
    writable_view,
)
from uringblob.errors import BlobCorrupt, BlobNotFound, BlobStoreError, StoreClosed
from uringblob.guid import BlobGuid, GuidLike, guid_bytes

#: Guids that are looked up or yielded between two pauses, and names that are sorted: 0.5 to 1 ms each.
GUIDS_AT_ONCE = 256
SORTED_AT_ONCE = 2048


class Scratch(bytearray):
    """A frame to read into and drop.

    Before Python 3.12 an ``AlignedBlobBuf`` has no buffer protocol, and a store may know
    ``memoryview(dst)`` only, or ``dst.view`` only; this offers both.
    """

    __slots__ = ()

    @property
    def view(self) -> memoryview:
        """Its memory."""
        return memoryview(self)


class AsyncReads(AnyBlobStore, abc.ABC):
    """The part of :class:`~uringblob.api.async_store.AsyncBlobStore` that reads."""

    @abc.abstractmethod
    async def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        """Fill ``dst`` with the blob's frame.

        :raises BlobNotFound: there is none; ``dst`` is untouched.
        :raises BlobCorrupt: the bytes on the medium are not those written.
        """

    @abc.abstractmethod
    async def list_blobs(self) -> list[BlobGuid]:
        """Return the names of all live blobs, in any order."""

    async def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        """Read a batch; return, per position, ``None`` or the error of that position alone.

        Wrong guids and lengths raise before any read.
        """
        self._check_open()
        checked = [(guid_bytes(guid), dst) for guid, dst in map(as_pair, reads)]
        for _, dst in checked:
            check_writable(dst, self.page_size)
        return [await self._read_one(guid, dst) for guid, dst in checked]

    async def _read_one(self, guid: bytes, dst: BlobBuffer) -> BlobStoreError | None:
        try:
            await self.read_blob(guid, dst)
        except StoreClosed:
            raise  # the error of the whole batch: the remaining positions cannot be read either
        except BlobStoreError as error:
            # The caller keeps the list; a traceback in it would keep the buffers of the batch alive.
            return error.with_traceback(None)
        return None

    async def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        """Fill ``dst`` with the frame's bytes from ``offset`` on.

        ``offset`` and ``len(dst)`` are multiples of 4096 inside the frame, else ``ValueError``.
        Only these bytes are read, so a frame's checksum is not checked (the default reads
        the whole frame).
        """
        self._check_open()
        key = guid_bytes(guid)
        size = size_of(dst)
        check_range(offset, size, self.page_size)
        check_writable(dst, size)
        scratch = Scratch(self.page_size)
        await self.read_blob(key, scratch)
        with writable_view(dst, size) as target, scratch.view[offset : offset + size] as part:
            target[:] = part

    async def has_blob(self, guid: GuidLike) -> bool:
        """Return whether the blob exists; file and memory stores do no I/O, the default reads it."""
        self._check_open()
        key = guid_bytes(guid)
        try:
            # One frame's transfer, where list_blobs() may be millions of names.
            await self.read_blob(key, Scratch(self.page_size))
        except BlobNotFound:
            return False
        except BlobCorrupt:
            return True
        return True

    async def has_blobs(self, guids: Iterable[GuidLike]) -> list[bool]:
        """Return :meth:`has_blob` of each guid, in order; every guid is checked before any is looked up.

        Each guid is looked up at its own moment: the store may change meanwhile.
        """
        self._check_open()
        keys: list[bytes] = []
        for count, guid in enumerate(guid_list(guids, "guids"), 1):
            keys.append(guid_bytes(guid))
            if count % GUIDS_AT_ONCE == 0:
                await self._pause()
        found: list[bool] = []
        for count, key in enumerate(keys, 1):
            found.append(await self.has_blob(key))
            if count % GUIDS_AT_ONCE == 0:
                await self._pause()
        return found

    @overload
    def iter_blobs(
        self, after: GuidLike | None = ..., limit: int | None = ..., meta: Literal[False] = ...
    ) -> AsyncIterator[BlobGuid]: ...

    @overload
    def iter_blobs(
        self, after: GuidLike | None = ..., limit: int | None = ..., *, meta: Literal[True]
    ) -> AsyncIterator[tuple[BlobGuid, BlobStat]]: ...

    @overload
    def iter_blobs(
        self, after: GuidLike | None, limit: int | None, meta: Literal[True]
    ) -> AsyncIterator[tuple[BlobGuid, BlobStat]]: ...

    def iter_blobs(
        self, after: GuidLike | None = None, limit: int | None = None, meta: bool = False
    ) -> AsyncIterator[BlobGuid] | AsyncIterator[tuple[BlobGuid, BlobStat]]:
        """Iterate over the names of live blobs in ascending order, as bytes compare.

        It begins beyond ``after``, which need not exist, and ends after ``limit`` names: to go on
        later, give the last name as ``after``.  A blob that exists all the while is yielded exactly once,
        whatever changes meanwhile; one that is written or deleted meanwhile may be or not.  With ``meta`` it
        yields ``(guid, stat)``, the :meth:`stat_blob` of the moment when it is yielded, and what is deleted by
        then is left out.  The default lists all names at the beginning, and sorts and merges a bounded number
        in each step.
        """
        self._check_open()
        beyond, at_most = None if after is None else guid_bytes(after), checked_limit(limit)
        return self._iterate_stats(beyond, at_most) if meta else self._iterate(beyond, at_most)

    async def _iterate(self, after: bytes | None, limit: int | None) -> AsyncIterator[BlobGuid]:
        runs = await self._sorted_runs(after, limit)
        for count, guid in enumerate(merged(runs, limit), 1):
            yield guid
            if count % GUIDS_AT_ONCE == 0:
                await self._pause()

    async def _iterate_stats(
        self, after: bytes | None, limit: int | None
    ) -> AsyncIterator[tuple[BlobGuid, BlobStat]]:
        while True:
            found = named = 0
            async for guid in self._iterate(after, limit):
                named, after = named + 1, guid
                try:
                    stat = await self.stat_blob(guid)
                except BlobNotFound:
                    continue
                found += 1
                yield guid, stat
            if limit is None or found == named:
                return
            limit -= found  # in place of those that are gone by now, others beyond the last one

    async def _sorted_runs(self, after: bytes | None, limit: int | None) -> list[list[BlobGuid]]:
        """Return the names beyond ``after`` in sorted lists, of each no more than ``limit``."""
        names = await self.list_blobs()
        runs: list[list[BlobGuid]] = []
        while names:
            part = names[-SORTED_AT_ONCE:]
            del names[-SORTED_AT_ONCE:]
            if runs and limit is not None and limit <= SORTED_AT_ONCE:
                part += runs.pop()  # merge into one list: only the first ``limit`` names count
            runs.append(sorted(part if after is None else filter(after.__lt__, part))[:limit])
            if names:
                await self._pause()
        return runs

    async def checksum(self, guid: GuidLike) -> int:
        """Return the XXH3-64 of the blob's frame: a number from 0 to 2**64 - 1, good as an ETag.

        It is the visible frame's, and changes only when the frame does.  File stores keep it and
        answer without I/O, whatever the medium holds meanwhile; the default reads the frame.

        :raises BlobNotFound: there is no such blob.
        """
        self._check_open()
        scratch = Scratch(self.page_size)
        await self.read_blob(guid, scratch)
        return frame_checksum(scratch)

    async def stat_blob(self, guid: GuidLike) -> BlobStat:
        """Return size, checksum and metadata of the blob, of one moment; file and memory stores do no I/O.

        The default reads the frame, and knows of no metadata: a store that keeps some overrides it.

        :raises BlobNotFound: there is no such blob.
        """
        return BlobStat(self.page_size, await self.checksum(guid), b"")

    async def _pause(self, seconds: float = 0) -> None:
        """Let other tasks run, between the steps of work that grows with the number of blobs."""
        await asyncio.sleep(seconds)
