"""``FileBlobStore``: the file store for threads.

A :class:`~uringblob.sync.looped.LoopedBlobStore` that asks in the caller's thread what may be asked in any.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from uringblob.api.backup import file_options
from uringblob.api.base import observe
from uringblob.api.blob_stat import BlobStat
from uringblob.api.changes import Changes
from uringblob.api.following import Following
from uringblob.api.open_options import OpenOptions, StorePath, open_options
from uringblob.api.sync_store import BlobStore
from uringblob.api.vacuum_stats import VacuumStats
from uringblob.buffers.views import NO_CHECKSUMS, BlobBuffer, Checksums, Write, guid_list
from uringblob.guid import GuidLike, guid_bytes
from uringblob.store.async_store import AsyncFileBlobStore
from uringblob.store.opening.open_request import OpenRequest
from uringblob.sync.following import FollowingInThread
from uringblob.sync.looped import LoopedBlobStore, open_on_loop
from uringblob.sync.snapshot import FileSnapshot
from uringblob.sync.store_handle import StoreHandle


class FileBlobStore(Following, LoopedBlobStore):
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

    _handle: StoreHandle[AsyncFileBlobStore]
    _core: AsyncFileBlobStore

    def __init__(self, handle: StoreHandle[AsyncFileBlobStore]) -> None:
        """Use :meth:`open`."""
        if not isinstance(handle, StoreHandle):
            raise TypeError("a FileBlobStore is made by FileBlobStore.open(path, ...)")
        super().__init__(handle)

    @classmethod
    @open_options
    def open(cls, options: OpenOptions) -> FileBlobStore:
        """Open the store file at ``path``, or make it."""

        async def opener() -> AsyncFileBlobStore:
            return await OpenRequest(AsyncFileBlobStore, options)

        name = f"uringblob {os.path.basename(options.file)}"
        other = "AsyncFileBlobStore needs none with engine='io_uring'"
        store = cls(open_on_loop(opener, name, options.file, other))
        return store if options.observer is None else observe(store, options.observer)

    # -- answered in the calling thread -------------------------------------------------------

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

    def has_blob(self, guid: GuidLike) -> bool:
        return self._checked._has(guid_bytes(guid))

    def has_blobs(self, guids: Iterable[GuidLike]) -> list[bool]:
        return BlobStore.has_blobs(self, guids)  # in this thread

    def __len__(self) -> int:
        return len(self._checked._core.index)

    def checksum(self, guid: GuidLike) -> int:
        return self._checked._core.reads.checksum(guid_bytes(guid))

    def stat_blob(self, guid: GuidLike) -> BlobStat:
        return self._checked._core.reads.stat(guid_bytes(guid))

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        got = self._handle.run_in_caller(self._core._read_in_caller, guid, dst)
        if got != self._core.page_size:
            self._handle.run(self._core._finish_read, guid, dst, got)

    # -- run on the store's loop --------------------------------------------------------------

    def commit(
        self,
        writes: Iterable[Write] = (),
        deletes: Iterable[GuidLike] = (),
        if_absent: Iterable[GuidLike] = (),
        if_checksum: Checksums = NO_CHECKSUMS,
    ) -> None:
        if if_absent or if_checksum:
            super().commit(writes, deletes, if_absent, if_checksum)
            return
        core = self._core
        self._handle.run_plain(core.begin_commit, core.commit, list(writes), guid_list(deletes))

    def snapshot(self) -> FileSnapshot:
        return FileSnapshot(self, self._handle, self._handle.run(self._core.snapshot))

    def refresh(self) -> bool:
        return self._handle.run(self._core.refresh)

    def follow(self) -> Iterator[Changes]:
        return FollowingInThread(self._handle, self._checked.follow())

    def set_max_bytes(self, max_bytes: int | None) -> None:
        """Do what :meth:`AsyncFileBlobStore.set_max_bytes` does."""
        self._handle.run(self._core.set_max_bytes, max_bytes)

    def vacuum(self, max_time: float | None = None) -> VacuumStats:
        return self._handle.run(self._core.vacuum, max_time)

    def _open_backup(self, path: StorePath) -> FileBlobStore:
        return FileBlobStore.open(path, **file_options(path, self.path, self.page_size, self.stats().engine))
