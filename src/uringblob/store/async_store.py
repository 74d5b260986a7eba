"""``AsyncFileBlobStore``: the file store for one event loop, and the core of the sync one.

This module checks arguments and decides who runs what: changes become jobs that nobody can stop
half-way, reads run in the caller's task.  What they do is in :mod:`uringblob.store.core`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import warnings
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar, cast

from uringblob import fork as inherit
from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.base import observe
from uringblob.api.observer import StoreObserver
from uringblob.api.stats import StoreStats
from uringblob.api.verify_report import VerifyReport
from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import AlignedBlobBuf, frame_of
from uringblob.buffers.views import BlobBuffer, check_range, size_of
from uringblob.completion import Completion, call_surely, persist
from uringblob.errors import BlobStoreError
from uringblob.guid import BlobGuid, GuidLike, guid_bytes, known_guids
from uringblob.owner import StoreOwner
from uringblob.store.arguments import Changes, Reads, check_rest
from uringblob.store.belonging import Belonging, running_loop
from uringblob.store.closing import close_core
from uringblob.store.core import Core
from uringblob.store.io.job import bare, end_of, join
from uringblob.store.multi_read import read_batch
from uringblob.store.opening.open import Options, engine_default
from uringblob.store.opening.open_request import OpenRequest
from uringblob.store.stats import collect_stats
from uringblob.store.verify import verify_core
from uringblob.units import MODE

T = TypeVar("T")


class AsyncFileBlobStore(StoreOwner, Belonging, AsyncBlobStore):
    """Frames in one file, for the tasks of one event loop.  Made by :meth:`open`.

    Belongs to the loop it was opened on (any loop with ``add_reader``): awaiting it from another
    loop or thread is a ``RuntimeError``.  ``alloc_*``, ``needs_flush``, ``stats`` and
    ``page_size`` may be called from any thread.
    """

    def __init__(
        self, core: Core, loop: asyncio.AbstractEventLoop, observer: StoreObserver | None = None
    ) -> None:
        """Use :meth:`open`."""
        self._closing = None
        self._loop, self._pid = loop, os.getpid()
        self._core, self._visitors = core, core.visitors
        self._page_size = core.page_size
        self._active, self._idle = 0, cast("Completion[None] | None", None)
        inherit.remember(self)
        if observer is not None:
            observe(self, observer)

    @classmethod
    def open(
        cls,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
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
    ) -> OpenRequest[AsyncFileBlobStore]:
        """Open the store at ``path``: ``await`` the result, or use it with ``async with``.

        :param page_size: the frame size in bytes for a new store (default 524288), a power of two
            from 4096 to 16 MiB; for an existing one ``PageSizeMismatch`` if it differs.
        :param create: make the store if there is none; false: ``FileNotFoundError``.
        :param read_only: change no byte on disk.  Several such openers share a store; none beside
            a writer.  After an unclean end it shows what a writer would find; only where it reads
            through a cache the last, unconfirmed group is left out (``stats().notes``).
        :param engine: ``"io_uring"``, ``"pread"``, or ``"auto"``: the best that works here.  The
            environment variable ``URINGBLOB_ENGINE`` sets what ``"auto"`` means.
        :param direct: O_DIRECT: ``True`` requires it, ``False`` forbids it, ``None`` takes it where it is.
        :param buffers: frames in the registered pool (default 64, or as many as 32 MiB hold).
        :param queue_depth: submission queue entries; more requests wait their turn.
        :param lock_timeout: seconds to wait for another opener, then ``StoreLocked``.
        :param verify: check a frame's checksum whenever it is read.
        :param mode: permission bits of a newly made file, less the process's umask.
        :param observer: is told of every call; see :class:`uringblob.StoreObserver`.
        :raises StoreCorrupt: the file is not a store, or damaged; it is left as it is.
        :raises EngineUnavailable: the engine or the ``direct`` asked for cannot be had here.
        :raises OSError: what ``os.open`` raises is raised as it is.
        """
        return OpenRequest(
            cls if observer is None else functools.partial(cls, observer=observer),
            Options.checked(
                path,
                page_size=page_size,
                create=create,
                read_only=read_only,
                engine=engine_default(engine),
                direct=direct,
                buffers=buffers,
                queue_depth=queue_depth,
                lock_timeout=lock_timeout,
                verify=verify,
                mode=mode,
            ),
        )

    # --- who may call --------------------------------------------------------------------

    @property
    def page_size(self) -> int:
        """The frame size in bytes."""
        return self._page_size

    @property
    def path(self) -> str:
        """The store file, symbolic links resolved."""
        return self._core.file.path

    @property
    def closed(self) -> bool:
        """Whether ``aclose`` was called."""
        return self._closing is not None

    # --- who runs it ---------------------------------------------------------------------

    async def _change(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a change as a job: once begun it ends, whatever becomes of the caller."""
        self._active += 1
        try:
            job = self._core.medium.start(coroutine)
            # Without a trip through the loop, where there is one to be spared.
            persist(job.add_done_callback if job.done() else job.then, self._one_less)
        except BaseException:
            # A signal handler struck the job's first step: nobody else will count it out.
            self._one_less(None)
            raise
        try:
            return await join(job)
        except (BlobStoreError, asyncio.CancelledError) as error:
            raise bare(error)  # noqa: B904 - it is the same error

    async def _read(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a read in the caller's task: all it leaves behind is a hold on a slot."""
        self._active += 1
        try:
            await coroutine
        except (BlobStoreError, asyncio.CancelledError) as error:
            raise bare(error)  # noqa: B904 - it is the same error
        finally:
            self._one_less(None)

    def _one_less(self, _ended: object) -> None:
        self._active -= 1
        if self._loop.is_closed():
            return  # what is collected with its loop has nobody who waits for it
        if self._active == 0 and self._idle is not None:
            call_surely(self._loop, self._idle.finish, None)

    # --- reading -------------------------------------------------------------------------

    async def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        """See :meth:`AsyncBlobStore.read_blob`."""
        self._check_loop()
        core = self._core
        self._active += 1
        try:
            # No name for the frame here: the error of a cancelled call knows this function's locals.
            await core.read(
                guid_bytes(guid),
                frame_of(dst, self._page_size, writable=True, pool=core.medium.engine.pool),
            )
        except (BlobStoreError, asyncio.CancelledError) as error:
            raise bare(error)  # noqa: B904 - it is the same error
        finally:
            if self._idle is None:
                self._active -= 1
            else:
                self._one_less(None)

    def _read_here(self, guid: GuidLike, dst: BlobBuffer) -> int:
        """Read in the calling thread, which may be any; see :meth:`Core.read_here`."""
        self._check_usable()
        return self._core.read_here(guid_bytes(guid), self._frame_to_fill(dst))

    async def _read_after(self, guid: GuidLike, dst: BlobBuffer, answer: int) -> None:
        """Finish a read that did not go as it should; see :meth:`Core.read_after`."""
        self._check_loop()
        await self._read(self._core.read_after(guid_bytes(guid), self._frame_to_fill(dst), answer))

    def _frame_to_fill(self, dst: BlobBuffer) -> IoBuffer:
        return frame_of(dst, self._page_size, writable=True, pool=self._core.medium.engine.pool)

    async def read_blob_range(self, guid: GuidLike, offset: int, dst: BlobBuffer) -> None:
        """See :meth:`AsyncBlobStore.read_blob_range`."""
        self._check_loop()
        key, core = guid_bytes(guid), self._core
        size = size_of(dst)
        check_range(offset, size, self._page_size)
        pool = core.medium.engine.pool
        await self._read(core.read_range(key, offset, frame_of(dst, size, writable=True, pool=pool)))

    async def read_blobs(self, reads: Sequence[tuple[GuidLike, BlobBuffer]]) -> list[BlobStoreError | None]:
        """See :meth:`AsyncBlobStore.read_blobs`; the reads go out together."""
        self._check_loop()
        checked = Reads(self._page_size, self._core.medium.engine.pool, reads)
        if not checked.check():
            await check_rest(checked, self._core.medium.pace, self._check_loop)
        return await self._change(read_batch(self._core, checked.hand_over()))

    async def has_blob(self, guid: GuidLike) -> bool:
        """See :meth:`AsyncBlobStore.has_blob`; does no I/O."""
        self._check_loop()
        return self._has(guid_bytes(guid))

    def _has(self, guid: bytes) -> bool:
        """Answer from memory, in any thread."""
        self._check_usable()
        return self._core.manifest.find(guid) is not None

    async def checksum(self, guid: GuidLike) -> int:
        """See :meth:`AsyncBlobStore.checksum`; does no I/O."""
        self._check_loop()
        return self._core.checksum(guid_bytes(guid))

    async def list_blobs(self) -> list[BlobGuid]:
        """See :meth:`AsyncBlobStore.list_blobs`; does no I/O.  The names are those of one moment."""
        self._check_loop()
        guids: list[BlobGuid] = []
        await self._read(self._core.list_names(lambda names: guids.extend(known_guids(names))))
        return guids

    async def verify(self, progress: Callable[[int, int], object] | None = None) -> VerifyReport:
        """See :meth:`AsyncBlobStore.verify`; a few frames are read at a time."""
        self._check_loop()
        return await self._change(verify_core(self._core, progress))

    # --- changing ------------------------------------------------------------------------

    async def _write(self, writes: Iterable[tuple[GuidLike, BlobBuffer]], *, data_sync: bool) -> None:
        self._check_loop()
        checked = Changes(self._page_size, self._core.medium.engine.pool, writes)
        if not checked.check():
            await check_rest(checked, self._core.medium.pace, self._check_loop)
        await self._change(self._core.write(checked.hand_over()[0], data_sync=data_sync))

    async def write_blob(self, guid: GuidLike, src: BlobBuffer) -> None:
        """See :meth:`AsyncBlobStore.write_blob`."""
        await self.write_blobs([(guid, src)])

    async def write_blobs(self, writes: Iterable[tuple[GuidLike, BlobBuffer]]) -> None:
        """See :meth:`AsyncBlobStore.write_blobs`."""
        await self._write(writes, data_sync=False)

    async def write_blobs_with_data_sync(self, writes: Iterable[tuple[GuidLike, BlobBuffer]]) -> None:
        """See :meth:`AsyncBlobStore.write_blobs_with_data_sync`.

        A batch that got one run of slots is one gathered write linked to one fdatasync, in one submission
        (``stats().batches_linked``); otherwise all writes, then one fdatasync (``batches_scattered``).
        """
        await self._write(writes, data_sync=True)

    async def delete_blob(self, guid: GuidLike) -> None:
        """See :meth:`AsyncBlobStore.delete_blob`."""
        self._check_loop()
        await self._change(self._core.delete(guid_bytes(guid)))

    async def commit(
        self,
        writes: Iterable[tuple[GuidLike, BlobBuffer]] = (),
        deletes: Iterable[GuidLike] = (),
    ) -> None:
        """Apply all of it or none: atomic, durable at the return, with one device flush.

        Concurrent commits share a flush.  A commit of more than 64 MiB takes two flushes, so that
        recovery need not read it back.

        :raises ValueError: a guid is both written and deleted.
        :raises BlobStoreIOError: the system refused; ``applied`` says what is known.
        :raises StorePoisoned: an earlier failure; nothing was applied.
        """
        self._check_loop()
        checked = Changes(self._page_size, self._core.medium.engine.pool, writes, deletes)
        if not checked.check():
            await check_rest(checked, self._core.medium.pace, self._check_loop)
        await self._change(self._core.commit(*checked.hand_over()))

    async def flush(self) -> None:
        """See :meth:`AsyncBlobStore.flush`; makes no system call if nothing is pending."""
        self._check_loop()
        await self._change(self._core.flush())

    def needs_flush(self) -> bool:
        """See :meth:`AsyncBlobStore.needs_flush`; any thread may ask."""
        self._check_usable()
        return self._core.needs_flush

    # --- buffers, figures ----------------------------------------------------------------

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        """See :meth:`AsyncBlobStore.alloc_blob_buf_zeroed`; any thread may ask."""
        self._check_usable()
        return self._core.medium.engine.pool.lease_zeroed()

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        """See :meth:`AsyncBlobStore.alloc_blob_buf_uninit`; any thread may ask."""
        self._check_usable()
        return self._core.medium.engine.pool.lease()

    def stats(self) -> StoreStats:
        """See :meth:`AsyncBlobStore.stats`; any thread may ask, also after closing."""
        self._check_process()
        return collect_stats(self._core)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        core = self._core
        return (
            f"<{type(self).__name__} {core.file.path!r} {core.medium.engine.name} "
            f"page_size={self._page_size} blobs={len(core.manifest)} {state}>"
        )

    # --- the end -------------------------------------------------------------------------

    async def aclose(self, flush: bool = True) -> None:
        """See :meth:`AsyncBlobStore.aclose`.

        Calls that had begun are finished first.  In a forked child it writes and unlocks nothing.
        Where the store's event loop is closed, no call can be finished any more: awaited on any loop, it
        frees the store without a flush.
        """
        if os.getpid() != self._pid:
            self.abandon()
            return
        if self.left_behind:
            self._free()
            return
        if self._closing is not None:
            if not self._closing.done() and running_loop() is self._loop:
                # Somebody else is closing it: when this returns it is closed, and the error is theirs.
                await join(end_of(self._closing))
            return
        self._check_loop()
        self._closing = self._core.medium.start(self._close(flush))
        await join(self._closing)

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
            inherit.forget(self)

    def _free(self) -> None:
        """Close without a flush, and without the loop, which is closed."""
        self._closing = closed = Completion[None](loop=self._loop)
        closed.finish(None)
        inherit.forget(self)
        self._core.free()

    def abandon(self) -> None:
        """Let go of ring and file without waiting, writing or unlocking: after ``fork()``."""
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
