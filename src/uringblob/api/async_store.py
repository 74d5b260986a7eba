"""``AsyncBlobStore``: the contract, in signatures, documentation and default bodies.

:class:`~uringblob.api.sync_store.BlobStore` has the same methods without ``async``; it takes its
documentation and its defaults from here.  An implementation inherits the documentation.
What changes nothing is in :mod:`uringblob.api.async_reads`.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TypeVar

from uringblob.api.async_reads import AsyncReads, Scratch
from uringblob.api.backup import AsyncBackups
from uringblob.api.listing import with_metas
from uringblob.api.scrub import scrub
from uringblob.api.snapshots import AsyncRefusals, ReadsThrough, checksums_of
from uringblob.api.uncancellable import uncancellable
from uringblob.api.vacuum_stats import VacuumStats, checked_max_time
from uringblob.api.verify_report import Progress, VerifyReport
from uringblob.buffers.views import (
    NO_CHECKSUMS,
    BlobBuffer,
    Checksums,
    Write,
    checked_commit,
    checked_conditions,
    checked_writes,
)
from uringblob.errors import BlobNotFound, BlobStoreError, ConditionFailed
from uringblob.guid import BlobGuid, GuidLike

Self = TypeVar("Self", bound="AsyncBlobStore")


class AsyncBlobStore(AsyncReads, AsyncBackups):
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

    # -- three of the five; two are reads ------------------------------------------------------

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
    async def flush(self) -> None:
        """Return once everything that returned before the call is durable."""

    # -- batches ------------------------------------------------------------------------------

    async def write_blobs(self, writes: Iterable[Write]) -> None:
        """Write a batch; every guid and length is checked before any is applied.

        Each is ``(guid, buffer)``, or ``(guid, buffer, meta)`` with metadata as in :meth:`write_blob`.  The
        last write wins for a repeated guid.  After an error any of them may have been applied: retry the
        batch.
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
            note(guid, await self._read_one(guid, Scratch(self.page_size)))

    async def _check_metadata(self) -> list[BlobStoreError]:
        """Return what is wrong with the metadata."""
        return []

    #: Frames that :meth:`verify` checks between two looks at the clock.
    _frames_at_once = 1

    def _now(self) -> float:
        return time.monotonic()

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
