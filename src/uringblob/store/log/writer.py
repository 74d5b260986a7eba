"""The log's writing end: a chain of segments, filled block by block (docs/maintainers/format.md, rules 4, 6 and 7).

* A segment is zeroed and flushed before a header names it.
* A segment's header names its successor and is durable before its first group is written.  So the
  chain always ends in a *tail*: a zeroed segment that a header names and that has none.
* A block that holds an acknowledged group is never rewritten.

The next segment is prepared with the flushes of later commits, unless a group needs the room at once.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

from uringblob import tuning
from uringblob.errors import NO_SPACE_ERRNOS, BlobStoreError, BlobStoreIOError
from uringblob.store.format import (
    BLOCK_SIZE,
    BlockType,
    SlotRun,
    encode_block,
    link_record,
)
from uringblob.store.index.log_space import LogSpace
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.job import Job, Lock

_WIPING = "wiping a failed group"

#: Where a block lies: index of the segment in the chain, index of the block in the segment.
Place = tuple[int, int]
#: Contiguous encoded blocks and their offset.
BlockRun = tuple[int, bytes]


def new_log_id() -> int:
    """Return a random 64-bit log id, never 0."""
    return int.from_bytes(os.urandom(8), "little") | 1


@dataclasses.dataclass(eq=False, repr=False)
class Log:
    """An open log.  ``seq`` is the last sequence number that is durable in it.

    ``segments`` have durable headers, ``tail`` is the zeroed one behind them; ``position`` is the place
    of the next block, which may be one behind the last block of a segment.
    """

    file_io: FileIO
    _: dataclasses.KW_ONLY
    store_id: bytes
    log_id: int
    page_size: int
    segments: list[SlotRun]
    tail: SlotRun
    position: Place
    seq: int
    space: LogSpace
    group_blocks: int = 0  # written since the snapshot: what compaction would save
    _extending: Job[None] | None = None
    #: Blocks that can be written before the chain needs another segment.
    room: int = dataclasses.field(init=False)
    #: With less room the next segment should be linked, before a group needs it.
    low_room: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.segments = list(self.segments)
        self.room = self._count_room()
        self.low_room = self.blocks_of(self.tail) // 2

    # --- places --------------------------------------------------------------------------

    def offset_of(self, segment: SlotRun) -> int:
        """Return the file offset of ``segment``'s first byte."""
        return segment.slot * self.page_size

    def blocks_of(self, segment: SlotRun) -> int:
        """Return how many blocks ``segment`` has, its header included."""
        return segment.slots * self.page_size // BLOCK_SIZE

    def _count_room(self) -> int:
        index, block = self.position
        blocks = self.blocks_of(self.segments[index]) - block
        return blocks + sum(self.blocks_of(segment) - 1 for segment in self.segments[index + 1 :])

    @property
    def chain(self) -> list[SlotRun]:
        """Every segment of this log, its tail included."""
        return [*self.segments, self.tail]

    def next_offsets(self, count: int) -> list[int]:
        """Return the file offsets of the next ``count`` blocks."""
        offsets: list[int] = []
        index, block = self.position
        while len(offsets) < count:
            segment = self.segments[index]
            stop = min(self.blocks_of(segment), block + count - len(offsets))
            offsets += [self.offset_of(segment) + at * BLOCK_SIZE for at in range(block, stop)]
            index, block = index + 1, 1
        return offsets

    def skip(self, count: int) -> None:
        """Move the position behind the next ``count`` blocks."""
        index, block = self.position
        self.room -= count
        while (left := self.blocks_of(self.segments[index]) - block) < count:
            index, block, count = index + 1, 1, count - left
        self.position = index, block + count

    # --- groups --------------------------------------------------------------------------

    def encode_small_group(
        self, block_type: BlockType, seq: int, records: Sequence[bytes], flags: int = 0
    ) -> BlockRun:
        """Return the only block of a group, writes and changes nothing."""
        index, block = self.position
        segment = self.segments[index]
        if block * BLOCK_SIZE == segment.slots * self.page_size:
            segment, block = self.segments[index + 1], 1
        offset = segment.slot * self.page_size + block * BLOCK_SIZE
        return offset, encode_block(
            self.store_id,
            offset,
            log_id=self.log_id,
            block_type=block_type,
            seq=seq,
            flags=flags,
            records=records,
            page_size=self.page_size,
        )

    async def encode_group(
        self,
        block_type: BlockType,
        seq: int,
        records: Iterator[list[bytes]],
        count: int,
        *,
        flags: int = 0,
        blocks: range | None = None,
    ) -> list[BlockRun]:
        """Return a group of ``count`` blocks, or these ``blocks`` of it; a few are encoded an iteration.

        ``records`` are those of one block after the other, and go on behind the group without any.
        """
        budget = self.file_io.checksum_budget
        runs: list[BlockRun] = []
        blocks = range(count) if blocks is None else blocks
        encoded: list[bytes] = []
        start = 0
        for index, offset in zip(blocks, self.next_offsets(len(blocks)), strict=True):
            if index:
                await budget.acquire(tuning.LOG_BLOCK_COST_BYTES)
            size = len(encoded) * BLOCK_SIZE
            if encoded and (offset != start + size or size == tuning.SCRATCH_BYTES):
                runs.append((start, b"".join(encoded)))
                encoded = []
            start = start if encoded else offset
            part = next(records)
            fields = {"log_id": self.log_id, "seq": seq, "flags": flags, "index": index, "count": count}
            fields["page_size"] = self.page_size
            encoded.append(encode_block(self.store_id, offset, block_type=block_type, records=part, **fields))
        if blocks.stop == count and next(records):
            raise AssertionError(f"group {seq} needs more than the {count} blocks that were counted for it")
        return [*runs, (start, b"".join(encoded))]

    def encode_header(self, index: int, segment: SlotRun, successor: SlotRun) -> bytes:
        """Return the header block of ``segment``, the ``index``-th of the chain."""
        link = link_record(index, segment.slots, successor.slot, successor.slots)
        offset, kind = self.offset_of(segment), BlockType.SEGMENT
        fields = {"log_id": self.log_id, "seq": 0, "page_size": self.page_size}
        return encode_block(self.store_id, offset, block_type=kind, records=[link], **fields)

    async def write(self, runs: Sequence[BlockRun], what: str = "writing the log") -> None:
        """Write encoded blocks; nothing is flushed and the position does not move."""
        for offset, data in runs:
            await self.file_io.write(offset, data, what)

    async def wipe(self, runs: Sequence[BlockRun]) -> bool:
        """Zero the blocks of a group that failed, and flush, so that no opener finds them.

        False if there is no room for the wipe: it is then due before any other change, and after a crash
        recovery may find the group, whole.
        """
        try:
            await self.file_io.repairs.make(lambda: self._wipe(runs))
        except BlobStoreIOError as error:
            if not self.file_io.repairs.lacks_room(error):
                raise
            return False
        return True

    async def _wipe(self, runs: Sequence[BlockRun]) -> None:
        for offset, data in runs:
            # A write without room mostly leaves the block as it was, and a wipe needs the same room.
            if not await self._is_blank(offset, len(data)):
                await self.file_io.zero(offset, len(data), _WIPING)
        await self.file_io.sync(_WIPING)

    async def _is_blank(self, offset: int, size: int) -> bool:
        try:
            return await self.file_io.read(offset, size, _WIPING) == bytes(size)
        except BlobStoreIOError:
            return False  # zero it: a block that cannot be read may still be written

    async def undo_failed(self, error: BaseException, runs: Sequence[BlockRun]) -> None:
        """Wipe ``runs`` if writing them failed for lack of room; else poison the store.

        After any other failure it is unknown what the medium holds there.
        """
        if not isinstance(error, BlobStoreIOError) or error.errno not in NO_SPACE_ERRNOS:
            self.file_io.poison(error)
        elif not await self.wipe(runs):
            error.applied = None

    def accept(self, seq: int, runs: Sequence[BlockRun]) -> None:
        """Move the position behind the durable group ``seq``, which ``runs`` holds."""
        self.accept_blocks(seq, sum(len(data) for _, data in runs) // BLOCK_SIZE)

    def accept_blocks(self, seq: int, blocks: int) -> None:
        """Move the position behind the durable group ``seq``, which takes so many blocks."""
        index, block = self.position
        if (block + blocks) * BLOCK_SIZE <= self.segments[index].slots * self.page_size:
            self.position = index, block + blocks
            self.room -= blocks
        else:
            self.skip(blocks)
        self.group_blocks += blocks
        self.seq = seq

    # --- the chain -----------------------------------------------------------------------

    def granules_for(self, blocks: int) -> int:
        """Return how much log space ``blocks`` more blocks, and the SWITCH that must follow, take."""
        if blocks < self.room:
            return 0
        missing = blocks + 1 - self.room
        if missing <= 0:
            return 0
        # The tail is used next.  A whole segment takes its place, and so is the last one before it.
        behind = self.space.granules_for(max(0, missing - self.blocks_of(self.tail) + 1))
        segment = self.space.segment_granules
        return segment if behind == 0 else behind + 2 * segment - 1

    def extend(self) -> Job[None]:
        """Begin to link one more segment, unless that is under way; flushed with later commits."""
        if self._extending is None or self._extending.done():
            self._extending = self.file_io.start(self._extend())
            # In the background an error means "not yet"; a group that needs the room gets it raised.
            self._extending.add_done_callback(lambda job: job.exception())
        return self._extending

    async def ensure_room(self, blocks: int) -> None:
        """Wait until ``blocks`` more blocks can be written, linking segments as needed."""
        while self.room < blocks:
            await self.file_io.force_sync(self.extend())

    async def wait_quiet(self) -> None:
        """Wait for the linking of a segment that is under way; its error is not this caller's."""
        if self._extending is not None and not self._extending.done():
            try:
                await self.file_io.force_sync(self._extending)
            except BlobStoreError:
                return

    async def _extend(self) -> None:
        """Give the tail a header, and the chain a new tail."""
        await self.file_io.ready()
        new = self.space.allocate(self.space.segment_granules)
        try:
            await self.zero(new)
            await self.file_io.wait_next_sync()
        except Exception as error:
            no_room = isinstance(error, BlobStoreIOError) and error.errno in NO_SPACE_ERRNOS
            (self.space.free if no_room else self.space.forfeit)(new)
            raise
        link = [(self.offset_of(self.tail), self.encode_header(len(self.segments), self.tail, new))]
        try:
            await self.write(link, "linking a log segment")
            await self.file_io.wait_next_sync()
        except Exception as error:
            # Also without memory: a header that may be there is never written again.
            await self.undo_failed(error, link)
            if self.file_io.poison_cause is None:
                self.space.free(new)
            raise
        self.segments.append(self.tail)
        self.tail = new
        self.room = self._count_room()
        self.low_room = self.blocks_of(new) // 2

    async def zero(self, segment: SlotRun) -> None:
        """Zero every block of ``segment``; nothing is flushed."""
        size = segment.slots * self.page_size
        await self.file_io.zero(self.offset_of(segment), size, "zeroing a log segment")


class ActiveLog:
    """The log that the store goes on in, which a compaction replaces.

    ``exclusive`` is held by the group in flight, and while a compaction switches to its new log.
    ``announce`` is called with each group that is durable, before anything follows from that.
    """

    def __init__(self, log: Log, announce: Callable[[int], None]) -> None:
        self.log = log
        self.exclusive = Lock()
        self.announce = announce
