"""A synchronous store over an asynchronous one of any kind: each method runs its namesake on the store's loop.

Iterables are walked here, in the caller's thread: they may use the store themselves.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import warnings
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from uringblob.api.async_store import AsyncBlobSnapshot, AsyncBlobStore
from uringblob.api.blob_stat import BlobStat
from uringblob.api.stats import StoreStats
from uringblob.api.sync_store import BlobSnapshot, BlobStore
from uringblob.api.verify_report import Progress, VerifyReport
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.views import NO_CHECKSUMS, BlobBuffer, Checksums, Write, guid_list
from uringblob.errors import BlobStoreError, BlobStoreIOError, StoreClosed
from uringblob.guid import BlobGuid, GuidLike
from uringblob.limits import thread_limits
from uringblob.owner import StoreOwner
from uringblob.sync.loop_thread import LoopedCore, NoThread
from uringblob.sync.store_handle import StoreHandle

S = TypeVar("S", bound=LoopedCore)


def open_on_loop(
    opener: Callable[[], Coroutine[Any, Any, S]],
    name: str,
    place: str,
    alternative: str = "The asynchronous store needs none",
) -> StoreHandle[S]:
    """Open an asynchronous store in a thread of its own.

    :raises BlobStoreIOError: the system has no thread; ``place`` names the store, and ``alternative`` is the advice.
    """
    try:
        return StoreHandle(opener, name)
    except NoThread as error:
        raise BlobStoreIOError(
            errno.EAGAIN,
            f"{place}: a synchronous store needs a thread of its own, and there is none to be had: "
            f"{thread_limits()}. {alternative}",
        ) from error


class _LoopedReads(StoreOwner, BlobStore):
    """What a store and its snapshot have in common."""

    _handle: StoreHandle[Any]
    _core: AsyncBlobStore

    @property
    def page_size(self) -> int:
        return self._core.page_size

    @property
    def closed(self) -> bool:
        return self._core.closed or self._handle.closed

    def _check_open(self) -> None:
        self._handle.check()
        self._core._check_open()

    @property
    def _checked(self) -> AsyncBlobStore:
        self._check_open()
        return self._core

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        return self._checked.alloc_blob_buf_zeroed()

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        return self._checked.alloc_blob_buf_uninit()

    def stats(self) -> StoreStats:
        if self._handle.inherited:
            self._handle.check()
        return self._core.stats()

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        self._handle.run(self._core.read_blob, guid, dst)

    def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        return self._handle.run(self._core.read_blobs, list(reads))

    def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        self._handle.run(self._core.read_blob_range, guid, offset, dst)

    def has_blob(self, guid: GuidLike) -> bool:
        return self._handle.run(self._core.has_blob, guid)

    def has_blobs(self, guids: Iterable[GuidLike]) -> list[bool]:
        return self._handle.run(self._core.has_blobs, guid_list(guids, "guids"))

    def checksum(self, guid: GuidLike) -> int:
        return self._handle.run(self._core.checksum, guid)

    def stat_blob(self, guid: GuidLike) -> BlobStat:
        return self._handle.run(self._core.stat_blob, guid)

    def list_blobs(self) -> list[BlobGuid]:
        return self._handle.run(self._core.list_blobs)

    def verify(
        self,
        progress: Progress | None = None,
        rate: float | None = None,
        deadline: float | None = None,
        since: GuidLike | None = None,
    ) -> VerifyReport:
        verify = functools.partial(self._core.verify, rate=rate, deadline=deadline, since=since)
        return self._handle.run_with_progress(verify, progress)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._core!r}>"


class LoopedBlobStore(_LoopedReads):
    """A :class:`BlobStore` whose asynchronous store runs in a thread of its own.

    Any number of threads may use it at once.  A signal handler that raises ends only the call that it
    interrupted.  In a forked child every use is a ``RuntimeError``, and ``close()`` does nothing.
    """

    def __init__(self, handle: StoreHandle[Any]) -> None:
        """Use :meth:`open`."""
        self._handle, self._core = handle, handle.core

    def needs_flush(self) -> bool:
        return self._checked.needs_flush()

    def write_blob(self, guid: GuidLike, src: BlobBuffer, meta: bytes = b"") -> None:
        self._handle.run(self._core.write_blob, guid, src, meta)

    def write_blobs(self, writes: Iterable[Write]) -> None:
        self._handle.run(self._core.write_blobs, list(writes))

    def write_blobs_with_data_sync(self, writes: Iterable[Write]) -> None:
        self._handle.run(self._core.write_blobs_with_data_sync, list(writes))

    def delete_blob(self, guid: GuidLike) -> None:
        self._handle.run(self._core.delete_blob, guid)

    def commit(
        self,
        writes: Iterable[Write] = (),
        deletes: Iterable[GuidLike] = (),
        if_absent: Iterable[GuidLike] = (),
        if_checksum: Checksums = NO_CHECKSUMS,
    ) -> None:
        absent = guid_list(if_absent, "if_absent")
        checksums = dict(if_checksum) if isinstance(if_checksum, Mapping) else if_checksum
        self._handle.run(self._core.commit, list(writes), guid_list(deletes), absent, checksums)

    def flush(self) -> None:
        self._handle.run(self._core.flush)

    def snapshot(self) -> LoopedSnapshot:
        return LoopedSnapshot(self, self._handle, self._handle.run(self._core.snapshot))

    def close(self, flush: bool = True) -> None:
        self._handle.close(flush=flush)

    def __del__(self) -> None:
        handle: StoreHandle[Any] | None = getattr(self, "_handle", None)
        if handle is not None and not handle.closed and not handle.inherited:
            try:
                text = f"{self!r} was never closed, and is not flushed"
                warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
            finally:
                # Not left to the handle's own end: a recorded warning keeps both alive.
                handle.__del__()


class LoopedSnapshot(_LoopedReads, BlobSnapshot):
    """What a :class:`LoopedBlobStore` showed when :meth:`snapshot` was called."""

    def __init__(self, store: BlobStore, handle: StoreHandle[Any], core: AsyncBlobSnapshot) -> None:
        self._core: AsyncBlobSnapshot
        self._store = store  # open as long as its snapshot is used
        self._handle, self._core = handle, core

    @property
    def seq(self) -> int:
        return self._core.seq

    def close(self, flush: bool = True) -> None:  # noqa: ARG002 - there is nothing to flush
        if self.closed or self._handle.inherited:
            return
        with contextlib.suppress(StoreClosed):  # the store was closed meanwhile, and the snapshot with it
            self._handle.run(self._core.aclose)
