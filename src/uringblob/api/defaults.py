"""The trait's defaults: what follows from the five methods that every store has.

Written once, as coroutines over an asynchronous store.  A synchronous store runs the same
text through :mod:`uringblob.api.inline`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from uringblob.api.verify_report import VerifyReport
from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.views import (
    BlobBuffer,
    as_pair,
    check_range,
    check_writable,
    checked_commit,
    checked_writes,
    size_of,
    writable_view,
)
from uringblob.errors import BlobCorrupt, BlobNotFound, BlobStoreError, StoreClosed
from uringblob.guid import BlobGuid, GuidLike, guid_bytes

if TYPE_CHECKING:
    from uringblob.api import AsyncBlobStore

Progress = Callable[[int, int], object]
T = TypeVar("T")


class HasClosed(Protocol):
    """A store of either face."""

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        ...


def check_open(store: HasClosed) -> None:
    """Raise ``StoreClosed`` if the store was closed."""
    if store.closed:
        raise StoreClosed(f"{store!r} is closed: open it again")


async def unstoppable(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` to its end even if the caller is cancelled meanwhile.

    A cancelled caller gets its ``CancelledError`` then, unless there is an error to report.
    """
    task = asyncio.ensure_future(coroutine)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled is not None:
        raise cancelled
    return result


async def write_blobs(store: AsyncBlobStore, writes: Iterable[tuple[GuidLike, BlobBuffer]]) -> None:
    """Check everything, then write one after the other."""
    for guid, src in checked_writes(writes, store.page_size).items():
        await store.write_blob(guid, src)


async def write_blobs_with_data_sync(
    store: AsyncBlobStore, writes: Iterable[tuple[GuidLike, BlobBuffer]]
) -> None:
    """Write, then flush: of the five methods only ``flush`` reaches the medium."""
    await store.write_blobs(writes)
    await store.flush()


class Scratch(bytearray):
    """A frame to read into and forget.

    Before Python 3.12 an ``AlignedBlobBuf`` has no buffer protocol, so a store that only knows
    ``memoryview(dst)`` could not fill one; this has both ways in.
    """

    __slots__ = ()

    @property
    def view(self) -> memoryview:
        """The whole frame, as ``AlignedBlobBuf.view`` is."""
        return memoryview(self)


async def has_blob(store: AsyncBlobStore, guid: GuidLike) -> bool:
    """Read the blob: one frame's transfer, where ``list_blobs`` may be millions of names."""
    key = guid_bytes(guid)
    try:
        await store.read_blob(key, Scratch(store.page_size))
    except BlobNotFound:
        return False
    except BlobCorrupt:
        return True
    return True


async def checksum(store: AsyncBlobStore, guid: GuidLike) -> int:
    """Read the blob and hash it, as a file store did when it was written."""
    scratch = Scratch(store.page_size)
    await store.read_blob(guid, scratch)
    return frame_checksum(scratch)


async def read_blobs(
    store: AsyncBlobStore, reads: Sequence[tuple[GuidLike, BlobBuffer]]
) -> list[BlobStoreError | None]:
    """Check everything, then read one after the other, and keep each position's error."""
    checked = [(guid_bytes(guid), dst) for guid, dst in map(as_pair, reads)]
    for _, dst in checked:
        check_writable(dst, store.page_size)
    return [await _read_one(store, guid, dst) for guid, dst in checked]


async def _read_one(store: AsyncBlobStore, guid: bytes, dst: BlobBuffer) -> BlobStoreError | None:
    try:
        await store.read_blob(guid, dst)
    except StoreClosed:
        raise  # not this position's error: nothing can be read any more
    except BlobStoreError as error:
        # A traceback keeps the frames of the call alive, and with them the caller's buffers.
        return error.with_traceback(None)
    return None


async def read_blob_range(store: AsyncBlobStore, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
    """Read the whole frame and keep a part of it (a real store reads only that part)."""
    key = guid_bytes(guid)
    size = size_of(dst)
    check_range(offset, size, store.page_size)
    check_writable(dst, size)
    scratch = Scratch(store.page_size)
    await store.read_blob(key, scratch)
    with writable_view(dst, size) as target, scratch.view[offset : offset + size] as part:
        target[:] = part


async def commit(
    store: AsyncBlobStore,
    writes: Iterable[tuple[GuidLike, BlobBuffer]],
    deletes: Iterable[GuidLike],
) -> None:
    """Write, delete, flush: durable when it returns, but *not* atomic."""
    latest, doomed = checked_commit(writes, deletes, store.page_size)
    if latest:
        await store.write_blobs(list(latest.items()))
    for guid in doomed:
        await store.delete_blob(guid)
    await store.flush()


async def verify(store: AsyncBlobStore, progress: Progress | None) -> VerifyReport:
    """Read every listed blob; what is deleted meanwhile is not missing."""
    guids = await store.list_blobs()
    bad: list[tuple[BlobGuid, BlobStoreError]] = []
    checked = 0
    scratch = Scratch(store.page_size)
    for done, guid in enumerate(guids, start=1):
        error = await _read_one(store, guid, scratch)
        if not isinstance(error, BlobNotFound):
            checked += 1
            if error is not None:
                bad.append((BlobGuid(guid), error))
        if progress is not None:
            progress(done, len(guids))
    good_bytes = (checked - len(bad)) * store.page_size
    return VerifyReport(bad=tuple(bad), blobs_checked=checked, bytes_checked=good_bytes)
