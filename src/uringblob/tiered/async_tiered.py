"""``AsyncTieredBlobStore``: the trait over a local store and a remote one.

It checks arguments and decides which store answers; what it does is in :mod:`uringblob.tiered.core`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.blob_stat import BlobStat
from uringblob.api.listing import with_metas
from uringblob.api.scrub import Note
from uringblob.api.stats import StoreStats
from uringblob.api.uncancellable import uncancellable
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import (
    NO_CHECKSUMS,
    BlobBuffer,
    Checksums,
    Write,
    as_pair,
    check_range,
    check_writable,
    checked_commit,
    checked_conditions,
    readable_view,
    size_of,
    writable_view,
)
from uringblob.errors import BlobNotFound, BlobStoreError, StoreClosed
from uringblob.guid import BlobGuid, GuidLike, guid_bytes
from uringblob.owner import StoreOwner
from uringblob.tiered.core import TierCore
from uringblob.tiered.records import user_guid
from uringblob.tiered.tier_stats import TierStats, tier_stats
from uringblob.tiered.view import AsyncTierSnapshot, View

Self = TypeVar("Self", bound="AsyncTieredBlobStore")


class AsyncTieredBlobStore(StoreOwner, AsyncBlobStore):
    """The trait over two stores: reads come from ``local`` and are fetched once when missing there.

    A change is durable in ``local`` as that store promises, and is then uploaded.  **The remote store is
    always a state that the local one had**: every commit up to some moment, whole, and nothing of later ones.
    :meth:`durable_remotely` returns when that moment is not before the call.

    ``async with AsyncTieredBlobStore(local, remote) as store:`` or ``await`` it; otherwise the first call
    attaches the stores to each other.  It owns both and closes both.  Nothing else may change either.

    When another writer has taken the remote store over, uploading ends: every change from then on raises
    ``WriterFenced``, and what is local can still be read.

    :param local: a store whose ``commit`` is atomic: a file store.
    :param remote: a store whose ``flush`` makes one group of all that is pending, and shows what is pending: a
        remote store, or a file store.
    :param write_back: false: ``commit`` and ``flush`` return when the remote store is up to date, too.
    :param max_local_bytes: evict frames that are uploaded (CLOCK) so that frames take no more than that in
        ``local``.  What is not uploaded is never evicted: where there is no room, changes wait for uploads, and
        are ``BlobStoreIOError`` (ENOSPC) where those fail.
    :param discard_local: where another writer has changed the remote store since, drop what ``local`` has and
        the remote store has not, instead of raising ``TierDiverged``.
    """

    def __init__(
        self,
        local: AsyncBlobStore,
        remote: AsyncBlobStore,
        write_back: bool = True,
        *,
        max_local_bytes: int | None = None,
        discard_local: bool = False,
    ) -> None:
        frames_max = None if max_local_bytes is None else max_local_bytes // local.page_size
        if frames_max is not None and frames_max < 1:
            raise ValueError(
                f"max_local_bytes={max_local_bytes} is less than one frame, which has {local.page_size} bytes"
            )
        self._core = TierCore(local, remote, frames_max)
        self._local = local
        self._used = self._core.residents.used
        self._write_back, self._discard = write_back, discard_local
        #: Attached and open: then hot calls look no further.
        self._live = False
        self._attaching: asyncio.Task[None] | None = None

    # -- the beginning ------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, AsyncTieredBlobStore]:
        yield from self._attach().__await__()
        return self

    async def __aenter__(self: Self) -> Self:
        await self._attach()
        return self

    async def _attach(self) -> TierCore:
        self._check_open()
        while not self._live:
            if self._attaching is None:
                self._attaching = asyncio.ensure_future(self._core.attach(discard_local=self._discard))
            task = self._attaching
            await asyncio.wait([task])
            if self._attaching is task:
                self._attaching = None  # after an error the next call tries again
                task.result()
                self._check_open()
                self._live = True
        return self._core

    # -- reading ------------------------------------------------------------------------------

    async def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        if not self._live:
            await self._attach()
        try:
            await self._local.read_blob(guid, dst)
        except BlobNotFound:
            check_writable(dst, self.page_size)
            await self._read_elsewhere(user_guid(guid), 0, dst)
        else:
            used = self._used
            if guid in used:  # without a call more: this is the hot path
                used[guid] = True  # type: ignore[index]
            else:
                self.note_use(guid)

    def note_use(self, guid: GuidLike) -> None:
        """Have the frame outlive the next pass of the clock; from any thread."""
        key = guid if guid.__class__ is BlobGuid else guid_bytes(guid)
        if key in self._used:
            self._used[key] = True
        else:
            user_guid(key)

    async def _read_elsewhere(self, key: bytes, offset: int, dst: BlobBuffer) -> None:
        frame = await self._core.fetches.fetch(key, await self._core.view.elsewhere(key))
        size = size_of(dst)
        with readable_view(frame, self.page_size) as source, writable_view(dst, size) as target:
            target[:] = source[offset : offset + size]

    async def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        await self._attach()
        checked: list[tuple[GuidLike, BlobBuffer]] = [
            (user_guid(guid), dst) for guid, dst in map(as_pair, reads)
        ]
        outcomes = await self._local.read_blobs(checked)
        missing = [at for at, error in enumerate(outcomes) if isinstance(error, BlobNotFound)]
        # Not cancelled one by one: their buffers are the caller's again when this returns.
        others = await asyncio.gather(
            *(self._read_one(guid_bytes(checked[at][0]), checked[at][1]) for at in missing)
        )
        for at, outcome in zip(missing, others, strict=True):
            outcomes[at] = outcome
        return outcomes

    async def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        await self._attach()
        key, size = user_guid(guid), size_of(dst)
        check_range(offset, size, self.page_size)
        try:
            await self._local.read_blob_range(key, offset, dst)
        except BlobNotFound:
            check_writable(dst, size)
            await self._read_elsewhere(key, offset, dst)

    async def has_blob(self, guid: GuidLike) -> bool:
        core = await self._attach()
        return await core.view.has(user_guid(guid))

    async def stat_blob(self, guid: GuidLike) -> BlobStat:
        core = await self._attach()
        return await core.view.stat(user_guid(guid))

    async def checksum(self, guid: GuidLike) -> int:
        return (await self.stat_blob(guid)).checksum

    async def list_blobs(self) -> list[BlobGuid]:
        core = await self._attach()
        return await core.view.names()

    async def snapshot(self) -> AsyncTierSnapshot:
        """Return a read-only store of this moment, as consistent as one of the local store.

        It holds a snapshot of each store: what is evicted is read from the remote one, and not kept.
        """
        core = await self._attach()
        # The remote one first, and nothing is evicted in between: what the local one lacks, the other has.
        async with core.removing:
            remote = await core.remote.snapshot()
            try:
                local = await core.local.snapshot()
            except BaseException:
                await remote.aclose()
                raise
            view = View(local, remote, dict(core.tombstones.by_guid))
            return AsyncTierSnapshot(self, view, local.seq, core.blobs)

    async def _check_frames(self, guids: Sequence[BlobGuid], note: Note) -> None:
        """Read frames that are evicted, too, and keep none of them."""
        core = await self._attach()
        for guid in guids:
            frame = bytearray(self.page_size)
            error = await core.local._read_one(guid, frame)
            if isinstance(error, BlobNotFound) and not await core.view.is_deleted(guid):
                error = await core.remote._read_one(guid, frame)
            note(guid, error)

    # -- changing -----------------------------------------------------------------------------

    async def write_blob(self, guid: GuidLike, src: BlobBuffer, meta: bytes = b"") -> None:
        await self._write([(guid, src, meta)], self._local.write_blobs)

    async def write_blobs(self, writes: Iterable[Write]) -> None:
        await self._write(writes, self._local.write_blobs)

    async def write_blobs_with_data_sync(self, writes: Iterable[Write]) -> None:
        await self._write(writes, self._local.write_blobs_with_data_sync)

    async def _write(self, writes: Iterable[Write], write: Callable[[list[Write]], Awaitable[None]]) -> None:
        core = await self._attach()
        batch, _ = self._checked(writes, ())
        if batch:
            await core.change([guid_bytes(item[0]) for item in batch], (), (), lambda _: write(batch))

    async def delete_blob(self, guid: GuidLike) -> None:
        core = await self._attach()
        key = user_guid(guid)

        async def delete(tombstones: list[Write]) -> None:
            # A tombstone counts only where the local store lacks the blob: the deletion is one moment.
            if tombstones:
                await core.local.write_blobs(tombstones)
            await core.local.delete_blob(key)

        await core.change((), [key], (), delete)

    async def commit(
        self,
        writes: Iterable[Write] = (),
        deletes: Iterable[GuidLike] = (),
        if_absent: Iterable[GuidLike] = (),
        if_checksum: Checksums = NO_CHECKSUMS,
    ) -> None:
        core = await self._attach()
        batch, doomed = self._checked(writes, deletes)
        conditions = [
            (user_guid(guid), expected) for guid, expected in checked_conditions(if_absent, if_checksum)
        ]
        if batch or doomed or conditions:
            written = [guid_bytes(item[0]) for item in batch]
            await core.change(
                written,
                doomed,
                conditions,
                lambda tombstones: core.local.commit([*batch, *tombstones], doomed),
            )
        if not self._write_back:
            await self.durable_remotely()

    def _checked(
        self, writes: Iterable[Write], deletes: Iterable[GuidLike]
    ) -> tuple[list[Write], list[bytes]]:
        metas: dict[bytes, bytes] = {}
        latest, doomed = checked_commit(writes, deletes, self.page_size, metas)
        for guid in itertools.chain(latest, doomed):
            user_guid(guid)
        return with_metas(latest, metas), doomed

    async def flush(self) -> None:
        core = await self._attach()
        core.uploader.check()
        await core.local.flush()
        if not self._write_back:
            await self.durable_remotely()

    async def durable_remotely(self) -> None:
        """Return when all that was committed or written before this call is durable in the remote store.

        :raises BlobStoreIOError: an upload failed.  It is durable locally, and the upload is tried again.
        :raises WriterFenced: another writer has taken the remote store over; what is local stays readable.
        """
        core = await self._attach()
        try:
            await core.uploader.wait()
        except asyncio.CancelledError:
            if self.closed:
                raise StoreClosed(f"{self!r} was closed before all was uploaded: open it again") from None
            raise

    # -- any time -----------------------------------------------------------------------------

    @property
    def page_size(self) -> int:
        return self._core.page_size

    def needs_flush(self) -> bool:
        self._check_open()
        return self._local.needs_flush() or (not self._write_back and bool(self._core.due))

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        self._check_open()
        return self._local.alloc_blob_buf_zeroed()

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        self._check_open()
        return self._local.alloc_blob_buf_uninit()

    def stats(self) -> StoreStats:
        """Return the local store's, with the tier's number of blobs; the local frames are in :meth:`tier_stats`."""
        local = self._local.stats()
        reason = f"in front of {self._core.remote!r}; locally {local.engine}: {local.engine_reason}"
        return dataclasses.replace(local, engine="tiered", engine_reason=reason, blobs=self._core.blobs)

    def tier_stats(self) -> TierStats:
        """Return the tier's own counters; works after closing too."""
        return tier_stats(self._core)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {self._local!r} before {self._core.remote!r} {state}>"

    # -- the end ------------------------------------------------------------------------------

    async def aclose(self, flush: bool = True) -> None:
        """Flush and upload (unless ``flush=False``), and close both stores, whatever happens.

        An upload that fails is a warning in the log: all is durable locally, and the next opening goes on with it.
        """
        if not self._closed:
            self._closed = True
            await uncancellable(self._close(flush))

    async def _close(self, flush: bool) -> None:
        try:
            await self._finish(flush)
        finally:
            try:
                await self._core.remote.aclose(flush=False)  # what a failed upload left pending is no state
            finally:
                await self._local.aclose(flush)

    async def _finish(self, flush: bool) -> None:
        """End what is under way; both stores stay open."""
        attached, self._live, self._closed = self._live, False, True
        if self._attaching is not None:
            await asyncio.wait([self._attaching])
        await self._core.finish(upload=flush and attached)
