"""What an open store in a bucket consists of, and its transfers of frames.

It does not refer to the store object, whose end can so be noticed.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from uringblob.api.blob_stat import BlobStat
from uringblob.api.scrub import Note
from uringblob.api.stats import StoreStats
from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.views import BlobBuffer, readable_view, writable_view
from uringblob.errors import (
    BlobChanged,
    BlobCorrupt,
    BlobNotFound,
    BlobStoreError,
    BlobStoreIOError,
    WriterFenced,
)
from uringblob.guid import BlobGuid
from uringblob.logs import logger
from uringblob.remote.bucket import BucketError, KeyMissing
from uringblob.remote.format import Entry, frame_key
from uringblob.remote.history import RESTARTS_MAX, History
from uringblob.remote.keeper import Keeper
from uringblob.remote.lease import Lease
from uringblob.remote.requests import io_error
from uringblob.remote.writer import Conditions, Writer

T = TypeVar("T")
Find = Callable[[bytes], "Entry | None"]


class Moment(Protocol):
    """A snapshot: a moment that may still be read."""

    @property
    def closed(self) -> bool: ...
    @property
    def seq(self) -> int: ...


class Core:
    """One open store: its requests, history and lease, and the writer and keeper of one that writes."""

    def __init__(self, history: History, session: bytes, lease_s: float, *, owns_bucket: bool) -> None:
        self.history, self.requests, self.session = history, history.requests, session
        self.name, self.page_size = history.requests.name, history.head.page_size
        self.lease = Lease(self.requests, session, lease_s, self.oldest)
        self.writer: Writer | None = None
        self.keeper: Keeper | None = None
        self.snapshots: weakref.WeakSet[Moment] = weakref.WeakSet()
        self._owns_bucket = owns_bucket
        self._reads = self._writes = 0
        self._refreshing = asyncio.Lock()

    # -- what is visible ----------------------------------------------------------------------

    def find(self, guid: bytes) -> Entry | None:
        """Return where the blob's frame is, or ``None``."""
        return self.history.blobs.get(guid) if self.writer is None else self.writer.find(guid)

    def shown(self) -> dict[bytes, Entry]:
        """Return all that is visible, in a copy."""
        shown: dict[bytes, Entry | None] = dict(self.history.blobs)
        if self.writer is not None:
            shown.update(self.writer.flying)
            shown.update(self.writer.pending)
        return {guid: entry for guid, entry in shown.items() if entry is not None}

    def count(self) -> int:
        """Return how many blobs are visible."""
        blobs, writer = self.history.blobs, self.writer
        if writer is None:
            return len(blobs)
        overlaid = {*writer.flying, *writer.pending}
        return len(blobs) + sum((writer.find(guid) is not None) - (guid in blobs) for guid in overlaid)

    def oldest(self) -> int:
        """Return the number of the oldest state that may still be read."""
        return min([self.history.seq, *(each.seq for each in self.snapshots if not each.closed)])

    def stat(self, find: Find, guid: bytes) -> BlobStat:
        """Return what the map says of a blob."""
        entry = find(guid) or self._not_found(guid)
        return BlobStat(self.page_size, entry.checksum, entry.meta)

    def _not_found(self, guid: bytes) -> Entry:
        raise BlobNotFound(guid, f"{self.name}: no blob {BlobGuid(guid)}: list_blobs() names those there")

    # -- reading ------------------------------------------------------------------------------

    async def read(self, find: Find, guid: bytes, dst: BlobBuffer) -> None:
        """Fill ``dst`` with the frame that ``find`` shows, checked."""
        with writable_view(dst, self.page_size) as target:
            target[:] = await self._frame(find, guid)
        self._reads += 1

    async def _frame(self, find: Find, guid: bytes) -> bytes | memoryview:
        while True:
            entry = find(guid) or self._not_found(guid)
            key = frame_key(entry.frame)
            where = f"{self.name}: {key}"
            try:
                body = await self.requests.frame(key, self.page_size)
            except KeyMissing:
                if find(guid) is not entry:
                    continue  # it was replaced meanwhile, and collected
                if self.lease.holds and not self.lease.broken:
                    raise BlobCorrupt(
                        f"{where}: the frame of blob {BlobGuid(guid)} is missing: restore this blob", guid
                    ) from None
                raise BlobChanged(
                    f"{where}: the frame of blob {BlobGuid(guid)} is gone: collected, as this store slept longer than "
                    "its lease; call refresh(), or take a new snapshot",
                    guid,
                ) from None
            except BucketError as error:
                raise io_error(error, f"{where}: reading blob {BlobGuid(guid)}", guid) from error
            if len(body) != self.page_size or frame_checksum(body) != entry.checksum:
                raise BlobCorrupt(
                    f"{where}: the {len(body)} bytes of blob {BlobGuid(guid)} are not those written: restore this "
                    "blob",
                    guid,
                )
            return body

    async def read_many(
        self, find: Find, reads: Sequence[tuple[bytes, BlobBuffer]]
    ) -> list[BlobStoreError | None]:
        """Read frames at once; return the error of each, or ``None``."""
        errors: list[BlobStoreError | None] = [None] * len(reads)

        async def one(index: int, guid: bytes, dst: BlobBuffer) -> None:
            try:
                await self.read(find, guid, dst)
            except BlobStoreError as error:
                errors[index] = error.with_traceback(None)

        await self.requests.at_once([functools.partial(one, at, *read) for at, read in enumerate(reads)])
        return errors

    async def check_many(self, find: Find, guids: Sequence[BlobGuid], note: Note) -> None:
        """Read frames at once and note the error of each."""
        rooms = [(bytes(guid), bytearray(self.page_size)) for guid in guids]
        for guid, error in zip(guids, await self.read_many(find, rooms), strict=True):
            note(guid, error)

    # -- changing -----------------------------------------------------------------------------

    async def put(
        self, writes: Mapping[bytes, BlobBuffer], metas: Mapping[bytes, bytes]
    ) -> dict[bytes, Entry]:
        """Put frames, at once; return the entries for them."""
        writer = self._writing()
        writer.check()
        named = {guid: writer.name_frame() for guid in writes}
        entries: dict[bytes, Entry] = {}

        async def one(guid: bytes, src: BlobBuffer) -> None:
            key = frame_key(named[guid])
            with readable_view(src, self.page_size) as view:
                # Before it is sent: the frames before it are on their way meanwhile.
                entry = Entry(named[guid], frame_checksum(view), metas.get(guid, b""))
                try:
                    await self.requests.put(key, view)
                except BucketError as error:
                    what = f"{self.name}: {key}: putting the frame of blob {BlobGuid(guid)}"
                    raise io_error(error, what, guid) from error
                entries[guid] = entry

        try:
            await self.requests.at_once([functools.partial(one, *write) for write in writes.items()])
        except BaseException:
            writer.dead.extend((0, name) for name in named.values())
            raise
        self._writes += len(entries)
        return entries

    async def write(self, writes: Mapping[bytes, BlobBuffer], metas: Mapping[bytes, bytes]) -> None:
        """Put frames and make them visible."""
        self._writing().change(await self.put(writes, metas))

    def delete(self, guid: bytes) -> None:
        """Make a blob invisible."""
        self._writing().change({guid: None})

    async def commit(
        self,
        writes: Mapping[bytes, BlobBuffer],
        metas: Mapping[bytes, bytes],
        deletes: Sequence[bytes],
        conditions: Conditions,
    ) -> None:
        """Put frames; return when a group in the log has all changes."""
        entries: dict[bytes, Entry | None] = {**await self.put(writes, metas), **dict.fromkeys(deletes)}
        if entries or conditions:
            await self._writing().commit(entries, conditions)

    def _writing(self) -> Writer:
        assert self.writer is not None
        return self.writer

    # -- maintenance --------------------------------------------------------------------------

    async def refresh(self) -> bool:
        """Go on to the end of the log; return whether there was more."""
        if self.writer is not None:
            return await self._asked(self.writer.look(), "looking for the last group")
        async with self._refreshing:
            before = self.history.seq
            await self._asked(self._go_on(), "reading the log")
            return self.history.seq != before

    @property
    def unknown(self) -> bool:
        """Whether a look at the bucket may show more than is known here: see :meth:`settle`."""
        return self.writer is not None and self.writer.unknown

    async def settle(self) -> None:
        """Look once for a group of unknown outcome; where that fails, what is known stays what is shown."""
        try:
            await self.refresh()
        except (BlobStoreIOError, WriterFenced) as error:
            logger.info(
                "%s: a commit's outcome is still unknown; refresh() looks again: %s",
                self.name,
                error,
                extra={"event": "outcome_unknown", "path": self.name},
            )

    async def _go_on(self) -> None:
        if self.lease.holds:
            await self.history.advance(protected=True)
            if self.lease.holds:
                return
        self.lease.broken = True
        await self.take_lease()

    async def take_lease(self) -> None:
        """Go on to the end of the log, and take a lease that no collector can have missed (rule 17)."""
        for _ in range(RESTARTS_MAX):
            await self.history.advance()
            await self.lease.take()
            await self.history.read_head()
            if self.history.head.horizon <= self.history.seq:
                return
        raise BlobStoreIOError(
            errno.EAGAIN, f"{self.name}: its log grows faster than it can be read here: try again"
        )

    async def compact(self) -> None:
        """See :meth:`Keeper.compact`."""
        assert self.keeper is not None
        await self._asked(self.keeper.compact(), "writing the map")

    async def collect(self) -> int:
        """See :meth:`Keeper.collect`."""
        assert self.keeper is not None
        return await self._asked(self.keeper.collect(), "collecting garbage")

    async def _asked(self, request: Awaitable[T], what: str) -> T:
        try:
            return await request
        except BucketError as error:
            raise io_error(error, f"{self.name}: {what}") from error

    def stats(self) -> StoreStats:
        """Return what is known now."""
        requests, writer, keeper = self.requests, self.writer, self.keeper
        shown = self.count()
        dead = 0 if writer is None else len(writer.dead)
        return StoreStats(
            engine="remote",
            engine_reason=f"objects in {self.name}",
            page_size=self.page_size,
            blobs=shown,
            slots_live=shown,
            slots_pending=dead,
            allocated_bytes=(shown + dead) * self.page_size,
            snapshots=sum(not each.closed for each in self.snapshots),
            reads=self._reads,
            writes=self._writes,
            bytes_read=requests.bytes_read,
            bytes_written=requests.bytes_written,
            in_flight=requests.in_flight,
            commits=0 if writer is None else writer.commits,
            log_groups=0 if writer is None else writer.groups,
            compactions=0 if keeper is None else keeper.compactions,
            read_only=writer is None,
            notes=(f"no lease, so frames that are replaced may be gone: {self.lease.refused}",)
            if self.lease.refused
            else (),
            poisoned="" if writer is None or writer.fenced is None else str(writer.fenced),
        )

    # -- the end ------------------------------------------------------------------------------

    async def close(self, *, flush: bool) -> None:
        """Flush, wait for the background, give the lease back whatever happens; then raise the flush's error."""
        error: BaseException | None = None
        if self.writer is not None:
            await self.writer.wait_idle()
            try:
                if flush:
                    await self.writer.flush()
            except BlobStoreError as failure:
                error = failure
            if self.keeper is not None:
                await self.keeper.wait_idle()
        try:
            await self.lease.end()
        except BucketError as failure:
            logger.info(
                "%s: the lease was not given back, and ends by itself: %s",
                self.name,
                failure,
                extra={"event": "lease_failed", "path": self.name, "errno": failure.errno},
            )
        if self._owns_bucket:
            await self.requests.bucket.aclose()
        if error is not None:
            raise error

    def drop(self) -> None:
        """End what runs in the background, without a request."""
        self.lease.drop()
