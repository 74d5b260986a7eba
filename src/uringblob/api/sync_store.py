"""``BlobStore``: what every synchronous store offers.

The same names and meanings as :class:`~uringblob.api.async_store.AsyncBlobStore`; the defaults are
that class's text, run inline over an asynchronous view of the store.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TypeVar

from uringblob.api import defaults
from uringblob.api.adapter import SyncToAsyncAdapter
from uringblob.api.inline import run_to_completion
from uringblob.api.stats import StoreStats
from uringblob.api.verify_report import VerifyReport
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import BlobBuffer
from uringblob.errors import BlobStoreError
from uringblob.guid import BlobGuid, GuidLike
from uringblob.units import PAGE_SIZE

Self = TypeVar("Self", bound="BlobStore")


class BlobStore(abc.ABC):
    """Frames of ``page_size`` bytes under 16-byte names.

    **Guids** are :class:`BlobGuid`, 16-byte ``bytes`` or ``uuid.UUID``; a wrong length is a
    ``ValueError``, a wrong type a ``TypeError``.

    **Buffers** are :class:`AlignedBlobBuf` or anything with the buffer protocol that is
    C-contiguous and exactly one frame long, writable where it is read into; a wrong length is a
    ``ValueError`` before any I/O.  Until a call returns or raises, its buffers belong to it.

    **Threads**: every method may be called from any number of threads at once, also from one in
    which an event loop runs (which it blocks).  A signal handler that raises ends only the call
    that it struck, which is then wholly done or not begun.

    **Errors**: after closing, ``StoreClosed``.  A change of a read-only store is ``StoreReadOnly``; what
    the system refuses is ``BlobStoreIOError`` (``applied`` says what is known); after a failure that
    leaves the medium's contents unknown, changes and flushes are ``StorePoisoned``, and reads go on.

    To write a store, implement the five abstract methods (``uringblob.buffers.views`` has the checks of
    arguments) and run ``uringblob.testing.check_blob_store`` over it.
    """

    _closed = False

    @property
    def page_size(self) -> int:
        """The frame size in bytes, the same for the store's whole life."""
        return PAGE_SIZE

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    # -- the five -----------------------------------------------------------------------------

    @abc.abstractmethod
    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        """Fill ``dst`` with the blob's frame.

        :raises BlobNotFound: there is none; ``dst`` is untouched.
        :raises BlobCorrupt: the bytes on the medium are not those written.
        """

    @abc.abstractmethod
    def write_blob(self, guid: GuidLike, src: BlobBuffer) -> None:
        """Replace the blob's whole frame, atomically.

        A reader or a crash sees the old frame or the new one, never a mix.  Every read that
        starts after the return sees it; durable after :meth:`flush`.
        """

    @abc.abstractmethod
    def delete_blob(self, guid: GuidLike) -> None:
        """Forget the blob; no-op if there is none.  Durable after :meth:`flush`."""

    @abc.abstractmethod
    def list_blobs(self) -> list[BlobGuid]:
        """Return the names of all live blobs, in any order."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Return once everything that returned before the call is durable."""

    # -- buffers ------------------------------------------------------------------------------

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        """Return a zero-filled frame: from the registered pool when it has room, else the heap."""
        defaults.check_open(self)
        return AlignedBlobBuf.zeroed(self.page_size)

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        """Return a frame to be filled by the caller, with anything in it.

        It may hold bytes that this process read or wrote earlier, never those of another one.
        """
        defaults.check_open(self)
        return AlignedBlobBuf.uninit(self.page_size)

    # -- batches ------------------------------------------------------------------------------

    def write_blobs(self, writes: Iterable[tuple[GuidLike, BlobBuffer]]) -> None:
        """Write a batch; every guid and length is checked before any is applied.

        The last write wins for a repeated guid.  After an error any of them may have been
        applied: retry the batch.
        """
        defaults.check_open(self)
        run_to_completion(defaults.write_blobs(SyncToAsyncAdapter(self), writes))

    def write_blobs_with_data_sync(self, writes: Iterable[tuple[GuidLike, BlobBuffer]]) -> None:
        """Do :meth:`write_blobs`, and have the frames' bytes on the medium at the return.

        :meth:`flush` is still needed for the mapping from guid to frame, and shorter then.
        """
        defaults.check_open(self)
        run_to_completion(defaults.write_blobs_with_data_sync(SyncToAsyncAdapter(self), writes))

    def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        """Read a batch; return, per position, ``None`` or the error of that position alone.

        Wrong guids and lengths raise before any read.
        """
        defaults.check_open(self)
        return run_to_completion(defaults.read_blobs(SyncToAsyncAdapter(self), reads))

    def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        """Fill ``dst`` with the frame's bytes from ``offset`` on.

        ``offset`` and ``len(dst)`` are multiples of 4096 inside the frame, else ``ValueError``.
        Only these bytes are read, so a frame's checksum is not checked (this default reads
        the whole frame).
        """
        defaults.check_open(self)
        run_to_completion(defaults.read_blob_range(SyncToAsyncAdapter(self), guid, offset, dst))

    def commit(
        self,
        writes: Iterable[tuple[GuidLike, BlobBuffer]] = (),
        deletes: Iterable[GuidLike] = (),
    ) -> None:
        """Apply all of it or none, and have it durable at the return.

        A guid that is both written and deleted is a ``ValueError``.

        **This default (writes, deletes, flush) is durable but not atomic**: a crash or an error
        in the middle leaves a part of it, and readers see it grow.
        """
        defaults.check_open(self)
        run_to_completion(defaults.commit(SyncToAsyncAdapter(self), writes, deletes))

    # -- questions ----------------------------------------------------------------------------

    def needs_flush(self) -> bool:
        """Return false only if nothing that returned, or failed half-way, still needs a flush.

        Never waits.  This default cannot know and says true.
        """
        defaults.check_open(self)
        return True

    def has_blob(self, guid: GuidLike) -> bool:
        """Return whether the blob is there (this default reads it)."""
        defaults.check_open(self)
        return run_to_completion(defaults.has_blob(SyncToAsyncAdapter(self), guid))

    def checksum(self, guid: GuidLike) -> int:
        """Return the XXH3-64 of the blob's frame: a number from 0 to 2**64 - 1, good as an ETag.

        It is the visible frame's, and changes only when the frame does.  File stores keep it and
        answer without I/O, whatever the medium holds meanwhile; this default reads the frame.

        :raises BlobNotFound: there is no such blob.
        """
        defaults.check_open(self)
        return run_to_completion(defaults.checksum(SyncToAsyncAdapter(self), guid))

    def verify(self, progress: defaults.Progress | None = None) -> VerifyReport:
        """Read every frame and all metadata, check every checksum, and report what is bad.

        Goes on past bad ones.  ``progress(done, total)`` is called after each blob; an
        exception from it ends the call.
        """
        defaults.check_open(self)
        return run_to_completion(defaults.verify(SyncToAsyncAdapter(self), progress))

    def stats(self) -> StoreStats:
        """Return a frozen snapshot of what the store counts; works after closing too."""
        return StoreStats(page_size=self.page_size)

    # -- the end ------------------------------------------------------------------------------

    def close(self, flush: bool = True) -> None:
        """Flush (unless ``flush=False``) and close, whatever happens, then raise the flush's error.

        A second call is silent.  Later calls raise ``StoreClosed``; ``stats()`` and ``repr``
        go on.
        """
        if self._closed:
            return
        try:
            if flush:
                self.flush()
        finally:
            self._closed = True

    def __enter__(self: Self) -> Self:
        defaults.check_open(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} page_size={self.page_size} {state}>"
