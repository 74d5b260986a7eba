"""``FileBlobStore``: the synchronous face of the file store.

It decides nothing.  Each method hands its call to the store's completion loop
(:mod:`uringblob.sync.store_handle`) and waits, or asks what may be asked from any thread.
Iterables are walked here, in the caller's thread: they may use the store themselves.
"""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Union

from uringblob.api.base import observe
from uringblob.api.observer import StoreObserver
from uringblob.api.stats import StoreStats
from uringblob.api.sync_store import BlobStore
from uringblob.api.verify_report import Progress, VerifyReport
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import BlobBuffer, guid_list
from uringblob.errors import BlobStoreError, BlobStoreIOError
from uringblob.guid import BlobGuid, GuidLike, guid_bytes
from uringblob.limits import thread_limits
from uringblob.owner import StoreOwner
from uringblob.store.async_store import AsyncFileBlobStore
from uringblob.sync.loop_thread import NoThread
from uringblob.sync.store_handle import StoreHandle
from uringblob.units import MODE

StorePath = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]


class FileBlobStore(StoreOwner, BlobStore):
    """A :class:`BlobStore` in one file; made by :meth:`open`.

    **Threads**: any number of threads may use one store at once, also those in which an event
    loop runs.  The store has one thread of its own, in which its I/O is asked for; only
    :meth:`read_blob` reads in the caller's.

    **Signals**: a handler may run at any time.  One that raises ends only the call that it
    struck, when the kernel has let go of that call's buffers; the change is then wholly done or
    not begun.  A handler may use the store itself; it closes the store only where it did not
    interrupt a :meth:`read_blob`.

    **Fork**: in the child every use is a ``RuntimeError``; ``close()`` and garbage collection do
    nothing there, and the parent notices nothing.

    **The end**: leave it with ``with`` or ``close()``.  A store that is collected while open
    warns (``ResourceWarning``) and is closed without a flush; so is, silently, one that is open
    when the interpreter exits.
    """

    def __init__(self, pilot: StoreHandle) -> None:
        """Take the wheel; users call :meth:`open`."""
        if not isinstance(pilot, StoreHandle):
            raise TypeError("a FileBlobStore is made by FileBlobStore.open(path, ...)")
        self._core = pilot.core
        self._pilot: StoreHandle | None = pilot

    @classmethod
    def open(
        cls,
        path: StorePath,
        *,
        page_size: int | None = None,
        create: bool = True,
        read_only: bool = False,
        engine: str = "auto",
        direct: bool | None = None,
        buffers: int | None = None,
        queue_depth: int = 256,
        lock_timeout: float = 5.0,
        verify: bool = True,
        mode: int = MODE,
        observer: StoreObserver | None = None,
    ) -> FileBlobStore:
        """Open the store file at ``path``, or make it.

        :param page_size: the frame size in bytes of a new store (default 524288), a power of two
            from 4096 to 16 MiB; for an existing one it must be the store's.
        :param create: make the store if there is none.
        :param read_only: change not a byte on disk; several may be open together, none beside a
            writer.  After an unclean end it shows what a writer would find; only where it reads
            through a cache the last, unconfirmed group is left out (``stats().notes``).
        :param engine: ``"io_uring"``, ``"pread"``, or ``"auto"``: the best that works here.  The
            environment variable ``URINGBLOB_ENGINE`` sets the default.
        :param direct: ``True`` requires O_DIRECT, ``False`` forbids it, ``None`` takes it where
            the file system has it.
        :param buffers: frames in the registered pool (default 64, or as many as fit 32 MiB).
        :param queue_depth: submission queue entries; more requests than that wait their turn.
        :param lock_timeout: seconds to wait for another opener.
        :param verify: check each frame's checksum when it is read.
        :param mode: permission bits of a newly created store file.
        :param observer: is told of every call, in the caller's thread; see
            :class:`uringblob.StoreObserver`.

        :raises FileNotFoundError: no store and ``create`` is false, or no such directory.
        :raises StoreLocked: another opener held the store all the time.
        :raises StoreCorrupt: the file is empty or not a store; it is left untouched.
        :raises PageSizeMismatch: the store has another frame size.
        :raises EngineUnavailable: the engine asked for by name cannot run, or ``direct=True``
            where O_DIRECT does not work.
        :raises OSError: whatever ``os.open`` raises.
        :raises BlobStoreIOError: the system refused something else, such as the store's thread.
        :raises ValueError: an option out of range.
        """
        path = os.fspath(path)

        async def opener() -> AsyncFileBlobStore:
            return await AsyncFileBlobStore.open(
                path,
                page_size=page_size,
                create=create,
                read_only=read_only,
                engine=engine,
                direct=direct,
                buffers=buffers,
                queue_depth=queue_depth,
                lock_timeout=lock_timeout,
                verify=verify,
                mode=mode,
            )

        try:
            pilot = StoreHandle(opener, f"uringblob {os.path.basename(os.fsdecode(path))}")
        except NoThread as error:
            raise BlobStoreIOError(
                errno.EAGAIN,
                f"{os.fsdecode(path)}: a synchronous store needs a thread of its own, and there is none to be had: "
                f"{thread_limits()}. AsyncFileBlobStore needs none with engine='io_uring'",
            ) from error
        store = cls(pilot)
        return store if observer is None else observe(store, observer)

    # -- answered in the calling thread -------------------------------------------------------

    @property
    def page_size(self) -> int:
        """The frame size in bytes."""
        return self._core.page_size

    @property
    def path(self) -> str:
        """The store file, symbolic links resolved."""
        return self._core.path

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called and has ended."""
        return self._wheel.closed

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        """See :meth:`BlobStore.alloc_blob_buf_zeroed`."""
        return self._checked.alloc_blob_buf_zeroed()

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        """See :meth:`BlobStore.alloc_blob_buf_uninit`."""
        return self._checked.alloc_blob_buf_uninit()

    def needs_flush(self) -> bool:
        """See :meth:`BlobStore.needs_flush`."""
        return self._checked.needs_flush()

    def has_blob(self, guid: GuidLike) -> bool:
        """See :meth:`BlobStore.has_blob`; without I/O, and without waiting."""
        return self._checked._has(guid_bytes(guid))

    def checksum(self, guid: GuidLike) -> int:
        """See :meth:`BlobStore.checksum`; without I/O, and without waiting."""
        return self._checked._core.checksum(guid_bytes(guid))

    def stats(self) -> StoreStats:
        """See :meth:`BlobStore.stats`."""
        if self._wheel.inherited:
            self._wheel.check()
        return self._core.stats()

    # -- run on the store's loop --------------------------------------------------------------

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        """See :meth:`BlobStore.read_blob`; the calling thread makes the system call itself.

        No thread switch, and many threads read at once.  A signal is handled when that call has
        ended.  What does not go as it should is finished by the store's thread.
        """
        got = self._wheel.visit(self._core._read_here, guid, dst)
        if got != self._core.page_size:
            self._wheel.run(self._core._read_after, guid, dst, got)

    def write_blob(self, guid: GuidLike, src: BlobBuffer) -> None:
        """See :meth:`BlobStore.write_blob`."""
        self._wheel.run(self._core.write_blob, guid, src)

    def delete_blob(self, guid: GuidLike) -> None:
        """See :meth:`BlobStore.delete_blob`."""
        self._wheel.run(self._core.delete_blob, guid)

    def list_blobs(self) -> list[BlobGuid]:
        """See :meth:`BlobStore.list_blobs`."""
        return self._wheel.run(self._core.list_blobs)

    def flush(self) -> None:
        """See :meth:`BlobStore.flush`."""
        self._wheel.run(self._core.flush)

    def write_blobs(self, writes: Iterable[tuple[GuidLike, BlobBuffer]]) -> None:
        """See :meth:`BlobStore.write_blobs`."""
        self._wheel.run(self._core.write_blobs, list(writes))

    def write_blobs_with_data_sync(self, writes: Iterable[tuple[GuidLike, BlobBuffer]]) -> None:
        """See :meth:`BlobStore.write_blobs_with_data_sync`."""
        self._wheel.run(self._core.write_blobs_with_data_sync, list(writes))

    def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        """See :meth:`BlobStore.read_blobs`."""
        return self._wheel.run(self._core.read_blobs, list(reads))

    def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        """See :meth:`BlobStore.read_blob_range`."""
        self._wheel.run(self._core.read_blob_range, guid, offset, dst)

    def commit(
        self,
        writes: Iterable[tuple[GuidLike, BlobBuffer]] = (),
        deletes: Iterable[GuidLike] = (),
    ) -> None:
        """See :meth:`BlobStore.commit`; atomic, with one device flush."""
        self._wheel.run(self._core.commit, list(writes), guid_list(deletes))

    def verify(self, progress: Progress | None = None) -> VerifyReport:
        """See :meth:`BlobStore.verify`; ``progress`` is called in this thread."""
        return self._wheel.run_telling(self._core.verify, progress)

    # -- the end ------------------------------------------------------------------------------

    def close(self, flush: bool = True) -> None:
        """See :meth:`BlobStore.close`.

        A signal handler that raises meanwhile does not stop it: the store is closed first.

        :raises RuntimeError: called by a signal handler that interrupted :meth:`read_blob` of this
            thread, which it would wait for; the store stays open.
        """
        self._wheel.close(flush=flush)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._core!r}>"

    def __del__(self) -> None:
        pilot: StoreHandle | None = getattr(self, "_pilot", None)
        if pilot is not None and not pilot.closed and not pilot.inherited:
            try:
                text = f"{self!r} was never closed, and is not flushed"
                warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
            finally:
                # Not left to the pilot's own end: whoever records the warning keeps both alive.
                pilot.__del__()

    @property
    def _wheel(self) -> StoreHandle:
        assert self._pilot is not None
        return self._pilot

    @property
    def _checked(self) -> AsyncFileBlobStore:
        self._wheel.check()
        return self._core
