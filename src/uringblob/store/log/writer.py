"""The log's writing end: a chain of segments, filled block by block.

Invariants (docs/format.md, rules 4, 6 and 7):

* A segment is zeroed and flushed before any header names it.
* A segment's header names its successor and is durable before its first group is written.  So
  the chain always ends in a *tail*: a zeroed segment that a header names and that has none.
* A block that holds an acknowledged group is never rewritten.

Preparing the next segment rides on the flushes of later commits, so it costs none of its own
unless a group needs the room at once.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence

from uringblob.errors import NO_SPACE_ERRNOS, BlobStoreError, BlobStoreIOError
from uringblob.store.format import (
    BLOCK_SIZE,
    RECORDS_PER_BLOCK,
    BlockType,
    SlotRun,
    blocks_for,
    encode_block,
    link_record,
)
from uringblob.store.index.log_space import LogSpace
from uringblob.store.io.checksum_budget import BLOCK
from uringblob.store.io.file_io import SCRATCH_BYTES, FileIO
from uringblob.store.io.job import Job

_WIPING = "wiping a failed group"

#: One contiguous stretch of blocks to write: offset and bytes.
Stretch = tuple[int, bytes]


def new_log_id() -> int:
    """Return a fresh random 64-bit log id, never 0."""
    return int.from_bytes(os.urandom(8), "little") | 1


class Log:
    """An open log.  ``seq`` is the last sequence number that is durable in it.

    ``segments`` have durable headers, ``tail`` is the zeroed one they end in; ``position`` is
    the next block to write, as (index of the segment, index of the block in it).
    """

    def __init__(
        self,
        medium: FileIO,
        *,
        store_id: bytes,
        log_id: int,
        page_size: int,
        segments: Sequence[SlotRun],
        tail: SlotRun,
        position: tuple[int, int],
        seq: int,
        space: LogSpace,
    ) -> None:
        self._medium = medium
        self.store_id = store_id
        self.log_id = log_id
        self.page_size = page_size
        self.segments = list(segments)
        self.tail = tail
        self._segment_index, self._block_index = position
        self.seq = seq
        self.group_blocks = 0  # written since the snapshot: what compaction would save
        self._space = space
        self._extending: Job[None] | None = None

    def __repr__(self) -> str:
        return (
            f"<Log id={self.log_id:016x} seq={self.seq} segments={len(self.segments)}"
            f" room={self.room} blocks>"
        )

    # --- places --------------------------------------------------------------------------

    def offset_of(self, segment: SlotRun) -> int:
        """Return the file offset of ``segment``'s first byte."""
        return segment.slot * self.page_size

    def blocks_of(self, segment: SlotRun) -> int:
        """Return how many blocks ``segment`` has, its header included."""
        return segment.slots * self.page_size // BLOCK_SIZE

    @property
    def position(self) -> tuple[int, int]:
        """The next block to write: index of the segment, index of the block in it."""
        return self._segment_index, self._block_index

    @property
    def room(self) -> int:
        """Blocks that can be written before the chain needs another segment."""
        later = self.segments[self._segment_index + 1 :]
        here = self.blocks_of(self.segments[self._segment_index]) - self._block_index
        return here + sum(self.blocks_of(segment) - 1 for segment in later)

    @property
    def chain(self) -> list[SlotRun]:
        """Every segment this log occupies, its tail included."""
        return [*self.segments, self.tail]

    def _next_places(self, count: int) -> list[tuple[int, int, int]]:
        """Return where ``count`` blocks go: stretches of (offset, first index, blocks)."""
        places = []
        segment_index, block_index, done = self._segment_index, self._block_index, 0
        while done < count:
            segment = self.segments[segment_index]
            here = min(count - done, self.blocks_of(segment) - block_index)
            if here:
                places.append((self.offset_of(segment) + block_index * BLOCK_SIZE, done, here))
                done += here
            segment_index, block_index = segment_index + 1, 1
        return places

    def _advance(self, count: int) -> None:
        while count:
            here = self.blocks_of(self.segments[self._segment_index]) - self._block_index
            if here == 0:
                self._segment_index, self._block_index = self._segment_index + 1, 1
                continue
            step = min(here, count)
            self._block_index += step
            count -= step

    # --- groups --------------------------------------------------------------------------

    def encode_group(
        self, block_type: BlockType, seq: int, records: Sequence[bytes], flags: int = 0
    ) -> list[Stretch]:
        """Return the blocks of one group at the log's position; writes and changes nothing."""
        return self.encode_part(block_type, seq, records, 0, blocks_for(len(records)), flags)

    def encode_part(
        self,
        block_type: BlockType,
        seq: int,
        records: Sequence[bytes],
        first_index: int,
        count: int,
        flags: int = 0,
    ) -> list[Stretch]:
        """Return the blocks of ``records``, from block ``first_index`` on of a group of ``count``."""
        stretches = []
        for offset, first, blocks in self._next_places(blocks_for(len(records))):
            encoded = [
                encode_block(
                    self.store_id,
                    offset + (index - first) * BLOCK_SIZE,
                    log_id=self.log_id,
                    block_type=block_type,
                    seq=seq,
                    flags=flags,
                    index=first_index + index,
                    count=count,
                    records=records[index * RECORDS_PER_BLOCK : (index + 1) * RECORDS_PER_BLOCK],
                )
                for index in range(first, first + blocks)
            ]
            stretches.append((offset, b"".join(encoded)))
        return stretches

    async def encode_in_turns(
        self, block_type: BlockType, seq: int, records: Iterable[bytes], count: int, flags: int = 0
    ) -> list[Stretch]:
        """Do what :meth:`encode_group` does for a group of ``count`` blocks, a few of them an iteration."""
        budget, rest = self._medium.checksum_budget, iter(records)
        stretches: list[Stretch] = []
        for place, first, blocks in self._next_places(count):
            encoded: list[bytes] = []
            start = place
            for index in range(first, first + blocks):
                if index and not budget.try_acquire(BLOCK):
                    await budget.acquire(BLOCK)
                offset = place + (index - first) * BLOCK_SIZE
                encoded.append(
                    encode_block(
                        self.store_id,
                        offset,
                        log_id=self.log_id,
                        block_type=block_type,
                        seq=seq,
                        flags=flags,
                        index=index,
                        count=count,
                        records=list(itertools.islice(rest, RECORDS_PER_BLOCK)),
                    )
                )
                if len(encoded) * BLOCK_SIZE == SCRATCH_BYTES or index == first + blocks - 1:
                    stretches.append((start, b"".join(encoded)))
                    start, encoded = offset + BLOCK_SIZE, []
        return stretches

    def skip(self, count: int) -> None:
        """Move the position past ``count`` blocks that were written as a part of something larger."""
        self._advance(count)

    async def write(self, stretches: Sequence[Stretch], what: str = "writing the log") -> None:
        """Write encoded blocks wholly; nothing is synced and the position does not move."""
        for offset, data in stretches:
            await self._medium.write(offset, data, what)

    async def wipe(self, stretches: Sequence[Stretch]) -> bool:
        """Zero the blocks of a group that failed, durably, so that no later open can meet it.

        False if there is no room even for that: then the wipe is due before anything else changes,
        and after a crash an opener may find the group, and it may be whole.
        """
        try:
            await self._medium.repairs.make(lambda: self._wipe(stretches))
        except BlobStoreIOError as error:
            if not self._medium.repairs.lacks_room(error):
                raise
            return False
        return True

    async def _wipe(self, stretches: Sequence[Stretch]) -> None:
        for offset, data in stretches:
            # What had no room mostly left the block as it was, and wiping it would need the same room.
            if not await self._is_blank(offset, len(data)):
                await self._medium.zero(offset, len(data), _WIPING)
        await self._medium.sync(_WIPING)

    async def _is_blank(self, offset: int, size: int) -> bool:
        try:
            return await self._medium.read(offset, size, _WIPING) == bytes(size)
        except BlobStoreIOError:
            return False  # it cannot be read, but perhaps written

    async def undo_failed(self, error: BaseException, stretches: Sequence[Stretch]) -> None:
        """Writing ``stretches`` failed: wiped, if there was no room for them, or the store is poisoned.

        For any other reason than lack of room, what the medium holds there is unknown.
        """
        if not isinstance(error, BlobStoreIOError) or error.errno not in NO_SPACE_ERRNOS:
            self._medium.poison(error)
        elif not await self.wipe(stretches):
            error.applied = None

    def accept(self, seq: int, stretches: Sequence[Stretch]) -> None:
        """The group in ``stretches`` is durable: move on."""
        blocks = sum(len(data) for _, data in stretches) // BLOCK_SIZE
        self._advance(blocks)
        self.group_blocks += blocks
        self.seq = seq

    # --- the chain -----------------------------------------------------------------------

    @property
    def runs_low(self) -> bool:
        """The next segment should be linked before a group needs it."""
        return self.room < self.blocks_of(self.tail) // 2

    def granules_for(self, blocks: int) -> int:
        """Return how much log space ``blocks`` more blocks, and the SWITCH that must follow, would take."""
        missing = blocks + 1 - self.room
        if missing <= 0:
            return 0
        # The tail is used next; what takes its place is a whole segment, as is the last one before it.
        behind = self._space.granules_for(max(0, missing - self.blocks_of(self.tail) + 1))
        segment = self._space.segment_granules
        return segment if behind == 0 else behind + 2 * segment - 1

    def prepare_room(self) -> None:
        """Link one more segment in the background; its syncs ride on those of commits."""
        self._start_extending()

    async def ensure_room(self, blocks: int) -> None:
        """Wait until ``blocks`` more blocks can be written, preparing segments as needed."""
        while self.room < blocks:
            await self._medium.force_sync(self._start_extending())

    def _start_extending(self) -> Job[None]:
        if self._extending is None or self._extending.done():
            self._extending = self._medium.start(self._extend())
            # Whoever needs the room sees the error; in the background it only means "not yet".
            self._extending.add_done_callback(lambda job: job.exception())
        return self._extending

    async def wait_quiet(self) -> None:
        """Wait until no preparation of a segment is under way (its error is not this caller's)."""
        if self._extending is not None and not self._extending.done():
            try:
                await self._medium.force_sync(self._extending)
            except BlobStoreError:
                return

    async def _extend(self) -> None:
        """Give the tail a header, and the chain a new tail."""
        await self._medium.ready()
        new = self._space.allocate(self._space.segment_granules)
        try:
            await self.zero(new)
            await self._medium.wait_next_sync()
        except Exception as error:
            no_room = isinstance(error, BlobStoreIOError) and error.errno in NO_SPACE_ERRNOS
            (self._space.free if no_room else self._space.forfeit)(new)
            raise
        link = [(self.offset_of(self.tail), self.encode_header(len(self.segments), self.tail, new))]
        try:
            await self.write(link, "linking a log segment")
            await self._medium.wait_next_sync()
        except Exception as error:
            # Also without memory: a header that may be there is never written again.
            await self.undo_failed(error, link)
            if self._medium.poison_cause is None:
                self._space.free(new)
            raise
        self.segments.append(self.tail)
        self.tail = new

    async def zero(self, segment: SlotRun) -> None:
        """Zero every block of ``segment``; nothing is synced."""
        size = segment.slots * self.page_size
        await self._medium.zero(self.offset_of(segment), size, "zeroing a log segment")

    def encode_header(self, index: int, segment: SlotRun, successor: SlotRun) -> bytes:
        """Return the header block of ``segment``, the ``index``-th of the chain."""
        return encode_block(
            self.store_id,
            self.offset_of(segment),
            log_id=self.log_id,
            block_type=BlockType.SEGMENT,
            seq=0,
            records=[link_record(index, segment.slots, successor.slot, successor.slots)],
        )
