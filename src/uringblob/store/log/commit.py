"""A small commit: its caller's wait, and its part of a group, in one object.

Nothing of it is a coroutine or a task's: the caller's task waits for it, its frames' completion counts for its
group, and the group ends it.  Only a commit that fails starts a job, which waits for its frames' write
before the caller has them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from uringblob.completion import persist, set_bare_result
from uringblob.errors import BlobStoreError
from uringblob.store.format import CHECKSUM_BITS
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.changes import Change, Conditions
from uringblob.store.index.slot_states import SlotState
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Job, wait_all
from uringblob.store.io.pending_write import PendingWrite
from uringblob.wait import Wait


class Frames(Protocol):
    """A commit's frames in their slots; a :class:`~uringblob.store.frame_writes.Batch`."""

    @property
    def entries(self) -> Sequence[tuple[bytes, int]]:
        """Guids and packed entries."""

    @property
    def size_bytes(self) -> int:
        """How many bytes they have."""

    @property
    def meta_cells(self) -> int:
        """How many cells of the log their metadata takes."""

    def free(self, why: BaseException) -> object:
        """Give their slots back: the commit failed."""


class Commit(Wait):
    """Frames that are being written, deletions, and who waits; a :class:`.group.Member`."""

    flushes = False
    forced = False
    conditions: Conditions = ()

    def __init__(
        self,
        file_io: FileIO,
        index: BlobIndex,
        batch: Frames | None,
        deletes: Sequence[bytes],
        written: PendingWrite | None,
    ) -> None:
        super().__init__(loop=file_io.loop)
        self._file_io = file_io
        self._index = index
        self._batch = batch
        self.deletes = deletes
        self.entries: Sequence[tuple[bytes, int]] = ()
        self.written: PendingWrite | Job[None] | None = written
        self.size = len(deletes)
        self.frame_bytes = 0
        if batch is not None:
            self.entries = batch.entries
            self.size += len(batch.entries) + batch.meta_cells
            self.frame_bytes = batch.size_bytes

    @property
    def end(self) -> Commit:
        """What ends with its group: itself."""
        return self

    def build_changes(self) -> Iterable[tuple[bytes, Change]]:
        """See :class:`.group.Member`."""
        return self._index.commit_changes(self.entries, self.deletes)

    def resolve(self, result: None = None) -> None:
        """End: it is durable and visible."""
        self.written = self._batch = None  # they hold the caller's buffers
        self._end(set_bare_result, result)  # what Wait.resolve() does, one call less

    def reject(self, error: type | BaseException, /) -> None:
        """End with ``error``, when no request uses the caller's frames any more."""
        batch = self._batch
        if batch is not None:
            persist(lambda: self._file_io.start(self._give_up(batch, error)))
            self._batch = None  # last: rejecting twice does nothing
        elif self.written is None:
            super().reject(error)  # else it was given up already, and ends when its write has

    async def _give_up(self, batch: Frames, error: type | BaseException) -> None:
        try:
            if self.written is not None:
                await wait_all([self.written])
            # A group that was interrupted while it was applied has live slots, which stay.
            if self._index.slots.state(self.entries[0][1] >> CHECKSUM_BITS) == SlotState.WRITING:
                batch.free(error if isinstance(error, BaseException) else error())
        finally:
            self.written = None
            # The functions in the traceback refer to the frames, which are the caller's from now on.
            super().reject(error.with_traceback(None) if isinstance(error, BlobStoreError) else error)
