"""The store under test, as the checks see it: asynchronous, of whichever trait it is."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, Union, cast

from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.sync_store import BlobStore, SyncToAsyncAdapter
from uringblob.errors import BlobNotFound
from uringblob.guid import GuidLike
from uringblob.testing.conformance.expect import ConformanceError

T = TypeVar("T")
AnyStore = Union[BlobStore, AsyncBlobStore]
#: Makes a new, empty store at each call; may return an awaitable of one.
MakeStore = Callable[[], Any]

STAMP_SIZE = 8


class ThreadedView(SyncToAsyncAdapter):
    """A synchronous store whose calls run in threads: tasks of a check become threads."""

    def __init__(self, store: BlobStore, threads: ThreadPoolExecutor) -> None:
        super().__init__(store)
        self._threads = threads

    async def _do(self, function: Callable[[], T]) -> T:
        errors: list[BaseException] = []

        def run() -> T | None:
            try:
                return function()
            except BaseException as error:  # noqa: BLE001 - raised by the caller
                errors.append(error)
                return None

        result = await asyncio.get_running_loop().run_in_executor(self._threads, run)
        if errors:
            # Not as the future's exception: the executor's thread would hold it, and the call's buffers
            # with it, for a moment longer.
            raise errors.pop()
        return cast("T", result)


class Subject:
    """The store of one check, more stores like it, and the frames to write.

    ``store`` is asynchronous; ``raw`` is what the user made.
    """

    def __init__(self, make_store: MakeStore, reopen: MakeStore | None, threads: ThreadPoolExecutor) -> None:
        self._make = make_store
        self._reopen = reopen
        self._threads = threads
        self._opened: list[AsyncBlobStore] = []
        self.raw: AnyStore
        self.store: AsyncBlobStore

    async def begin(self) -> None:
        """Make the store."""
        self.store, self.raw = await self._open(self._make)
        self.page_size = self.store.page_size

    async def another(self) -> AsyncBlobStore:
        """Make one more store, closed at the end like the first."""
        return (await self._open(self._make))[0]

    def forget(self, store: AsyncBlobStore) -> None:
        """Leave ``store`` open at the end."""
        self._opened.remove(store)

    async def reopen(self, *, flush: bool) -> None:
        """Close the store, with a flush or without, and open it again."""
        assert self._reopen is not None
        await self.store.aclose(flush)
        self.store, self.raw = await self._open(self._reopen)

    async def end(self) -> None:
        """Close everything."""
        while self._opened:
            await self._opened.pop().aclose()

    async def _open(self, make: MakeStore) -> tuple[AsyncBlobStore, AnyStore]:
        raw = make()
        if isinstance(raw, Awaitable):
            raw = await raw
        if isinstance(raw, BlobStore):
            view: AsyncBlobStore = ThreadedView(raw, self._threads)
        elif isinstance(raw, AsyncBlobStore):
            view = raw
        else:
            raise TypeError(f"make_store gave {raw!r}, which is neither a BlobStore nor an AsyncBlobStore")
        self._opened.append(view)
        return view, raw

    def has(self, need: str) -> bool:
        """Whether the store has what a check needs (a key of ``NEEDS``)."""
        if need == "reopen":
            return self._reopen is not None
        if need in ("sync", "async"):
            return isinstance(self.raw, BlobStore) == (need == "sync")
        if need == "file":
            return self.raw.stats().engine in ("io_uring", "pread")
        method = need.removeprefix("own_")
        if method == "close" and isinstance(self.raw, AsyncBlobStore):
            method = "aclose"
        base = BlobStore if isinstance(self.raw, BlobStore) else AsyncBlobStore
        return inspect.getattr_static(self.raw, method) is not inspect.getattr_static(base, method)

    # -- frames -------------------------------------------------------------------------------

    def frame(self, number: int) -> bytes:
        """Return a frame stamped all over with ``number``."""
        return number.to_bytes(STAMP_SIZE, "little") * (self.page_size // STAMP_SIZE)

    def blank(self) -> bytearray:
        """Return a buffer for a frame, filled with what no stamp is."""
        return bytearray(b"\xee") * self.page_size

    def number(self, frame: bytes | bytearray | memoryview) -> int:
        """Return the stamp of a frame, which must be the same all over."""
        stamp = bytes(frame[:STAMP_SIZE])
        if bytes(frame) != stamp * (self.page_size // STAMP_SIZE):
            raise ConformanceError("a frame is a mix of several: its stamps differ")
        return int.from_bytes(stamp, "little")

    async def read(self, guid: GuidLike) -> int | None:
        """Return the stamp of a blob's frame, or ``None`` if there is no blob."""
        frame = self.blank()
        try:
            await self.store.read_blob(guid, frame)
        except BlobNotFound:
            return None
        return self.number(frame)
