"""``FileBlobStore``: the file store for threads.

It decides nothing: each method runs its namesake on the store's loop
(:mod:`uringblob.sync.store_handle`) and waits, or asks what may be asked from any thread.
Iterables are walked here, in the caller's thread: they may use the store themselves.
"""

from __future__ import annotations

import errno
import functools
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence

from uringblob.api.backup import file_options
from uringblob.api.base import observe
from uringblob.api.blob_stat import BlobStat
from uringblob.api.open_options import OpenOptions, StorePath, open_options
from uringblob.api.stats import StoreStats
from uringblob.api.sync_store import BlobStore
from uringblob.api.verify_report import Progress, VerifyReport
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import NO_CHECKSUMS, BlobBuffer, Checksums, Write, guid_list
from uringblob.errors import BlobStoreError, BlobStoreIOError
from uringblob.guid import BlobGuid, GuidLike, guid_bytes
from uringblob.limits import thread_limits
from uringblob.owner import StoreOwner
from uringblob.store.async_store import AsyncFileBlobStore
from uringblob.store.opening.open_request import OpenRequest
from uringblob.sync.loop_thread import NoThread
from uringblob.sync.snapshot import FileSnapshot
from uringblob.sync.store_handle import StoreHandle


class FileBlobStore(StoreOwner, BlobStore):
    """A :class:`BlobStore` in one file; made by :meth:`open`.

    **Threads**: any number of threads may use one store at once, also those in which an event
    loop runs.  The store has one thread of its own, in which its I/O is submitted; only
    :meth:`read_blob` reads in the caller's: no thread switch, and many threads read at once.

    **Signals**: a handler may run at any time.  One that raises ends only the call that it
    interrupted, when the kernel has let go of that call's buffers; the change is then wholly done or
    not begun.  A handler may use the store itself; it closes the store only where it did not
    interrupt a :meth:`read_blob` of its thread, for which ``close`` would wait (``RuntimeError``).
    A handler that raises during ``close`` does not stop it: the store is closed first.

    **Fork**: in the child every use is a ``RuntimeError``; ``close()`` and garbage collection do
    nothing there, and the parent notices nothing.

    **The end**: leave it with ``with`` or ``close()``.  A store that is collected while open
    warns (``ResourceWarning``) and is closed without a flush; so is, silently, one that is open
    when the interpreter exits.
    """

    def __init__(self, handle: StoreHandle[AsyncFileBlobStore]) -> None:
        """Use :meth:`open`."""
        if not isinstance(handle, StoreHandle):
            raise TypeError("a FileBlobStore is made by FileBlobStore.open(path, ...)")
        self._core = handle.core
        self._handle = handle

    @classmethod
    @open_options
    def open(cls, options: OpenOptions) -> FileBlobStore:
        """Open the store file at ``path``, or make it."""

        async def opener() -> AsyncFileBlobStore:
            return await OpenRequest(AsyncFileBlobStore, options)

        try:
            handle = StoreHandle(opener, f"uringblob {os.path.basename(options.file)}")
        except NoThread as error:
            raise BlobStoreIOError(
                errno.EAGAIN,
                f"{options.file}: a synchronous store needs a thread of its own, and there is none to be had: "
                f"{thread_limits()}. AsyncFileBlobStore needs none with engine='io_uring'",
            ) from error
        store = cls(handle)
        return store if options.observer is None else observe(store, options.observer)

    # -- answered in the calling thread -------------------------------------------------------

    @property
    def page_size(self) -> int:
        return self._core.page_size

    @property
    def path(self) -> str:
        """The store file, symbolic links resolved."""
        return self._core.path

    @property
    def closed(self) -> bool:
        return self._handle.closed

    @property
    def _checked(self) -> AsyncFileBlobStore:
        self._handle.check()
        return self._core

    def _check_open(self) -> None:
        self._handle.check()

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        return self._checked.alloc_blob_buf_zeroed()

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        return self._checked.alloc_blob_buf_uninit()

    def needs_flush(self) -> bool:
        return self._checked.needs_flush()

    def has_blob(self, guid: GuidLike) -> bool:
        return self._checked._has(guid_bytes(guid))

    def __len__(self) -> int:
        return len(self._checked._core.index)

    def checksum(self, guid: GuidLike) -> int:
        return self._checked._core.reads.checksum(guid_bytes(guid))

    def stat_blob(self, guid: GuidLike) -> BlobStat:
        return self._checked._core.reads.stat(guid_bytes(guid))

    def stats(self) -> StoreStats:
        if self._handle.inherited:
            self._handle.check()
        return self._core.stats()

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        got = self._handle.run_in_caller(self._core._read_in_caller, guid, dst)
        if got != self._core.page_size:
            self._handle.run(self._core._finish_read, guid, dst, got)

    # -- run on the store's loop --------------------------------------------------------------

    def write_blob(self, guid: GuidLike, src: BlobBuffer, meta: bytes = b"") -> None:
        self._handle.run(self._core.write_blob, guid, src, meta)

    def delete_blob(self, guid: GuidLike) -> None:
        self._handle.run(self._core.delete_blob, guid)

    def list_blobs(self) -> list[BlobGuid]:
        return self._handle.run(self._core.list_blobs)

    def flush(self) -> None:
        self._handle.run(self._core.flush)

    def write_blobs(self, writes: Iterable[Write]) -> None:
        self._handle.run(self._core.write_blobs, list(writes))

    def write_blobs_with_data_sync(self, writes: Iterable[Write]) -> None:
        self._handle.run(self._core.write_blobs_with_data_sync, list(writes))

    def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        return self._handle.run(self._core.read_blobs, list(reads))

    def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        self._handle.run(self._core.read_blob_range, guid, offset, dst)

    def commit(
        self,
        writes: Iterable[Write] = (),
        deletes: Iterable[GuidLike] = (),
        if_absent: Iterable[GuidLike] = (),
        if_checksum: Checksums = NO_CHECKSUMS,
    ) -> None:
        core = self._core
        if if_absent or if_checksum:
            absent = guid_list(if_absent, "if_absent")
            checksums = dict(if_checksum) if isinstance(if_checksum, Mapping) else if_checksum
            self._handle.run(core.commit, list(writes), guid_list(deletes), absent, checksums)
            return
        self._handle.run_plain(core.begin_commit, core.commit, list(writes), guid_list(deletes))

    def snapshot(self) -> FileSnapshot:
        return FileSnapshot(self, self._handle, self._handle.run(self._core.snapshot))

    def set_max_bytes(self, max_bytes: int | None) -> None:
        """Do what :meth:`AsyncFileBlobStore.set_max_bytes` does."""
        self._handle.run(self._core.set_max_bytes, max_bytes)

    def verify(
        self,
        progress: Progress | None = None,
        rate: float | None = None,
        deadline: float | None = None,
        since: GuidLike | None = None,
    ) -> VerifyReport:
        verify = functools.partial(self._core.verify, rate=rate, deadline=deadline, since=since)
        return self._handle.run_with_progress(verify, progress)

    def _open_backup(self, path: StorePath) -> FileBlobStore:
        return FileBlobStore.open(path, **file_options(path, self.path, self.page_size, self.stats().engine))

    # -- the end ------------------------------------------------------------------------------

    def close(self, flush: bool = True) -> None:
        self._handle.close(flush=flush)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._core!r}>"

    def __del__(self) -> None:
        handle: StoreHandle[AsyncFileBlobStore] | None = getattr(self, "_handle", None)
        if handle is not None and not handle.closed and not handle.inherited:
            try:
                text = f"{self!r} was never closed, and is not flushed"
                warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
            finally:
                # Not left to the handle's own end: a recorded warning keeps both alive.
                handle.__del__()
