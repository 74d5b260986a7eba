"""Finding out what a store file durably says (docs/maintainers/format.md, rules 2 to 4, 9, 10, 12 and 14).

:func:`recover` only reads.  Its one judgement is about the last group, which is *in doubt* as rule 3 says.
What a writable open does next is in :mod:`uringblob.store.opening.repair`.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator

from uringblob.buffers.checksum import frame_checksum
from uringblob.errors import StoreCorrupt
from uringblob.guid import BlobGuid
from uringblob.logs import logger
from uringblob.store.format import (
    CHECKSUM_MASK,
    COUNT_LIMIT,
    FLAG_FRAMES_SYNCED,
    Block,
    BlockType,
    SlotRun,
    Superblock,
    entry_slot,
    first_slot,
)
from uringblob.store.index.shards import Shards
from uringblob.store.io.file_io import FileIO
from uringblob.store.log.reader import LogReader, LogTail
from uringblob.store.log.writer import Place

#: What a group replaced: guid and the entry before it (``None``: there was none).
Undo = list[tuple[bytes, "int | None"]]
#: A group's blocks with their offsets.
Blocks = list[tuple[int, Block]]


class LogReplay:
    """The map while the log is replayed, with what the last two groups replaced."""

    def __init__(self) -> None:
        self.entries: Shards[int] = Shards()
        self._undo: collections.deque[Undo] = collections.deque([[], []], maxlen=2)

    def load(self, block: Block) -> None:
        """Add a snapshot's block: nothing in it replaces anything."""
        self.entries.update(block.entries())

    def apply(self, group: Blocks) -> None:
        """Apply one group."""
        undo: Undo = []
        for guid, entry in entries_of(group):
            undo.append((guid, self.entries.get(guid)))
            self._set(guid, entry if entry_slot(entry) else None)
        self._undo.append(undo)

    def drop_last(self) -> None:
        """Undo the last group."""
        for guid, entry in reversed(self._undo.pop()):
            self._set(guid, entry)

    def _set(self, guid: bytes, entry: int | None) -> None:
        if entry is None:
            self.entries.discard(guid)
        else:
            self.entries[guid] = entry

    def superseded(self) -> list[int]:
        """Return the slots that the last group replaced; without that group they are needed."""
        return [entry_slot(entry) for _, entry in self._undo[-1] if entry is not None]


@dataclasses.dataclass
class RecoveredLog:
    """What a store file durably says, and where its log goes on.

    ``seq`` is the last group that happened, ``last_group`` its blocks and ``last_place`` where they begin;
    ``group_blocks`` counts the blocks of all groups; groups up to ``floor`` can never be dropped.
    ``dropped`` is a last group that never happened, with the reason.  ``cached`` says why reads may be a
    cache's and not the medium's, or "".
    """

    reader: LogReader
    replay: LogReplay
    seq: int
    floor: int
    last_group: Blocks
    last_place: Place
    group_blocks: int
    tail: LogTail
    log_space: tuple[SlotRun, ...]
    cached: str = ""
    in_doubt: bool = False
    dropped: tuple[int, str] | None = None

    def notes(self) -> list[str]:
        """Return what a user should know of it."""
        if self.dropped is None:
            return []
        return [f"group {self.dropped[0]}, the last one, is left out: {self.dropped[1]}"]

    def is_unproved(self) -> bool:
        """Whether neither a floor nor a trace of a later group proves the last group durable."""
        return self.seq > self.floor and not self.tail.stale_sectors

    def last_slots(self) -> Iterator[int]:
        """Yield the slots that the last group names."""
        return (slot for _, entry in entries_of(self.last_group) if (slot := entry_slot(entry)))


async def recover(
    file_io: FileIO, superblock: Superblock, *, read_only: bool, cached: str, up_to: int | None = None
) -> RecoveredLog:
    """Return what the store durably says; changes nothing.

    Where reads are ``cached``, an unproved group may be in the cache alone: a writable opener will write
    it again, a read-only one leaves it out (rule 14).  ``up_to``: a group that is known to be durable; what
    follows is not looked at.

    :raises StoreCorrupt: the log is damaged in a place that a torn write does not explain; or, with ``up_to``,
        it is being changed.
    """
    found = await _replay(file_io, superblock, None, up_to)
    if up_to is not None:
        return found
    found.cached = cached
    found.in_doubt = _is_in_doubt(found)
    if read_only and cached and found.is_unproved() and any(entries_of(found.last_group)):
        _drop_last_group(
            found,
            f"{cached}, so the medium may not hold it; open the store once without read_only to settle that",
        )
    elif found.in_doubt:
        bad = await _first_bad_frame(file_io, found, superblock.page_size)
        if bad is not None:
            _drop_last_group(found, f"the frame of blob {BlobGuid(bad)} was not wholly written")
    elif found.tail.stale_sectors:
        found.dropped = (found.seq + 1, "its log blocks were not wholly written")
    if found.dropped is not None:
        logger.warning(
            "%s: group %d, the last one, is left out: %s",
            file_io.path,
            *found.dropped,
            extra={"event": "group_dropped", "path": file_io.path, "seq": found.dropped[0]},
        )
    return found


async def _replay(
    file_io: FileIO, superblock: Superblock, switch_seq: int | None, up_to: int | None = None
) -> RecoveredLog:
    page_size = superblock.page_size
    reader = LogReader(file_io, superblock.store_id, superblock.log_id, page_size, superblock.head)
    if not await reader.enter():
        raise _damaged(file_io, "the header of the log's first segment", superblock.head.slot * page_size, 0)
    replay = LogReplay()
    await reader.snapshot(replay.load)
    base_seq = await _replay_carry(file_io, reader, replay, switch_seq)
    seq, group_blocks = base_seq, 0
    last_group: Blocks = []
    last_place = place = reader.position
    while up_to is None or seq < up_to:
        group = await reader.group(seq + 1, BlockType.GROUP, BlockType.SWITCH)
        if group is None:
            break
        seq += 1
        last_group, last_place, place = group, place, reader.position
        group_blocks += len(group)
        if group[0][1].type is BlockType.SWITCH:
            return await _follow(file_io, superblock, group[0], switch_seq, up_to)
        replay.apply(group)
    if up_to is None:
        tail = await reader.examine_tail()
        floor = max(base_seq, superblock.floor if switch_seq is None else base_seq)
        _check_tail(file_io, reader, tail, seq, floor)
    elif seq < up_to:
        raise _damaged(
            file_io, "a group that its writer announced", reader.offset_of(reader.position), seq + 1
        )
    else:
        tail, floor = LogTail([], []), seq
    log_space = _check_log_space(file_io, superblock, reader)
    return RecoveredLog(reader, replay, seq, floor, last_group, last_place, group_blocks, tail, log_space)


def _check_log_space(file_io: FileIO, superblock: Superblock, reader: LogReader) -> tuple[SlotRun, ...]:
    """Return the extents kept for logs, as far as the file goes; in version 2 the log lies in them."""
    page_size = superblock.page_size
    slots_in_file = file_io.file_size() // page_size
    extents: list[SlotRun] = []
    end = first_slot(page_size)
    for extent in sorted(superblock.log_space, key=lambda extent: extent.slot):
        if extent.slot < end or not 0 < extent.slots < COUNT_LIMIT:
            raise _damaged(file_io, "the list of log space in the superblock", extent.slot * page_size, 0)
        end = extent.end
        inside = min(end, slots_in_file) - extent.slot  # the file may have been cut
        if inside > 0:
            extents.append(SlotRun(extent.slot, inside))
    for segment in [*reader.segments, reader.tail] if superblock.version > 1 else ():
        if not any(extent.contains(segment) for extent in extents):
            offset = segment.slot * page_size
            raise _damaged(file_io, "a log segment outside the log space", offset, reader.seq)
    return tuple(extents)


async def _replay_carry(file_io: FileIO, reader: LogReader, replay: LogReplay, switch_seq: int | None) -> int:
    carry = await reader.group(switch_seq, BlockType.CARRY)
    if carry is None:
        raise _damaged(file_io, "the first group of the log", reader.offset_of(reader.position), 0)
    replay.apply(carry)
    offset, block = carry[0]
    if block.seq >= COUNT_LIMIT:
        raise _damaged(file_io, "the first group of the log", offset, block.seq)
    return block.seq


async def _follow(
    file_io: FileIO,
    superblock: Superblock,
    switch: tuple[int, Block],
    switch_seq: int | None,
    up_to: int | None = None,
) -> RecoveredLog:
    """Replay the log that a SWITCH names; a crash kept the superblocks from naming it."""
    offset, block = switch
    if switch_seq is not None:
        # The first log after a switch is in use only when both superblocks name it.
        raise _damaged(file_io, "a second change of logs", offset, block.seq)
    log_id, slot, slots, _ = block.link()
    if slots < 1 or slot + slots > COUNT_LIMIT:
        raise _damaged(file_io, "the record of the change of logs", offset, block.seq)
    ahead = dataclasses.replace(superblock, log_id=log_id, head=SlotRun(slot, slots))
    return await _replay(file_io, ahead, block.seq, up_to)


def _damaged(file_io: FileIO, what: str, offset: int, seq: int) -> StoreCorrupt:
    text = f"{file_io.path}: {what} is damaged (offset {offset}, group {seq}). Restore the store from a copy"
    return StoreCorrupt(text, offset)


def _check_tail(file_io: FileIO, reader: LogReader, tail: LogTail, seq: int, floor: int) -> None:
    """Raise if the missing last group was damaged, not torn: anything later proves that it was whole."""
    missing, stale = seq + 1, tail.stale_sectors
    offset = stale[0].offset if stale else reader.offset_of(reader.position)
    if tail.last_seq > missing:
        raise _damaged(file_io, f"a group before group {tail.last_seq}", offset, missing)
    if floor > seq:
        raise _damaged(file_io, f"a group that was sealed (up to {floor})", offset, missing)


def _is_in_doubt(found: RecoveredLog) -> bool:
    if not found.is_unproved() or found.last_group[0][1].flags & FLAG_FRAMES_SYNCED:
        return False
    return any(found.last_slots())


def entries_of(group: Iterable[tuple[int, Block]]) -> Iterator[tuple[bytes, int]]:
    """Yield guid and entry of every record of ``group``."""
    return (entry for _, block in group for entry in block.entries())


async def _first_bad_frame(file_io: FileIO, found: RecoveredLog, page_size: int) -> bytes | None:
    slots_in_file = file_io.file_size() // page_size
    for guid, entry in entries_of(found.last_group):
        slot = entry_slot(entry)
        if not slot:
            continue
        if slot >= slots_in_file:  # it need not be an offset that a request can have
            return guid
        frame = await file_io.read(slot * page_size, page_size, "verifying the last group")
        if len(frame) != page_size or frame_checksum(frame) != entry & CHECKSUM_MASK:
            return guid
    return None


def _drop_last_group(found: RecoveredLog, why: str) -> None:
    found.replay.drop_last()
    found.tail.dirty_blocks = [offset for offset, _ in found.last_group] + found.tail.dirty_blocks
    found.dropped = (found.seq, why)
    found.reader.position = found.last_place
    found.seq -= 1
