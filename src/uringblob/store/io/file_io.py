"""The store's one door to its engine: blocks, syncs, and whether either can still be trusted.

**Syncs.**  A sync covers writes that had completed when it began.  Work that needs a flush but is
in no hurry (preparing the log's next segment) *rides*: :meth:`FileIO.ride` resolves when some
later sync, begun for a commit, has covered it, so that it costs no device flush of its own.
:meth:`FileIO.press` makes the riders' sync happen now.

**Poison.**  The first failure that leaves the medium's contents unknown is kept; every later
change raises ``StorePoisoned`` with it as the cause.  A failed fsync is never tried again: ext4
and xfs report the lost pages once and then answer 0.  Nor does any other fsync count that is under
way at that time: the one report may have gone to its neighbour.
"""

from __future__ import annotations

import asyncio
import errno
import mmap
from collections.abc import Coroutine
from typing import Any, NamedTuple, TypeVar

from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import frame_of
from uringblob.completion import Completion, call_surely
from uringblob.engines import transfers
from uringblob.engines.base import Engine
from uringblob.engines.transfers import SyncFailed
from uringblob.errors import BlobStoreError, BlobStoreIOError, StorePoisoned, check_rc, one_each
from uringblob.guid import BlobGuid
from uringblob.logs import logger
from uringblob.store.format import BLOCK_SIZE
from uringblob.store.io.bounces import Bounces
from uringblob.store.io.checksum_budget import COPIED, ChecksumBudget
from uringblob.store.io.job import Job
from uringblob.store.io.repairs import Repairs

T = TypeVar("T")

#: What one request for blocks moves at most, and so the largest stretch of scratch memory.
SCRATCH_BYTES = 256 * 1024
#: Stretches kept of each of the two sizes, so at most 2.3 MiB, with the one that stays zero.
_SCRATCH_KEPT = 8


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
    """One open store file as the store sees it.  Belongs to ``loop``'s thread."""

    def __init__(self, engine: Engine, path: str, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self.path = path
        self.loop = loop
        self.pace = ChecksumBudget(loop)
        self.bounces = Bounces(engine.pool, self.pace, loop)
        self.poison_cause: BaseException | None = None
        self.repairs = Repairs(self)
        self._riders: list[Completion[None]] = []
        self._pressing = 0
        self._syncing: set[Completion[None]] = set()
        self._scratch: dict[int, list[IoBuffer]] = {BLOCK_SIZE: [], SCRATCH_BYTES: []}
        self._zeros: IoBuffer | None = None

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Job[T]:
        """Run ``coroutine`` as a job of this store; one that a signal handler strikes poisons it."""
        return Job(coroutine, self.loop, self._on_interrupt)

    async def next_tick(self) -> None:
        """Let the tasks that are ready have their turn; requests are submitted then, too."""
        tick: Completion[None] = Completion(loop=self.loop)
        call_surely(self.loop, tick.resolve, None)
        await tick

    def _on_interrupt(self, error: BaseException) -> None:
        self.poison(
            BlobStoreError(f"{self.path}: a signal handler raised {error!r} in the middle of a change")
        )

    # --- trust ---------------------------------------------------------------------------

    def poison(self, cause: BaseException) -> None:
        """Refuse every change from now on; only the first cause is kept.

        Whoever gets ``cause`` raised must not take his change for refused: it may be there later.
        """
        if isinstance(cause, BlobStoreIOError):
            cause.applied = None
        if self.poison_cause is None:
            # A copy: whoever gets ``cause`` raised adds to it, and its traceback knows his frames.
            self.poison_cause = one_each(cause)
            self._log_poison(cause)

    def _log_poison(self, cause: BaseException) -> None:
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
        """Raise ``StorePoisoned`` if the medium's contents are unknown."""
        if self.poison_cause is not None:
            raise StorePoisoned(
                f"{self.path}: an earlier I/O failed and left the store in an unknown state "
                f"({self.poison_cause}); this change was not applied. Close the store and open it again"
            ) from self.poison_cause

    @property
    def takes_changes(self) -> bool:
        """Whether a slot may be handed out now: nothing is unknown, and no repair is due."""
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
        if size <= SCRATCH_BYTES:
            return await self._read_piece(offset, size, what)
        pieces: list[bytes] = []
        for start in range(0, size, SCRATCH_BYTES):
            wanted = min(SCRATCH_BYTES, size - start)
            pieces.append(await self._read_piece(offset + start, wanted, what))
            if len(pieces[-1]) < wanted:
                break
        return b"".join(pieces)

    async def _read_piece(self, offset: int, size: int, what: str) -> bytes:
        scratch = self._take_scratch(size)
        try:
            frame = scratch.part(0, size)
            got = await transfers.read_whole(self.engine, offset, [frame], self.where(what, offset))
            return bytes(frame.view[:got])
        finally:
            self._keep_scratch(scratch)

    async def write(self, offset: int, data: bytes, what: str) -> None:
        """Write ``data``, whose length is a multiple of 4096, wholly; nothing is synced.

        A poisoned store changes no block any more: what was prepared for it may have been lost.
        """
        if len(data) > SCRATCH_BYTES:
            for start in range(0, len(data), SCRATCH_BYTES):
                piece = data[start : start + SCRATCH_BYTES]
                await self.pace.turn(len(piece) * COPIED)
                await self.write(offset + start, piece, what)
            return
        if self.poison_cause is not None:
            raise self._unbelievable(self.where(what, offset))
        scratch = self._take_scratch(len(data))
        try:
            frame = scratch if scratch.size == len(data) else scratch.part(0, len(data))
            frame.view[:] = data
            await transfers.write_whole(self.engine, offset, [frame], self.where(what, offset))
        finally:
            self._keep_scratch(scratch)

    async def zero(self, offset: int, size: int, what: str) -> None:
        """Write ``size`` zero bytes as :meth:`write` does; no memory of that size is made or copied."""
        if self.poison_cause is not None:
            raise self._unbelievable(self.where(what, offset))
        if self._zeros is None:
            self._zeros = self._map_scratch(SCRATCH_BYTES)
        whole, rest = divmod(size, SCRATCH_BYTES)
        frames = [self._zeros] * whole
        if rest:
            frames.append(self._zeros.part(0, rest))
        await transfers.write_whole(self.engine, offset, frames, self.where(what, offset))

    def file_size(self) -> int:
        """Return the file's length in bytes.

        :raises BlobStoreIOError: the file system does not say: it has died.
        """
        return check_rc(self.engine.file_size(), f"{self.path}: asking for the file's length")

    def where(self, what: str, offset: int) -> ErrorContext:
        """Say which operation, on which file, at which offset: the head of an error message."""
        return ErrorContext(what, self.path, offset)

    def _take_scratch(self, size: int) -> IoBuffer:
        """Return memory for ``size`` bytes, at most :data:`SCRATCH_BYTES`: one of two sizes."""
        size = BLOCK_SIZE if size <= BLOCK_SIZE else SCRATCH_BYTES
        kept = self._scratch[size]
        return kept.pop() if kept else self._map_scratch(size)

    def _map_scratch(self, size: int) -> IoBuffer:
        try:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"{self.path}: no memory for {size} bytes of I/O: {error.strerror}") from error
        return frame_of(memory, size, writable=True, pool=self.engine.pool)

    def _keep_scratch(self, scratch: IoBuffer) -> None:
        kept = self._scratch[scratch.size]
        if len(kept) < _SCRATCH_KEPT:
            kept.append(scratch)

    # --- syncs ---------------------------------------------------------------------------

    async def sync(self, what: str) -> None:
        """fdatasync; a failure poisons the store and is raised."""
        riders, self._riders = self._riders, []
        what = f"{what}: fdatasync of {self.path}"
        try:
            await self.run_sync(transfers.sync(self.engine, what), what)
        except GeneratorExit:
            raise  # this job was dropped, and everybody with it: nobody is resumed
        except BaseException as error:
            # The riders learn only that it has ended.  What they would do next they cannot: the store is
            # poisoned, and it changes no block any more; also where there was no memory to begin the sync.
            if riders:
                self.poison(error)
            self._end_ride(riders)
            raise
        self._end_ride(riders)

    def _end_ride(self, riders: list[Completion[None]]) -> None:
        while riders:
            riders[0].resolve(None)
            riders.pop(0)

    async def run_sync(self, syncing: Coroutine[Any, Any, T], what: object) -> T:
        """Run ``syncing``, which ends with an fdatasync; raise if its success proves nothing.

        The system reports a lost write to one fsync only.  If two are under way and the error goes
        to one, the other's 0 is a lie; so a sync is believed when all that overlapped it are done.
        """
        try:
            if self.poison_cause is not None:
                raise self._unbelievable(what)
            ended: Completion[None] = Completion(loop=self.loop)
            self._syncing.add(ended)
        except BaseException:
            syncing.close()
            raise
        try:
            result = await syncing
        except GeneratorExit:
            raise  # the same
        except BaseException as error:
            if isinstance(error, SyncFailed) or not isinstance(error, BlobStoreError):
                self.poison(error)  # without memory nobody knows what became of it
            self._syncing.discard(ended)
            ended.resolve(None)
            raise
        self._syncing.discard(ended)
        ended.resolve(None)
        for other in list(self._syncing):
            if not other.done():
                await other
        if self.poison_cause is not None:
            raise self._unbelievable(what)
        return result

    def _unbelievable(self, what: object) -> SyncFailed:
        number = getattr(self.poison_cause, "errno", None) or errno.EIO
        error = SyncFailed(
            number, f"{what}: an earlier I/O failed, so no flush proves anything", applied=None
        )
        error.__cause__ = self.poison_cause
        return error

    def ride(self) -> Completion[None]:
        """Return a completion that resolves when a sync that begins from now on has ended.

        It was a success, or nothing can be written any more.
        """
        rider: Completion[None] = Completion(loop=self.loop)
        self._riders.append(rider)
        if self._pressing:
            self._sync_for_riders()
        return rider

    async def press(self, job: asyncio.Future[Any]) -> None:
        """Wait for ``job``, giving it every sync that it rides on at once."""
        self._pressing += 1
        try:
            if self._riders:
                self._sync_for_riders()
            await job
        finally:
            self._pressing -= 1

    def _sync_for_riders(self) -> None:
        # Its failure is the poison that everybody is told of.
        self.start(self.sync("sync")).add_done_callback(lambda job: job.exception())
