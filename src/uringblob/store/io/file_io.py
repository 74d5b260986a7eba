"""The store's only access to its engine: blocks, syncs, and whether either can still be trusted.

**Syncs.**  A sync covers the writes that had completed when it began.  Work that needs a flush but is
not urgent (preparing the log's next segment) calls :meth:`FileIO.wait_next_sync`, which resolves when
some later sync, begun for a commit, has covered it: it costs no device flush of its own.
:meth:`FileIO.force_sync` starts that sync now.

**Poison.**  The first failure that leaves the file's contents unknown is kept; every later change
raises ``StorePoisoned`` with it as the cause.  A failed fsync is never retried: ext4 and xfs report the
lost pages once and then answer 0.  Nor does any other fsync count that is in flight at that time: it
may be the one to which the error was reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import mmap
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, NamedTuple, TypeVar

from uringblob import tuning
from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import frame_of
from uringblob.completion import Completion, call_surely, persist
from uringblob.engines import transfers
from uringblob.engines.base import Engine
from uringblob.engines.transfers import SyncFailed
from uringblob.errors import (
    BlobStoreError,
    BlobStoreIOError,
    StorePoisoned,
    check_rc,
    errno_name,
    one_each,
)
from uringblob.guid import BlobGuid
from uringblob.logs import logger
from uringblob.store.format import BLOCK_SIZE
from uringblob.store.io.bounces import Bounces
from uringblob.store.io.checksum_budget import ChecksumBudget
from uringblob.store.io.job import Job
from uringblob.store.io.repairs import Repairs

T = TypeVar("T")


class ErrorContext(NamedTuple):
    """The head of an error message; becomes text only when there is an error."""

    what: str
    path: str
    offset: int
    guid: bytes | None = None  #: of the first frame
    more: int = 0  #: frames behind the first one

    def __str__(self) -> str:
        frames = "" if self.guid is None else f" {BlobGuid(self.guid)}"
        if self.more:
            frames += f" and {self.more} more"
        return f"{self.what}{frames}: {self.path} at offset {self.offset}"


class FileIO:
    """One open store file.  Belongs to ``loop``'s thread."""

    def __init__(self, engine: Engine, path: str, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self.path = path
        self.loop = loop
        self.checksum_budget = ChecksumBudget(loop, engine.poll)
        self.bounces = Bounces(engine.pool, self.checksum_budget, loop)
        self.poison_cause: BaseException | None = None
        self.repairs = Repairs(self)
        self._sync_waiters: list[Completion[None]] = []
        self._forcing = 0
        #: Syncs in flight.
        self.syncing: set[_Sync | Completion[None]] = set()
        self._scratch: dict[int, list[IoBuffer]] = {BLOCK_SIZE: [], tuning.SCRATCH_BYTES: []}
        self._zeros: IoBuffer | None = None

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Job[T]:
        """Run ``coroutine`` as a job; a signal handler that raises inside it poisons the store."""
        return Job(coroutine, self.loop, self.interrupted)

    def interrupted(self, error: BaseException) -> None:
        """Poison the store: a signal handler raised ``error`` in the middle of a change."""
        self.poison(
            BlobStoreError(f"{self.path}: a signal handler raised {error!r} in the middle of a change")
        )

    async def next_tick(self) -> None:
        """Return in the next loop iteration; queued requests are submitted before."""
        tick: Completion[None] = Completion(loop=self.loop)
        call_surely(self.loop, tick.resolve, None)
        await tick

    # --- trust ---------------------------------------------------------------------------

    def poison(self, cause: BaseException) -> None:
        """Refuse every change from now on; only the first cause is kept.

        A caller to whom ``cause`` is raised cannot know whether its change was applied.
        """
        if isinstance(cause, BlobStoreIOError):
            cause.applied = None
        if self.poison_cause is not None:
            return
        # A copy: callers add notes to ``cause``, and its traceback references their buffers.
        self.poison_cause = one_each(cause)
        guid = getattr(cause, "guid", None)
        logger.error(
            "%s: changes are refused from now on, because %s; close the store and open it again",
            self.path,
            cause,
            extra={
                "event": "poisoned",
                "path": self.path,
                "errno": getattr(cause, "errno", None) or 0,
                "guid": None if guid is None else str(guid),
                "offset": getattr(cause, "offset", None),
            },
        )

    def check_not_poisoned(self) -> None:
        """Raise ``StorePoisoned`` if the file's contents are unknown."""
        if self.poison_cause is not None:
            raise StorePoisoned(
                f"{self.path}: an earlier I/O failed and left the store in an unknown state "
                f"({self.poison_cause}); this change was not applied. Close the store and open it again"
            ) from self.poison_cause

    def _check_trusted(self, what: object) -> None:
        if self.poison_cause is not None:
            number = getattr(self.poison_cause, "errno", None) or errno.EIO
            text = f"{what}: an earlier I/O failed, so no flush proves anything"
            raise SyncFailed(number, text, applied=None) from self.poison_cause

    @property
    def takes_changes(self) -> bool:
        """Whether a slot may be handed out now: the store is not poisoned, and no repair is due."""
        return self.poison_cause is None and not self.repairs.due

    async def ready(self) -> None:
        """Make the repairs that are due; raise if there is no room for them, or the store is poisoned."""
        self.check_not_poisoned()
        if self.repairs.due:
            await self.repairs.finish()
            self.check_not_poisoned()

    # --- blocks --------------------------------------------------------------------------

    async def read(self, offset: int, size: int, what: str) -> bytes:
        """Return ``size`` bytes from ``offset``; fewer only at the end of the file.

        ``offset`` and ``size`` are multiples of 4096.
        """
        pieces: list[bytes] = []
        for start in range(offset, offset + size, tuning.SCRATCH_BYTES):
            wanted = min(tuning.SCRATCH_BYTES, offset + size - start)
            scratch = self.take_scratch(wanted)
            try:
                frame = scratch.part(0, wanted)
                context = ErrorContext(what, self.path, start)
                got = await transfers.read_whole(self.engine, start, frame, context)
                pieces.append(bytes(frame.view[:got]))
            finally:
                self.keep_scratch(scratch)
            if got < wanted:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def write(self, offset: int, data: bytes, what: str) -> None:
        """Write ``data``, whose length is a multiple of 4096, wholly; nothing is synced.

        A poisoned store writes no block any more: what it builds on may have been lost.
        """
        size = len(data)
        for start in range(0, size, tuning.SCRATCH_BYTES):
            context = ErrorContext(what, self.path, offset + start)
            piece = data
            if size > tuning.SCRATCH_BYTES:
                piece = data[start : start + tuning.SCRATCH_BYTES]
                await self.checksum_budget.acquire(len(piece) * tuning.COPY_COST)
            self._check_trusted(context)
            scratch = self.take_scratch(len(piece))
            try:
                frame = scratch if scratch.size == len(piece) else scratch.part(0, len(piece))
                frame.view[:] = piece
                await transfers.write_whole(self.engine, offset + start, [frame], context)
            finally:
                self.keep_scratch(scratch)

    async def zero(self, offset: int, size: int, what: str) -> None:
        """Write ``size`` zero bytes as :meth:`write` does; no memory of that size is allocated or copied."""
        context = ErrorContext(what, self.path, offset)
        self._check_trusted(context)
        if self._zeros is None:
            self._zeros = self._map_scratch(tuning.SCRATCH_BYTES)
        whole, rest = divmod(size, tuning.SCRATCH_BYTES)
        frames = [self._zeros] * whole
        if rest:
            frames.append(self._zeros.part(0, rest))
        await transfers.write_whole(self.engine, offset, frames, context)

    def file_size(self) -> int:
        """Return the file's length in bytes.

        :raises BlobStoreIOError: the file system does not answer: it has died.
        """
        return check_rc(self.engine.file_size(), f"{self.path}: asking for the file's length")

    def take_scratch(self, size: int) -> IoBuffer:
        """Return memory for ``size`` bytes, at most ``tuning.SCRATCH_BYTES``: one of two sizes."""
        size = BLOCK_SIZE if size <= BLOCK_SIZE else tuning.SCRATCH_BYTES
        kept = self._scratch[size]
        return kept.pop() if kept else self._map_scratch(size)

    def _map_scratch(self, size: int) -> IoBuffer:
        try:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"{self.path}: no memory for {size} bytes of I/O: {error.strerror}") from error
        return frame_of(memory, size, writable=True, pool=self.engine.pool)

    def keep_scratch(self, scratch: IoBuffer) -> None:
        """Take back what :meth:`take_scratch` returned; no request uses it any more."""
        kept = self._scratch[scratch.size]
        if len(kept) < tuning.SCRATCH_KEPT_MAX:
            kept.append(scratch)

    # --- syncs ---------------------------------------------------------------------------

    async def sync(self, what: str) -> None:
        """fdatasync; a failure poisons the store and is raised."""
        waiters, self._sync_waiters = self._sync_waiters, []
        what = f"{what}: fdatasync of {self.path}"
        try:
            await self.run_sync(lambda: transfers.sync(self.engine, what), what)
        except GeneratorExit:
            raise  # the store was dropped: nothing may be resumed
        except BaseException as error:
            # The waiters are resumed all the same.  The poison keeps them from writing what depends on this
            # sync; it is needed also where there was no memory to begin the sync.
            if waiters:
                self.poison(error)
            _resolve_all(waiters)
            raise
        _resolve_all(waiters)

    def start_sync(self, what: str, then: Callable[[int], object]) -> bool:
        """fdatasync; ``then`` gets its result, when the waiters for a sync are resumed.

        False, and nothing is begun, if another sync is in flight, or the store is poisoned: use :meth:`sync`.
        A failure has poisoned the store.  A success proves something only if it is not poisoned and nothing
        is left in :attr:`syncing`; else :meth:`confirm_sync`.
        """
        if self.syncing or self.poison_cause is not None:
            return False
        ended = _Sync(self, what, then, self._sync_waiters)
        try:
            self._sync_waiters = []
            self.syncing.add(ended)
            if not self.engine.start_sync(ended):
                self.engine.sync().forward(ended)
        except BaseException as error:
            ended.reject(error)  # unknown whether it was requested: what depends on it must not be written
            if not isinstance(error, Exception):
                raise
        return True

    def sync_failure(self, what: str, result: int) -> SyncFailed:
        """Return the error for a sync that failed."""
        return SyncFailed(-result, f"{what}: fdatasync of {self.path}: {errno_name(-result)}", applied=None)

    async def confirm_sync(self, what: object) -> None:
        """Wait for the syncs that overlapped the one that has just ended; raise unless it counts."""
        for other in list(self.syncing):
            if not other.done():
                await other
        self._check_trusted(what)

    async def run_sync(self, syncing: Callable[[], Awaitable[T]], what: object) -> T:
        """Await ``syncing()``, which ends with an fdatasync; raise if its success proves nothing.

        The system reports a lost write to one fsync only.  If two are in flight and one gets the error, the
        other's 0 is wrong; so a sync counts only when all that overlapped it have ended without an error.
        """
        self._check_trusted(what)
        ended: Completion[None] = Completion(loop=self.loop)
        self.syncing.add(ended)
        try:
            result = await syncing()
        except GeneratorExit:
            raise  # the same
        except BaseException as error:
            if isinstance(error, SyncFailed) or not isinstance(error, BlobStoreError):
                self.poison(error)  # after a MemoryError, too, the fsync's outcome is unknown
            self._end_sync(ended)
            raise
        self._end_sync(ended)
        await self.confirm_sync(what)
        return result

    def _end_sync(self, ended: Completion[None]) -> None:
        self.syncing.discard(ended)
        ended.resolve(None)

    def wait_next_sync(self) -> Completion[None]:
        """Return a completion that resolves when a sync that begins from now on has ended.

        It succeeded, or the store is poisoned.
        """
        waiter: Completion[None] = Completion(loop=self.loop)
        self._sync_waiters.append(waiter)
        if self._forcing:
            self._sync_now()
        return waiter

    async def force_sync(self, job: asyncio.Future[Any]) -> None:
        """Wait for ``job``; meanwhile each sync that :meth:`wait_next_sync` waits for starts at once."""
        self._forcing += 1
        try:
            if self._sync_waiters:
                self._sync_now()
            await job
        finally:
            self._forcing -= 1

    def _sync_now(self) -> None:
        # A failure poisons the store, so the exception is only marked as retrieved.
        self.start(self.sync("sync")).add_done_callback(lambda job: job.exception())


class _Sync:
    """The sink of a sync; awaited, it returns when that has ended."""

    __slots__ = ("_awaited", "_file_io", "_then", "_waiters", "_what", "keep", "result")

    light = False

    def __init__(
        self, file_io: FileIO, what: str, then: Callable[[int], object], waiters: list[Completion[None]]
    ) -> None:
        self._file_io = file_io
        self._what = what
        self._then = then
        self._waiters = waiters
        self._awaited: Completion[None] | None = None
        self.keep: object = None
        self.result: int | None = None

    def complete(self, result: int, mismatch: int = 0) -> None:  # noqa: ARG002 - a Sink's
        """Poison the store if it failed; resume who waits, then go on."""
        if self.result is None:
            self.result = result
        result = self.result
        file_io = self._file_io
        if result < 0:
            file_io.poison(file_io.sync_failure(self._what, result))
        file_io.syncing.discard(self)
        if self._waiters and file_io.syncing and file_io.poison_cause is None:
            # Its success proves nothing before those have ended, too; and the waiters write what depends on it.
            persist(lambda: file_io.start(self._resume_confirmed(self._waiters)))
            self._waiters = []
        elif self._waiters:
            _resolve_all(self._waiters)
        self._then(result)
        if self._awaited is not None:
            self._awaited.resolve(None)

    async def _resume_confirmed(self, waiters: list[Completion[None]]) -> None:
        with contextlib.suppress(SyncFailed):  # then the store is poisoned, which the waiters find
            await self._file_io.confirm_sync(self._what)
        _resolve_all(waiters)

    def reject(self, error: BaseException, /) -> None:
        """Poison the store: the sync's outcome is unknown; go on as after one that failed."""
        self._file_io.poison(error)
        self.complete(-errno.EIO)

    def done(self) -> bool:
        """Whether it has ended."""
        return self.result is not None

    def __await__(self) -> Generator[Any, None, None]:
        if self._awaited is None:
            self._awaited = Completion(loop=self._file_io.loop)
        return self._awaited.__await__()


def _resolve_all(completions: list[Completion[None]]) -> None:
    for completion in completions:
        completion.resolve(None)
