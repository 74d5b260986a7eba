"""``AsyncRemoteBlobStore``: the trait over a bucket, for one event loop, and what the sync one runs.

It checks arguments, process and loop, transfers frames, and asks :mod:`uringblob.remote.history` and
:mod:`uringblob.remote.writer` for the map.  ``docs/remote-format.md`` is the protocol.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Sequence
from typing import Any, TypeVar

from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.base import observe
from uringblob.api.blob_stat import BlobStat
from uringblob.api.changes import Changes
from uringblob.api.scrub import Note
from uringblob.api.stats import StoreStats
from uringblob.api.uncancellable import uncancellable
from uringblob.buffers.views import (
    NO_CHECKSUMS,
    BlobBuffer,
    Checksums,
    Write,
    as_pair,
    check_writable,
    checked_commit,
    checked_conditions,
    checked_writes,
)
from uringblob.errors import BlobStoreError, StoreClosed, StoreReadOnly
from uringblob.guid import BlobGuid, GuidLike, guid_bytes
from uringblob.owner import StoreOwner
from uringblob.remote.core import Core
from uringblob.remote.opening import RemoteOptions, open_core, remote_options
from uringblob.remote.remote_stats import RemoteStats, remote_stats
from uringblob.remote.snapshot import AsyncRemoteSnapshot

T = TypeVar("T")

#: Seconds between two looks at the log of a reader that follows it.
POLL_S = 1.0


class AsyncRemoteBlobStore(StoreOwner, AsyncBlobStore):
    """Frames in a bucket, for the tasks of one event loop.  Made by :meth:`open`.

    One writer at a time: who opens to write takes the store over, and the writer before gets
    ``WriterFenced`` from its next commit or flush.  Any number of readers (``read_only=True``), on any machines,
    see a consistent durable state that :meth:`refresh` or :meth:`follow` moves forward.

    A cancelled change runs to its end, as far as the bucket answers.  Belongs to the loop it was opened on.
    """

    def __init__(self, core: Core) -> None:
        """Use :meth:`open`."""
        self._core = core
        self._loop, self._pid = asyncio.get_running_loop(), os.getpid()
        self._active, self._idle = 0, asyncio.Event()
        self._ended: asyncio.Task[None] | None = None

    @classmethod
    @remote_options
    def open(cls, options: RemoteOptions) -> _Opening:
        """Open the store: ``await`` the result, or use it with ``async with``."""
        return _Opening(lambda: cls._open(options))

    @classmethod
    async def _open(cls, options: RemoteOptions) -> AsyncRemoteBlobStore:
        store = cls(await open_core(options))
        return store if options.observer is None else observe(store, options.observer)

    @property
    def page_size(self) -> int:
        return self._core.page_size

    @property
    def path(self) -> str:
        """Where the store is: the bucket's name and the prefix."""
        return self._core.name

    @property
    def closed(self) -> bool:
        return self._closed

    _interrupted_read = False  # none is made in a caller's thread

    @property
    def seq(self) -> int:
        """The number of the last group of the log that this store shows."""
        return self._core.history.seq

    def _signatures(self) -> tuple[bytes, bytes]:
        return self._core.history.last_writer, self._core.session

    # -- checks -------------------------------------------------------------------------------

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"{self.path}: this store was inherited through fork(): open it anew in the child"
            )

    def _check_open(self) -> None:
        self._check_process()
        if self._closed:
            raise StoreClosed(f"the store {self.path} is closed: open it again")

    def _check_loop(self) -> None:
        self._check_open()
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(f"{self.path}: this store belongs to the event loop on which it was opened")

    def _check_changes(self) -> None:
        self._check_loop()
        if self._core.writer is None:
            raise StoreReadOnly(
                f"{self.path} is open with read_only=True: open it to write, and take it over"
            )

    async def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a call; closing waits for it."""
        self._active += 1
        try:
            return await coroutine
        finally:
            self._active -= 1
            if not self._active:
                self._idle.set()

    async def _settle(self) -> None:
        """Look what became of the last commit, if nobody knows: what is read next shows it, or not."""
        if self._core.unknown:
            await self._run(self._core.settle())

    # -- reading ------------------------------------------------------------------------------

    async def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        self._check_loop()
        key = guid_bytes(guid)
        check_writable(dst, self.page_size)
        if self._core.unknown:
            await self._settle()
        await self._run(self._core.read(self._core.find, key, dst))

    async def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        self._check_loop()
        checked = [(guid_bytes(guid), dst) for guid, dst in map(as_pair, reads)]
        for _, dst in checked:
            check_writable(dst, self.page_size)
        await self._settle()
        return await self._run(self._core.read_many(self._core.find, checked))

    async def has_blob(self, guid: GuidLike) -> bool:
        self._check_loop()
        await self._settle()
        return self._core.find(guid_bytes(guid)) is not None

    async def list_blobs(self) -> list[BlobGuid]:
        self._check_loop()
        await self._settle()
        return list(map(BlobGuid, self._core.shown()))

    async def checksum(self, guid: GuidLike) -> int:
        return (await self.stat_blob(guid)).checksum

    async def stat_blob(self, guid: GuidLike) -> BlobStat:
        self._check_loop()
        await self._settle()
        return self._core.stat(self._core.find, guid_bytes(guid))

    async def snapshot(self) -> AsyncRemoteSnapshot:
        self._check_loop()
        await self._settle()
        return AsyncRemoteSnapshot(self, self._core)

    _frames_at_once = 64  # verify()'s

    async def _check_frames(self, guids: Sequence[BlobGuid], note: Note) -> None:
        self._check_loop()
        await self._run(self._core.check_many(self._core.find, guids, note))

    # -- changing -----------------------------------------------------------------------------

    async def write_blob(self, guid: GuidLike, src: BlobBuffer, meta: bytes = b"") -> None:
        await self.write_blobs([(guid, src, meta)])

    async def write_blobs(self, writes: Iterable[Write]) -> None:
        self._check_changes()
        metas: dict[bytes, bytes] = {}
        latest = checked_writes(writes, self.page_size, metas)
        await self._run(uncancellable(self._core.write(latest, metas)))

    write_blobs_with_data_sync = write_blobs  # a frame that was put is on the medium

    async def delete_blob(self, guid: GuidLike) -> None:
        self._check_changes()
        self._core.delete(guid_bytes(guid))

    async def commit(
        self,
        writes: Iterable[Write] = (),
        deletes: Iterable[GuidLike] = (),
        if_absent: Iterable[GuidLike] = (),
        if_checksum: Checksums = NO_CHECKSUMS,
    ) -> None:
        self._check_changes()
        conditions = list(checked_conditions(if_absent, if_checksum))
        metas: dict[bytes, bytes] = {}
        latest, doomed = checked_commit(writes, deletes, self.page_size, metas)
        await self._run(uncancellable(self._core.commit(latest, metas, doomed, conditions)))

    async def flush(self) -> None:
        self._check_loop()
        if self._core.writer is not None:
            await self._run(uncancellable(self._core.writer.flush()))

    def needs_flush(self) -> bool:
        self._check_open()
        return self._core.writer is not None and self._core.writer.needs_flush

    # -- beyond the trait ---------------------------------------------------------------------

    async def refresh(self) -> bool:
        """Move a reader forward to the newest durable state; return whether it moved.

        A writer is always there, but for a commit whose outcome is unknown: this looks for it, shows it if it is
        there, and returns whether it is.  Otherwise it may still come: the next commit or flush settles it.

        :raises WriterFenced: another writer took over.
        :raises BlobStoreIOError: the bucket refused, or did not answer.
        """
        self._check_loop()
        return await self._run(self._core.refresh())

    def follow(self, poll: float = POLL_S) -> AsyncIterator[Changes]:
        """Move a reader forward, and yield what each group changed: ``async for changes in store.follow()``.

        Looks at the log every ``poll`` seconds, one request, when there is nothing new.  Where groups are gone
        that a reader slept through, their changes come as one.  It ends with ``StoreClosed``.

        :raises RuntimeError: the store is a writer: nobody else changes it.
        """
        self._check_open()
        self._check_follows()
        return self._follow(poll)

    def _check_follows(self) -> None:
        if self._core.writer is not None:
            raise RuntimeError(f"{self.path}: only a reader follows: open it with read_only=True")

    async def _follow(self, poll: float) -> AsyncIterator[Changes]:
        queue: deque[Changes] = deque()
        self._begin_following(queue)
        try:
            while True:
                yield await self._next_changes(queue, poll)
        finally:
            self._end_following(queue)

    def _begin_following(self, queue: deque[Changes]) -> None:
        self._core.history.followers.append(queue)

    def _end_following(self, queue: deque[Changes]) -> None:
        followers = self._core.history.followers
        followers[:] = [each for each in followers if each is not queue]

    async def _next_changes(self, queue: deque[Changes], poll: float) -> Changes:
        while not queue:
            moved = await self.refresh()
            if not moved and not queue:
                await asyncio.sleep(poll)
        return queue.popleft()

    async def compact(self) -> None:
        """Write a map of the present state, which shortens the next opening; happens by itself, too."""
        self._check_changes()
        await self._run(uncancellable(self._core.compact()))

    async def collect(self) -> int:
        """Delete objects that no reader's lease and no snapshot can need; return how many.

        Happens by itself after each compaction.  What was replaced or deleted since the last collection is for
        the next one, at least ``grace`` seconds later.
        """
        self._check_changes()
        return await self._run(uncancellable(self._core.collect()))

    # -- any thread may ask -------------------------------------------------------------------

    def __len__(self) -> int:
        self._check_open()
        return self._core.count()

    def __bool__(self) -> bool:
        return True

    def stats(self) -> StoreStats:
        self._check_process()
        return self._core.stats()

    def remote_stats(self) -> RemoteStats:
        """Return what is counted beside :meth:`stats`; works after closing too."""
        self._check_process()
        return remote_stats(self._core)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {self.path!r} page_size={self.page_size} seq={self._core.history.seq} {state}>"

    # -- the end ------------------------------------------------------------------------------

    async def aclose(self, flush: bool = True) -> None:
        if os.getpid() != self._pid:
            self._closed = True  # the parent's: nothing is written, and its lease stays
        elif self._ended is None:
            self._check_loop()
            self._closed = True
            self._ended = self._loop.create_task(self._end(flush))
            await uncancellable(_join(self._ended))
        elif not self._ended.done():
            self._check_running()
            await uncancellable(_wait(self._ended))

    def _check_running(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(f"{self.path}: this store belongs to the event loop on which it was opened")

    async def _end(self, flush: bool) -> None:
        while self._active:
            self._idle.clear()
            await self._idle.wait()
        await self._core.close(flush=flush)

    def __del__(self) -> None:
        core = getattr(self, "_core", None)
        if core is None or self._closed or os.getpid() != self._pid:
            return
        try:
            warnings.warn(f"unclosed store {self.path!r}", ResourceWarning, source=self, stacklevel=2)
        finally:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(core.drop)


async def _join(task: asyncio.Task[None]) -> None:
    await task


async def _wait(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


class _Opening:
    """What :meth:`AsyncRemoteBlobStore.open` returns: awaitable, and an asynchronous context manager."""

    def __init__(self, opening: Callable[[], Coroutine[Any, Any, AsyncRemoteBlobStore]]) -> None:
        self._opening = opening

    def __await__(self) -> Generator[Any, Any, AsyncRemoteBlobStore]:
        return self._opening().__await__()

    async def __aenter__(self) -> AsyncRemoteBlobStore:
        self._store = await self._opening()
        return self._store

    async def __aexit__(self, *error: object) -> None:
        await self._store.aclose()
