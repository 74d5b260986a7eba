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

import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence

from uringblob.errors import NO_SPACE_ERRNOS, BlobStoreError, BlobStoreIOError
from uringblob.store.format import (
    BLOCK_SIZE,
    RECORDS_PER_BLOCK,
    BlockType,
    Segment,
    blocks_for,
    encode_block,
    link_record,
)
from uringblob.store.job import Job
from uringblob.store.medium import Medium

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
        medium: Medium,
        *,
        store_id: bytes,
        log_id: int,
        page_size: int,
        segments: Sequence[Segment],
        tail: Segment,
        position: tuple[int, int],
        seq: int,
        take_segment: Callable[[], Awaitable[Segment]],
        give_back: Callable[[Segment], None],
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
        self._take_segment = take_segment
        self._give_back = give_back
        self._extending: Job[None] | None = None

    def __repr__(self) -> str:
        return (
            f"<Log id={self.log_id:016x} seq={self.seq} segments={len(self.segments)}"
            f" room={self.room} blocks>"
        )

    # --- places --------------------------------------------------------------------------

    def offset_of(self, segment: Segment) -> int:
        """Return the file offset of ``segment``'s first byte."""
        return segment.slot * self.page_size

    def blocks_of(self, segment: Segment) -> int:
        """Return how many blocks ``segment`` has, its header included."""
        return segment.slots * self.page_size // BLOCK_SIZE

    @property
    def room(self) -> int:
        """Blocks that can be written before the chain needs another segment."""
        later = self.segments[self._segment_index + 1 :]
        here = self.blocks_of(self.segments[self._segment_index]) - self._block_index
        return here + sum(self.blocks_of(segment) - 1 for segment in later)

    @property
    def chain(self) -> list[Segment]:
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

    def skip(self, count: int) -> None:
        """Move the position past ``count`` blocks that were written as a part of something larger."""
        self._advance(count)

    async def write(self, stretches: Sequence[Stretch], what: str = "writing the log") -> None:
        """Write encoded blocks wholly; nothing is synced and the position does not move."""
        for offset, data in stretches:
            await self._medium.write(offset, data, what)

    async def wipe(self, stretches: Sequence[Stretch]) -> None:
        """Zero the blocks of a group that failed, durably, so that no later open can meet it."""
        for offset, data in stretches:
            await self._medium.write(offset, bytes(len(data)), "wiping a failed group")
        await self._medium.sync("wiping a failed group")

    async def settle_failed(self, error: BaseException, stretches: Sequence[Stretch]) -> None:
        """Writing ``stretches`` failed: wiped, if there was no room for them, or the store is poisoned.

        For any other reason than lack of room, what the medium holds there is unknown.
        """
        if not isinstance(error, BlobStoreIOError) or error.errno not in NO_SPACE_ERRNOS:
            self._medium.poison(error)
            return
        try:
            await self.wipe(stretches)
        except BlobStoreError as failure:
            self._medium.poison(failure)
            raise

    def accept(self, seq: int, stretches: Sequence[Stretch]) -> None:
        """The group in ``stretches`` is durable: move on, and prepare more room when it runs low."""
        blocks = sum(len(data) for _, data in stretches) // BLOCK_SIZE
        self._advance(blocks)
        self.group_blocks += blocks
        self.seq = seq
        if self.room < self.blocks_of(self.tail) // 2:
            with contextlib.suppress(MemoryError):  # the group is durable; the next one tries again
                self._start_extending()

    # --- the chain -----------------------------------------------------------------------

    async def ensure_room(self, blocks: int) -> None:
        """Wait until ``blocks`` more blocks can be written, preparing segments as needed."""
        while self.room < blocks:
            await self._medium.press(self._start_extending())

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
                await self._medium.press(self._extending)
            except BlobStoreError:
                return

    async def _extend(self) -> None:
        """Give the tail a header, and the chain a new tail."""
        new = await self._take_segment()
        try:
            await self.zero(new)
        except BlobStoreIOError as error:
            if error.errno in NO_SPACE_ERRNOS:
                self._give_back(new)
            raise
        await self._medium.ride()
        link = [(self.offset_of(self.tail), self.encode_header(len(self.segments), self.tail, new))]
        try:
            await self.write(link, "linking a log segment")
        except BlobStoreError as error:
            await self.settle_failed(error, link)
            if self._medium.poison_cause is None:
                self._give_back(new)
            raise
        await self._medium.ride()
        self.segments.append(self.tail)
        self.tail = new

    async def zero(self, segment: Segment) -> None:
        """Zero every block of ``segment``; nothing is synced."""
        size = segment.slots * self.page_size
        await self._medium.write(self.offset_of(segment), bytes(size), "zeroing a log segment")

    def encode_header(self, index: int, segment: Segment, successor: Segment) -> bytes:
        """Return the header block of ``segment``, the ``index``-th of the chain."""
        return encode_block(
            self.store_id,
            self.offset_of(segment),
            log_id=self.log_id,
            block_type=BlockType.SEGMENT,
            seq=0,
            records=[link_record(index, segment.slots, successor.slot, successor.slots)],
        )
