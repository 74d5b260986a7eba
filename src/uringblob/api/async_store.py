"""``AsyncBlobStore``: the contract, in signatures, documentation and default bodies.

:class:`~uringblob.api.sync_store.BlobStore` has the same methods without ``async``; it takes its
documentation and its defaults from here.  An implementation inherits the documentation.
"""

from __future__ import annotations

import abc
import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Literal, TypeVar, overload

from uringblob.api.backup import AsyncBackups
from uringblob.api.blob_stat import BlobStat
from uringblob.api.listing import checked_limit, merged, with_metas
from uringblob.api.scrub import scrub
from uringblob.api.snapshots import AsyncRefusals, ReadsThrough, checksums_of
from uringblob.api.uncancellable import uncancellable
from uringblob.api.vacuum_stats import VacuumStats, checked_max_time
from uringblob.api.verify_report import Progress, VerifyReport
from uringblob.buffers.checksum import frame_checksum
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
    checked_writes,
    guid_list,
    size_of,
    writable_view,
)
from uringblob.errors import BlobCorrupt, BlobNotFound, BlobStoreError, ConditionFailed, StoreClosed
from uringblob.guid import BlobGuid, GuidLike, guid_bytes

Self = TypeVar("Self", bound="AsyncBlobStore")
T = TypeVar("T")


class AsyncBlobStore(AsyncBackups, abc.ABC):
    """Frames of ``page_size`` bytes under 16-byte names, for tasks of one event loop.

    **Guids** are :class:`BlobGuid`, 16-byte ``bytes`` or ``uuid.UUID``; a wrong length is a
    ``ValueError``, a wrong type a ``TypeError``.

    **Buffers** are :class:`AlignedBlobBuf` or anything with the buffer protocol that is
    C-contiguous and exactly one frame long, writable where it is read into; a wrong length is a
    ``ValueError`` before any I/O.  Until a call returns or raises, its buffers belong to it.

    **Concurrency**: any number of tasks may use the store at once.  A cancelled call raises
    ``CancelledError`` only when the kernel has let go of its buffers; the change is then wholly
    done or not begun.

    **Errors**: after closing, ``StoreClosed``.  A change of a read-only store is ``StoreReadOnly``; what
    the system refuses is ``BlobStoreIOError`` (``applied`` says what is known); after a failure that
    leaves the medium's contents unknown, changes and flushes are ``StorePoisoned``, and reads go on.

    To write a store, implement the five abstract methods (``uringblob.views`` has the checks of
    arguments) and run ``uringblob.testing.check_async_blob_store`` over it.  The defaults of all other
    methods follow from the five; only ``commit`` loses a promise (atomicity) by being inherited.
    """

    # -- the five -----------------------------------------------------------------------------

    @abc.abstractmethod
    async def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        """Fill ``dst`` with the blob's frame.

        :raises BlobNotFound: there is none; ``dst`` is untouched.
        :raises BlobCorrupt: the bytes on the medium are not those written.
        """

    @abc.abstractmethod
    async def write_blob(self, guid: GuidLike, src: BlobBuffer, meta: bytes = b"") -> None:
        """Replace the blob's whole frame, and its metadata, atomically.

        A reader or a crash sees the old frame or the new one, never a mix.  Every read that
        starts after the return sees it; durable after :meth:`flush`.  ``meta`` is up to 255 bytes of your
        own, which :meth:`stat_blob` returns; more is a ``ValueError``.
        """

    @abc.abstractmethod
    async def delete_blob(self, guid: GuidLike) -> None:
        """Delete the blob; no-op if there is none.  Durable after :meth:`flush`."""

    @abc.abstractmethod
    async def list_blobs(self) -> list[BlobGuid]:
        """Return the names of all live blobs, in any order."""

    @abc.abstractmethod
    async def flush(self) -> None:
        """Return once everything that returned before the call is durable."""

    # -- batches ------------------------------------------------------------------------------

    async def write_blobs(self, writes: Iterable[Write]) -> None:
        """Write a batch; every guid and length is checked before any is applied.

        Each is ``(guid, buffer)``, or ``(guid, buffer, meta)`` with metadata as in :meth:`write_blob`.  The last write wins for a repeated guid.  After an error any of them may have been
        applied: retry the batch.
        """
        self._check_open()
        metas: dict[bytes, bytes] = {}
        for guid, src in checked_writes(writes, self.page_size, metas).items():
            if guid in metas:
                await self.write_blob(guid, src, metas[guid])
            else:
                await self.write_blob(guid, src)  # of a store that keeps no metadata, too

    async def write_blobs_with_data_sync(self, writes: Iterable[Write]) -> None:
        """Do :meth:`write_blobs`; the frames' bytes are on the medium at the return.

        :meth:`flush` is still needed for the mapping from guid to frame, and shorter then.  On
        io_uring one contiguous run of slots is a gathered write linked to one fdatasync, in one
        submission (``stats().batches_linked``); otherwise all writes, then one fdatasync
        (``batches_scattered``).
        """
        self._check_open()
        await self.write_blobs(writes)
        await self.flush()  # of the five methods only this one reaches the medium

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
        scratch = _Scratch(self.page_size)
        await self.read_blob(key, scratch)
        with writable_view(dst, size) as target, scratch.view[offset : offset + size] as part:
            target[:] = part

    async def commit(
        self,
        writes: Iterable[Write] = (),
        deletes: Iterable[GuidLike] = (),
        if_absent: Iterable[GuidLike] = (),
        if_checksum: Checksums = NO_CHECKSUMS,
    ) -> None:
        """Apply all of it or none: atomic, and durable at the return.

        It becomes visible at once, and not before it is durable.  File stores use one device flush,
        which concurrent commits share; a commit of more than 64 MiB takes two, so that recovery need
        not read it back.  Of concurrent changes to one guid either may win.

        With conditions it is applied only if all of them hold when its group is formed: no guid of
        ``if_absent`` is there, and each of ``if_checksum`` has that :meth:`checksum`.  They see what readers
        see, durable or not, and the commits before this one; so of many that create one blob ``if_absent``
        one succeeds.  They need not be of guids that the commit changes.

        **The default (check, writes, deletes, flush) is durable but not atomic**: a crash or an error
        in the middle leaves a part of it, readers see it grow, and others may change what was checked.

        :raises ConditionFailed: a condition does not hold; nothing was applied.
        :raises ValueError: a guid is both written and deleted.
        :raises BlobStoreIOError: the system refused; ``applied`` says what is known.
        :raises StorePoisoned: an earlier failure; nothing was applied.
        """
        self._check_open()
        metas: dict[bytes, bytes] = {}
        latest, doomed = checked_commit(writes, deletes, self.page_size, metas)
        for guid, expected in list(checked_conditions(if_absent, if_checksum)):
            found = await self._checksum_or_none(guid)
            if found != expected:
                raise ConditionFailed(guid, expected, found)
        if latest:
            await self.write_blobs(with_metas(latest, metas))
        for guid in doomed:
            await self.delete_blob(guid)
        await self.flush()

    async def _checksum_or_none(self, guid: bytes) -> int | None:
        try:
            return await self.checksum(guid)
        except BlobNotFound:
            return None

    # -- questions ----------------------------------------------------------------------------

    async def has_blob(self, guid: GuidLike) -> bool:
        """Return whether the blob exists; file and memory stores do no I/O, the default reads it."""
        self._check_open()
        key = guid_bytes(guid)
        try:
            # One frame's transfer, where list_blobs() may be millions of names.
            await self.read_blob(key, _Scratch(self.page_size))
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
        scratch = _Scratch(self.page_size)
        await self.read_blob(guid, scratch)
        return frame_checksum(scratch)

    async def stat_blob(self, guid: GuidLike) -> BlobStat:
        """Return size, checksum and metadata of the blob, of one moment; file and memory stores do no I/O.

        The default reads the frame, and knows of no metadata: a store that keeps some overrides it.

        :raises BlobNotFound: there is no such blob.
        """
        return BlobStat(self.page_size, await self.checksum(guid), b"")

    async def verify(
        self,
        progress: Progress | None = None,
        rate: float | None = None,
        deadline: float | None = None,
        since: GuidLike | None = None,
    ) -> VerifyReport:
        """Read every frame and all metadata, check every checksum, and report what is bad.

        Goes on past bad ones: also what cannot be read at all is an entry of the report.  Blobs are checked
        in ascending order of their names, those that are there at the beginning.

        :param progress: ``progress(done, total)`` is called after each blob, of a sync store in the calling
            thread; an exception from it ends the call.
        :param rate: read at most so many bytes of frames a second.
        :param deadline: after so many seconds report what was reached, with ``report.resume``.
        :param since: check only what lies beyond this name, which need not exist: the ``resume`` of an
            earlier report.
        :raises StoreClosed: the store was closed meanwhile, which does not wait for this.
        """
        self._check_open()
        return await scrub(self, progress, rate, deadline, since)

    async def snapshot(self) -> AsyncBlobSnapshot:
        """Return a read-only store of this moment: ``async with await store.snapshot() as snap``.

        Every read and list of it shows what is visible now, until it is closed, whatever changes meanwhile;
        :attr:`AsyncBlobSnapshot.seq` is the last durable group in it.  Changes of it are ``StoreReadOnly``.
        When the store is closed, it is, too.  File and memory stores take one without I/O and keep its
        frames until it is closed.

        **The default** lists the names with their checksums, and reads through: a frame that was replaced
        or deleted since is ``BlobChanged``.  What changes while it is taken may be in it or not.
        """
        self._check_open()
        return _ReadThroughSnapshot(self, await checksums_of(self))

    async def vacuum(self, max_time: float | None = None) -> VacuumStats:
        """Give space that is not needed back to the file system, in small steps.

        File stores flush what is pending, move frames from the file's end into free slots, give excess log
        space back, cut the file's end off, and punch holes where that leaves free slots between others.  Other
        calls go on meanwhile; a write of a blob that is being moved wins.  A frame that is not what was
        written stays where it is, and is an entry of the report.  So does one that an open snapshot shows:
        close snapshots first.

        **The default** does nothing: a store may have nothing to give back.

        :param max_time: seconds after which no further step begins (``stats.done`` is false then, and another
            call goes on); ``None``: go on to the end.
        :raises StoreClosed: the store was closed meanwhile, which waits for one step only.
        :raises BlobStoreIOError: the system refused; every blob stays readable where it is.
        """
        self._check_open()
        checked_max_time(max_time)
        return VacuumStats(0, 0, True)

    async def _check_frames(
        self, guids: Sequence[BlobGuid], note: Callable[[BlobGuid, BlobStoreError | None], object]
    ) -> None:
        """Read each frame and ``note`` its error; what :meth:`verify` does at once."""
        for guid in guids:
            note(guid, await self._read_one(guid, _Scratch(self.page_size)))

    async def _check_metadata(self) -> list[BlobStoreError]:
        """Return what is wrong with the metadata."""
        return []

    #: Frames that :meth:`verify` checks between two looks at the clock.
    _frames_at_once = 1

    def _now(self) -> float:
        return time.monotonic()

    async def _pause(self, seconds: float = 0) -> None:
        """Let other tasks run, between the steps of work that grows with the number of blobs."""
        await asyncio.sleep(seconds)

    # -- the end ------------------------------------------------------------------------------

    async def aclose(self, flush: bool = True) -> None:
        """Flush (unless ``flush=False``) and close, whatever happens, then raise the flush's error.

        A second call is silent.  Cancelling it does not stop it.  Later calls raise
        ``StoreClosed``; ``stats()`` and ``repr`` go on.
        """
        if self._closed:
            return
        try:
            if flush:
                await uncancellable(self.flush())
        finally:
            self._closed = True

    async def __aenter__(self: Self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class AsyncBlobSnapshot(AsyncRefusals, AsyncBlobStore):
    """A read-only :class:`AsyncBlobStore` of one moment, from :meth:`AsyncBlobStore.snapshot`."""


class _ReadThroughSnapshot(ReadsThrough, AsyncBlobSnapshot):
    """The default snapshot."""


#: Guids that are looked up or yielded between two pauses, and names that are sorted: 0.5 to 1 ms each.
GUIDS_AT_ONCE = 256
SORTED_AT_ONCE = 2048


class _Scratch(bytearray):
    """A frame to read into and drop.

    Before Python 3.12 an ``AlignedBlobBuf`` has no buffer protocol, and a store may know
    ``memoryview(dst)`` only, or ``dst.view`` only; this offers both.
    """

    __slots__ = ()

    @property
    def view(self) -> memoryview:
        return memoryview(self)
