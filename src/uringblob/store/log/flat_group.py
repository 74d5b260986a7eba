"""A group that goes as it should, without a coroutine: its parts end, it is flushed, it is durable.

The commits of a small group and its one block are written together.  :class:`FlatGroup` keeps the writes
that are not whole yet; when there are none, it asks for the fdatasync (rule 1: for nothing else), and when
that has succeeded the group is durable.  Anything else (a short write, an error, a second sync, a signal
handler's exception) ends the callbacks: the coroutine of :class:`~uringblob.store.log.group.Group` takes over
with the answers so far.

Callbacks may be repeated, because a signal handler may raise in the middle of one: what is counted is a set.
"""

from __future__ import annotations

from collections.abc import Callable
from uringblob.engines import transfers
from uringblob.store.format import BLOCK_SIZE, FLAG_FRAMES_SYNCED, RECORDS_PER_BLOCK, BlockType, delete_record, set_record
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.io.file_io import ErrorContext, FileIO
from uringblob.store.io.pending_write import PendingWrite
from uringblob.store.log.commit import Commit
from uringblob.store.log.group import LARGE_GROUP_BYTES, Group, Member
from uringblob.store.log.writer import BlockRun, Log


class FlatGroup(Group):
    """One group of small commits, and one block.

    ``on_end(error, durable=...)`` is called once: true when the group is durable, false where :meth:`finish`
    must go on, or with an error where it did not begin.  ``on_fail(error)`` gets what was raised in a callback.
    """

    def __init__(
        self,
        log: Log,
        file_io: FileIO,
        commits: list[Commit],
        on_end: Callable[..., object],
        on_fail: Callable[[BaseException], object],
    ) -> None:
        super().__init__(log, file_io, list[Member](commits))
        self.commits = commits
        self._on_end = on_end
        self._on_fail = on_fail
        self._left: set[PendingWrite] = set()
        self._runs: list[BlockRun] = []
        self._block: PendingWrite | None = None
        self._synced: int | None = None
        self._syncing = self._over = False

    @property
    def fits_a_block(self) -> bool:
        """Whether it needs one block at most, and its frames no flush of their own before it."""
        return self.size <= RECORDS_PER_BLOCK and self._unsynced <= LARGE_GROUP_BYTES

    def join(self, index: BlobIndex) -> None:
        """Merge the members' changes, in one step; the last one to name a guid wins."""
        for member in self.commits:
            index.join_commit(self.changes, self.superseded, member.entries, member.deletes)

    def start(self) -> None:
        """Write the block, and flush when everything is written."""
        records = [
            delete_record(guid) if change.entry is None else set_record(guid, change.entry)
            for guid, change in self.changes.items()
        ]
        flags = 0 if self._unsynced else FLAG_FRAMES_SYNCED
        run = self._log.encode_small_group(BlockType.GROUP, self.seq, records, flags)
        self._runs.append(run)
        self.begun = True
        self._block = self._write_block(*run)
        writes = [self._block]
        for commit in self.commits:
            if commit.written is not None:
                writes.append(commit.written)
        self._left.update(writes)
        self._file_io.engine.push()
        for pending in writes:
            if pending.result is not None:
                self._landed(pending)
            else:
                pending.on_end = self._landed

    def _write_block(self, offset: int, data: bytes) -> PendingWrite:
        file_io = self._file_io
        scratch = file_io.take_scratch(BLOCK_SIZE)
        scratch.view[:] = data

        async def finish(answer: int) -> None:
            context = ErrorContext("writing the log", file_io.path, offset)
            await transfers.write_whole(file_io.engine, offset, [scratch], context, answer)

        self._scratch = scratch
        return PendingWrite(file_io, offset, [scratch], BLOCK_SIZE, finish)

    def _landed(self, pending: PendingWrite) -> None:
        """Count a write that has ended; when all are whole, flush."""
        try:
            if self._over:
                return
            if pending.result != pending.size_bytes:
                self.end(durable=False)
                return
            self._left.discard(pending)
            if not self._left and not self._syncing:
                self._syncing = True
                if not self._file_io.start_sync(f"commit of group {self.seq}", self._after_sync):
                    self.end(durable=False)
        except BaseException as error:
            self._on_fail(error)
            raise

    def _after_sync(self, result: int) -> None:
        """Take the sync's result, once: the reaper repeats this where a signal handler has raised."""
        try:
            if self._over:
                return
            self._synced = result
            durable = result == 0 and self._file_io.sync_counts
            if durable:
                self._file_io.keep_scratch(self._scratch)
                self._log.accept_blocks(self.seq, 1)
            self.end(durable=durable)
        except BaseException as error:
            self._on_fail(error)
            raise

    def drop(self) -> None:
        """Let no callback do anything any more."""
        self._over = True

    def end(self, *, durable: bool, error: Exception | None = None) -> None:
        """End the callbacks, once."""
        if not self._over:
            self._over = True
            for pending in self._left:
                pending.on_end = None
            self._on_end(error, durable=durable)

    async def finish(self) -> dict[Member, BaseException]:
        """Make the group durable by awaiting what is left; see :meth:`.Group.write`."""
        assert self._block is not None
        self._block.on_end = None
        return await self._finish(self._runs, self._block, self._synced)
