"""``AsyncFileBlobStore``: the file store for one event loop, and what the sync one runs.

It checks arguments, process and loop, and decides who runs what: changes become jobs that nothing can
stop half-way, reads run in the caller's task.  What they do is in :mod:`uringblob.store.core`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import warnings
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar, cast

from uringblob import fork
from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.backup import file_options
from uringblob.api.base import observe
from uringblob.api.blob_stat import BlobStat
from uringblob.api.observer import StoreObserver
from uringblob.api.open_options import OpenOptions, StorePath, open_options
from uringblob.api.scrub import Note
from uringblob.api.stats import StoreStats
from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import AlignedBlobBuf, frame_of
from uringblob.buffers.views import NO_CHECKSUMS, BlobBuffer, Checksums, Write, check_range, size_of
from uringblob.completion import Completion
from uringblob.errors import BlobStoreError
from uringblob.guid import BlobGuid, GuidLike, guid_bytes, known_guids
from uringblob.store.arguments import checked_changes, checked_reads, conditions_of, few_changes
from uringblob.store.calls import ENDS_OF_READS, Calls
from uringblob.store.closing import close_core
from uringblob.store.core import Core
from uringblob.store.frame_reads import FrameRead, FrameWait
from uringblob.store.io.job import join, let_go, when_done
from uringblob.store.multi_read import read_batch
from uringblob.store.opening.open_request import OpenRequest
from uringblob.store.plain_commits import begin_commit
from uringblob.store.snapshot import AsyncFileSnapshot
from uringblob.store.stats import collect_stats
from uringblob.store.verify import FRAMES_AT_ONCE, check_frames, check_metadata
from uringblob.units import check_max_bytes

T = TypeVar("T")


#: No running loop is this, nor is None, where none is running.
_NO_LOOP = object()


class AsyncFileBlobStore(Calls, AsyncBlobStore):
    """Frames in one file, for the tasks of one event loop.  Made by :meth:`open`.

    Belongs to the loop it was opened on (any loop with ``add_reader``): awaiting it from another
    loop or thread is a ``RuntimeError``.  ``alloc_*``, ``needs_flush``, ``stats`` and
    ``page_size`` may be called from any thread.

    ``aclose`` finishes the calls that had begun.  In a forked child it writes and unlocks nothing.
    Where the store's event loop is closed it frees the store without a flush, awaited on any loop.
    """

    def __init__(
        self, core: Core, loop: asyncio.AbstractEventLoop, observer: StoreObserver | None = None
    ) -> None:
        """Use :meth:`open`."""
        self._core, self._caller_reads = core, core.caller_reads
        self._loop, self._pid = loop, os.getpid()
        #: The loop while the store is open and in the process that opened it: hot calls compare nothing else.
        self._live: object = loop
        self._reads, self._pool = core.reads, core.file_io.engine.pool
        self._page_size = core.page_size
        #: Calls that have begun and not ended, and what ``aclose`` waits for while there are any.
        self._active, self._idle = 0, cast("Completion[None] | None", None)
        self._closing: Completion[None] | None = None
        fork.remember(self)
        if observer is not None:
            observe(self, observer)

    @classmethod
    @open_options
    def open(cls, options: OpenOptions) -> OpenRequest[AsyncFileBlobStore]:
        """Open the store at ``path``: ``await`` the result, or use it with ``async with``."""
        return OpenRequest(functools.partial(cls, observer=options.observer), options)

    @property
    def page_size(self) -> int:
        return self._page_size

    @property
    def closed(self) -> bool:
        return self._closing is not None

    @property
    def _interrupted_read(self) -> bool:
        return self._caller_reads.interrupted

    # --- reading -------------------------------------------------------------------------

    def _frame(self, dst: BlobBuffer, size: int) -> IoBuffer:
        return frame_of(dst, size, writable=True, pool=self._core.file_io.engine.pool)

    async def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        if _get_running_loop() is not self._live:
            self._check_loop()
        reads, wait = self._reads, None
        self._active += 1
        try:
            key = guid if guid.__class__ is BlobGuid else guid_bytes(guid)
            frame = dst._fixed if dst.__class__ is AlignedBlobBuf and dst._pool is self._pool else None
            if frame is None or not self._pool.registered:
                frame = self._frame(dst, self._page_size)
            wait = FrameWait(loop=self._loop)
            if not reads.start(key, frame, wait):
                await reads.plan(key, frame).finish()
                return
            try:
                await wait
            finally:
                whole = reads.end(wait)
            if not whole:
                await FrameRead(reads, key, wait.entry, frame).finish(wait.got)
        except ENDS_OF_READS as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same error
        except BaseException:
            if wait is not None:
                await let_go(self._core.file_io.engine, self._loop)
                reads.end(wait)  # again: a handler may have raised before
            raise
        finally:
            frame = None  # an error's traceback refers to this function, and the buffer is the caller's now
            self._active -= 1
            if self._idle is not None:
                self._resolve_idle()

    def _read_in_caller(self, guid: GuidLike, dst: BlobBuffer) -> int:
        """Read in the calling thread, which may be any; see :meth:`Core.read_in_caller`."""
        self._check_open()
        return self._core.read_in_caller(guid_bytes(guid), self._frame(dst, self._page_size))

    async def _finish_read(self, guid: GuidLike, dst: BlobBuffer, answer: int) -> None:
        """Finish a read that :meth:`_read_in_caller` could not; see :meth:`Core.finish_read`."""
        self._check_loop()
        frame = self._frame(dst, self._page_size)
        await self._read(self._core.finish_read(guid_bytes(guid), frame, answer))

    async def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        self._check_loop()
        key, size = guid_bytes(guid), size_of(dst)
        check_range(offset, size, self._page_size)
        await self._read(self._core.read_range(key, offset, self._frame(dst, size)))

    async def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        self._check_loop()
        checked = await checked_reads(self._core, reads)
        self._check_open()  # it may have been closed meanwhile
        reading = read_batch(self._core.reads, checked)
        del checked
        return await self._read(reading)

    async def has_blob(self, guid: GuidLike) -> bool:
        self._check_loop()
        return self._has(guid_bytes(guid))

    def _has(self, guid: bytes) -> bool:
        """Answer from memory, in any thread."""
        self._check_open()
        return self._core.index.find(guid) is not None

    async def checksum(self, guid: GuidLike) -> int:
        self._check_loop()
        return self._core.reads.checksum(guid_bytes(guid))

    async def stat_blob(self, guid: GuidLike) -> BlobStat:
        self._check_loop()
        return self._core.reads.stat(guid_bytes(guid))

    async def list_blobs(self) -> list[BlobGuid]:
        """Return the names of all live blobs, as of one moment, in any order."""
        self._check_loop()
        guids: list[BlobGuid] = []
        await self._read(self._core.list_names(lambda names: guids.extend(known_guids(names))))
        return guids

    _frames_at_once = FRAMES_AT_ONCE  # verify()'s, whose pauses are its caller's: closing waits for none

    async def _check_frames(self, guids: Sequence[BlobGuid], note: Note) -> None:
        self._check_loop()
        await self._change(check_frames(self._core, guids, note))

    async def _check_metadata(self) -> list[BlobStoreError]:
        self._check_loop()
        return await self._change(check_metadata(self._core))

    async def snapshot(self) -> AsyncFileSnapshot:
        self._check_loop()
        return AsyncFileSnapshot(self, await self._read(self._core.begin_snapshot()))

    # --- changing ------------------------------------------------------------------------

    async def _write(self, writes: Iterable[Write], *, data_sync: bool) -> None:
        self._check_loop()
        few = few_changes(self._core, writes, ())
        if few is None:
            frames, metas, _ = await checked_changes(self._core, writes)
            self._check_open()
        else:
            frames, metas, _ = few
            del few
        writing = self._core.write(frames, metas, data_sync=data_sync)
        del frames
        await self._change(writing)

    async def write_blob(self, guid: GuidLike, src: BlobBuffer, meta: bytes = b"") -> None:
        await self._write(
            [(guid, src, meta) if meta.__class__ is not bytes or meta else (guid, src)], data_sync=False
        )

    async def write_blobs(self, writes: Iterable[Write]) -> None:
        await self._write(writes, data_sync=False)

    async def write_blobs_with_data_sync(self, writes: Iterable[Write]) -> None:
        await self._write(writes, data_sync=True)

    async def delete_blob(self, guid: GuidLike) -> None:
        self._check_loop()
        await self._change(self._core.delete(guid_bytes(guid)))

    async def commit(
        self,
        writes: Iterable[Write] = (),
        deletes: Iterable[GuidLike] = (),
        if_absent: Iterable[GuidLike] = (),
        if_checksum: Checksums = NO_CHECKSUMS,
    ) -> None:
        if _get_running_loop() is not self._live:
            self._check_loop()
        core = self._core
        conditions: Sequence[tuple[bytes, int | None]] = ()
        if if_absent or if_checksum:
            conditions = await conditions_of(core, if_absent, if_checksum)
            self._check_open()
        few = None if conditions else few_changes(core, writes, deletes)
        if few is None:
            frames, metas, doomed = await checked_changes(core, writes, deletes)
            self._check_open()
        else:
            frames, metas, doomed = few
            del few  # an error's traceback refers to this function, and the buffers are the caller's then
            size_bytes = core.small_commit_bytes(frames, doomed)
            if size_bytes:
                commit: Awaitable[None] | None = None
                self._active += 1
                try:
                    # In the caller's task: nothing has begun, and a cancelled caller leaves nothing behind.
                    budget = core.file_io.checksum_budget
                    if not budget.try_acquire(size_bytes):
                        await budget.acquire(size_bytes)
                    commit = core.start_commit(frames, metas, doomed)
                    if commit is None:
                        committing = core.commit(frames, metas, doomed, budget=False)
                        del frames
                        await self._change(committing)
                    else:
                        del frames
                        await commit
                except ENDS_OF_READS:
                    raise
                except BaseException:
                    await let_go(core.file_io.engine, self._loop)
                    raise
                finally:
                    commit = None
                    self._active -= 1
                    if self._idle is not None:
                        self._resolve_idle()
                return
        committing = core.commit(frames, metas, doomed, conditions)
        del frames
        await self._change(committing)

    def begin_commit(
        self,
        writes: Sequence[Write],
        deletes: Sequence[GuidLike],
        end: Callable[[BaseException | None], object],
        *,
        alone: bool,
    ) -> bool:
        """Begin a small commit without a task, for a caller in another thread; false: await :meth:`commit`.

        In the loop's thread, outside a task.  ``end`` gets its error, or ``None``, when it is over.
        ``alone``: no other call would share its group, so it may block the loop: the caller waits anyway.
        """
        self._check_open()
        self._active += 1

        def over(error: BaseException | None) -> None:
            self._one_less(None)
            end(error)

        begun = False
        try:
            begun = begin_commit(self._core, writes, deletes, over, may_block=alone and self._active == 1)
        finally:
            if not begun:
                self._one_less(None)
        return begun

    async def flush(self) -> None:
        self._check_loop()
        await self._change(self._core.flush())

    async def _open_backup(self, path: StorePath) -> AsyncFileBlobStore:
        options = file_options(path, self.path, self._page_size, self._core.file_io.engine.name)
        return await AsyncFileBlobStore.open(path, **options)

    async def set_max_bytes(self, max_bytes: int | None) -> None:
        """Limit the file's length while it is open; growing beyond is an ENOSPC error, as on a full disk.

        Deletions work, and what they free is used again; with a limit below its length, too.
        """
        self._check_loop()
        self._core.growth.max_bytes = check_max_bytes(max_bytes)

    async def _pause(self, seconds: float = 0) -> None:
        """See the trait; without a duration no failed allocation can lose the task, as in ``asyncio.sleep``."""
        if seconds:
            await asyncio.sleep(seconds)
        else:
            await self._core.file_io.next_tick()

    # --- any thread may ask --------------------------------------------------------------

    def needs_flush(self) -> bool:
        self._check_open()
        return self._core.needs_flush

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        self._check_open()
        return self._core.file_io.engine.pool.lease(zero=True)

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        self._check_open()
        return self._core.file_io.engine.pool.lease()

    def stats(self) -> StoreStats:
        self._check_process()
        return collect_stats(self._core)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        core = self._core
        return (
            f"<{type(self).__name__} {self.path!r} {core.file_io.engine.name} "
            f"page_size={self._page_size} blobs={len(core.index)} {state}>"
        )

    # --- the end -------------------------------------------------------------------------

    async def aclose(self, flush: bool = True) -> None:
        if os.getpid() != self._pid:
            self.abandon()
        elif self.left_behind:
            self._free()
        elif self._closing is None:
            self._check_loop()
            self._live = _NO_LOOP
            self._closing = self._core.file_io.start(self._close(flush))
            await join(self._closing)
        elif not self._closing.done() and _get_running_loop() is self._loop:
            # Another task is closing it: when this returns it is closed; that task gets the error.
            await join(when_done(self._closing))

    async def _close(self, flush: bool) -> None:
        try:
            if self._active:
                self._idle = Completion(loop=self._loop)
                await self._idle
            await close_core(self._core, flush=flush)
        except GeneratorExit:
            self._core.abandon()  # dropped half-way: nothing may be awaited any more
            raise
        finally:
            fork.forget(self)

    def _free(self) -> None:
        """Close without a flush, and without the loop, which is closed."""
        self._live = _NO_LOOP
        self._closing = closed = Completion[None](loop=self._loop)
        closed.resolve(None)
        fork.forget(self)
        self._core.free()

    def abandon(self) -> None:
        """Free ring and file without waiting, writing or unlocking: after ``fork()``."""
        self._live = _NO_LOOP
        self._core.abandon()

    def __del__(self) -> None:
        core = getattr(self, "_core", None)
        if core is None or (self._closing is not None and self._closing.done()):
            return
        try:
            if os.getpid() == self._pid:
                text = f"unclosed store {core.file.path!r}"
                warnings.warn(text, ResourceWarning, source=self, stacklevel=2)
        finally:
            core.abandon()  # also where warnings are errors
