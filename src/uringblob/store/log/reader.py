"""The log's reading end: walks the chain, returns groups, and finds what lies behind the last one.

It trusts checksums only, and bounds every number behind a good one too: a segment lies inside the
file and over no other, so a hostile file can neither make the reader loop nor allocate more than
the file is long.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from uringblob import tuning
from uringblob.errors import BlobStoreIOError, StoreCorrupt
from uringblob.store.format import (
    BLANK_BLOCK,
    BLOCK_SIZE,
    Block,
    BlockType,
    SlotRun,
    StaleSector,
    decode_block,
    find_stale_sectors,
    first_slot,
)
from uringblob.store.io.file_io import FileIO
from uringblob.store.io.holes import parts_with_data
from uringblob.store.log.writer import Log, Place


@dataclasses.dataclass
class LogTail:
    """What lies between the last valid group and the end of the chain.

    ``stale_sectors`` are those that are not blank; ``dirty_blocks`` are the offsets of the blocks to be
    wiped, a header that an interrupted linking left included.
    """

    stale_sectors: list[StaleSector]
    dirty_blocks: list[int]

    @property
    def last_seq(self) -> int:
        """The highest sequence number in a stale sector, or 0."""
        return max((sector.seq or 0 for sector in self.stale_sectors), default=0)


class LogReader:
    """Reads one log from its head segment on.

    ``segments`` have good headers, ``tail`` is the one that the last of them names; ``position`` is the
    place of the next group.
    """

    def __init__(self, file_io: FileIO, store_id: bytes, log_id: int, page_size: int, head: SlotRun) -> None:
        self._file_io = file_io
        self._store_id = store_id
        self.log_id = log_id
        self._page_size = page_size
        self._file_size = file_io.file_size()
        self._ahead = b""
        self._ahead_offset = 0
        self.segments: list[SlotRun] = []
        self.seq = 0  # of the last group read, for messages
        self._check_bounds(head)
        self.tail = head
        self.position: Place = (0, 1)

    @classmethod
    def of_log(cls, log: Log) -> LogReader:
        """Return a reader for an open log, from its head on."""
        return cls(log.file_io, log.store_id, log.log_id, log.page_size, log.segments[0])

    def renew(self) -> None:
        """Forget what was read ahead and how long the file was: its writer has gone on."""
        self._file_size = self._file_io.file_size()
        self._ahead = b""

    # --- the chain -----------------------------------------------------------------------

    async def enter(self) -> bool:
        """Read the header of the segment that the chain ends in; False if it has none.

        :raises StoreCorrupt: the header is good and what it says is impossible.
        """
        segment = self.tail
        offset = segment.slot * self._page_size
        block = decode_block(self._store_id, offset, await self._raw(offset))
        if block is None or block.type is not BlockType.SEGMENT or block.log_id != self.log_id:
            return False
        index, slots, next_slot, next_slots = block.link()
        if index != len(self.segments) or slots != segment.slots:
            raise self._corrupt(offset, "a segment header does not match its place in the chain")
        successor = SlotRun(next_slot, next_slots)
        self.segments.append(segment)
        self._check_bounds(successor)
        self.tail = successor
        return True

    def _check_bounds(self, new: SlotRun) -> None:
        inside = new.slot >= first_slot(self._page_size) and new.end * self._page_size <= self._file_size
        overlaps = any(new.slot < old.end and old.slot < new.end for old in self.segments)
        if not inside or overlaps or new.slots < 1 or self._blocks_of(new) < 2:
            raise self._corrupt(
                new.slot * self._page_size,
                f"a log segment of {new.slots} slots lies outside the file or over another one",
            )

    def _corrupt(self, offset: int, what: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self._file_io.path}: {what} (offset {offset}, after group {self.seq}, log {self.log_id:016x}). "
            "Restore the store from a copy",
            offset,
        )

    # --- blocks --------------------------------------------------------------------------

    async def _raw(self, offset: int) -> bytes:
        """Return the block at ``offset``; behind the end of the file it is blank."""
        at = offset - self._ahead_offset
        if not 0 <= at <= len(self._ahead) - BLOCK_SIZE:
            left = (self._file_size - offset) // BLOCK_SIZE * BLOCK_SIZE
            size = max(BLOCK_SIZE, min(tuning.LOG_READ_AHEAD_BYTES, left))
            self._ahead, self._ahead_offset, at = b"", offset, 0
            try:
                self._ahead = await self._file_io.read(offset, size, "reading the log")
            except BlobStoreIOError:
                # A bad sector farther on, perhaps of a frame behind the segment, is not this block's.
                if size == BLOCK_SIZE:
                    raise
                self._ahead = await self._file_io.read(offset, BLOCK_SIZE, "reading the log")
        return self._ahead[at : at + BLOCK_SIZE].ljust(BLOCK_SIZE, b"\0")

    def _blocks_of(self, segment: SlotRun) -> int:
        return segment.slots * self._page_size // BLOCK_SIZE

    async def _normalize(self, place: Place) -> Place | None:
        """Return ``place`` as one that exists, entering the next segment; ``None`` at the chain's end."""
        index, block = place
        while True:
            if index == len(self.segments) and not await self.enter():
                return None
            if block < self._blocks_of(self.segments[index]):
                return index, block
            index, block = index + 1, 1

    def offset_of(self, place: Place) -> int:
        """Return the file offset of a place in one of ``segments``."""
        return self.segments[place[0]].slot * self._page_size + place[1] * BLOCK_SIZE

    async def _block_at(self, place: Place) -> tuple[int, Block, Place] | None:
        """Return offset, block and following place of the valid block at ``place``, or ``None``."""
        found = await self._normalize(place)
        if found is None:
            return None
        offset = self.offset_of(found)
        block = decode_block(self._store_id, offset, await self._raw(offset))
        if block is None or block.log_id != self.log_id or block.type is BlockType.SEGMENT:
            return None
        return offset, block, (found[0], found[1] + 1)

    async def peek(self) -> bytes:
        """Return the block at :attr:`position` as it is, or b"" where the chain ends."""
        place = await self._normalize(self.position)
        return b"" if place is None else await self._raw(self.offset_of(place))

    # --- groups --------------------------------------------------------------------------

    async def snapshot(self, load: Callable[[Block], None]) -> None:
        """Call ``load`` with every block of the snapshot that the log begins with; move behind it.

        :raises StoreCorrupt: the snapshot is not whole.
        """
        expected, count = 0, 1
        while expected < count:
            found = await self._block_at(self.position)
            if found is None or found[1].type is not BlockType.SNAPSHOT or found[1].index != expected:
                place = await self._normalize(self.position) or self.position
                raise self._corrupt(
                    self.offset_of(place), f"block {expected} of {count} of the map's snapshot is damaged"
                )
            _, block, self.position = found
            count, self.seq = block.count, block.seq
            load(block)
            expected += 1

    async def group(self, seq: int | None, *types: BlockType) -> list[tuple[int, Block]] | None:
        """Return the blocks of group ``seq`` and move behind it; ``None`` if it is not whole here.

        With ``seq=None`` the first block says which group it is.
        """
        group: list[tuple[int, Block]] = []
        found = await self._block_at(self.position)
        while found is not None:
            offset, block, following = found
            seq = block.seq if seq is None else seq
            if block.type not in types or block.seq != seq or block.index != len(group):
                return None
            group.append((offset, block))
            if len(group) == group[0][1].count:
                self.position = following
                self.seq = block.seq
                return group
            found = await self._block_at(following)
        return None

    # --- behind the last group -----------------------------------------------------------

    async def examine_tail(self) -> LogTail:
        """Look at every sector between :attr:`position` and the end of the chain."""
        tail = LogTail([], [])
        index, first_block = self.position
        while index < len(self.segments) or await self.enter():
            await self._examine(self.segments[index], first_block, tail)
            index, first_block = index + 1, 1
        header = self.tail.slot * self._page_size
        if await self._raw(header) != BLANK_BLOCK:
            tail.dirty_blocks.append(header)
        known = len(tail.stale_sectors)
        await self._examine(self.tail, 1, tail)
        for sector in tail.stale_sectors[known:]:
            if sector.seq is not None:
                raise self._corrupt(
                    header, f"a log segment's header is damaged and group {sector.seq} stands behind it"
                )
        return tail

    async def _examine(self, segment: SlotRun, first_block: int, tail: LogTail) -> None:
        start, end = segment.slot * self._page_size + first_block * BLOCK_SIZE, segment.end * self._page_size
        for part, size in parts_with_data(self._file_io, start, end, tuning.LOG_READ_AHEAD_BYTES):
            for offset in range(part, part + size, BLOCK_SIZE):
                stale = find_stale_sectors(await self._raw(offset), offset, self.log_id)
                if stale:
                    tail.dirty_blocks.append(offset)
                    tail.stale_sectors += stale
