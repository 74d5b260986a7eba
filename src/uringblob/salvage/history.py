"""What the log blocks that were found say, taken together: the newest readable record of every blob.

Sequence numbers are one timeline through all logs of a store, so no chain has to be whole.  In it

* a snapshot says what the whole map was after group ``S``;
* a carry says what changed between ``S`` and its own number ``T``; if its log was adopted, ``T`` is a group
  without changes, else the old log went on with a group ``T`` of its own;
* a group says what it changed.

All of this stays true when a compaction was given up, or when a newer log replaced this one.  So stale blocks
in free log space fill gaps of newer ones, and a whole snapshot overrules what is older.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from uringblob.salvage.scan import Scan
from uringblob.store.format import (
    CHECKSUM_MASK,
    FLAG_FRAMES_SYNCED,
    Block,
    BlockType,
    Superblock,
    entry_meta,
    entry_slot,
)

#: The first and the last number of consecutive groups that are missing.
Gap = tuple[int, int]


class Version(NamedTuple):
    """A blob's frame, and the group after which it is known to have been the blob's."""

    seq: int
    slot: int
    checksum: int
    meta: bytes = b""


@dataclasses.dataclass
class Unit:
    """The readable blocks of one snapshot, carry, group or switch, by index."""

    type: BlockType
    log_id: int
    seq: int
    count: int
    flags: int
    blocks: dict[int, Block] = dataclasses.field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether none of its blocks is missing."""
        return len(self.blocks) == self.count

    @property
    def known_after(self) -> tuple[int, int]:
        """Its place in the timeline: a number, and the order of those with the same number."""
        if self.type is BlockType.CARRY:
            return self.seq - 1, 2  # of what the groups before it changed
        return self.seq, 1 if self.type is BlockType.SNAPSHOT else 0


class History:
    """The timeline of one store.

    ``last`` is the last group that is known to have happened; ``gaps`` are groups up to it that cannot be read
    and that no snapshot replaces; ``left_out`` says which group behind it is left out, and why.
    """

    def __init__(self, found: Scan, store_id: bytes, superblocks: list[Superblock]) -> None:
        blocks = [block.block for block in found.blocks if block.store_id == store_id]
        self._units = _units(blocks)
        self._adopted = _adopted(self._units, superblocks, found.stale)
        logs = {unit.log_id for unit in self._units}
        stale = max((seq for log_id, seq in found.stale.items() if log_id in logs), default=0)
        floor = max((superblock.floor for superblock in superblocks), default=0)
        # Whatever names a group proves the one before it durable; a snapshot its own.
        named = max((u.seq - (u.type is not BlockType.SNAPSHOT) for u in self._units), default=0)
        self._proved = max(floor, stale - 1, named)
        self.last = self._proved
        self.left_out = ""

    def settle_last_group(self, is_intact: Callable[[Version], bool]) -> None:
        """Judge the group that nothing proves durable, as an opener does (rule 3).

        It happened if it is whole and has all its frames; else it is left out as a whole.
        """
        unproved = [u for u in self._units if u.type in _GROUPS and u.seq > self._proved]
        for unit in unproved:
            versions = [version for _, version in self._records(unit) if version.slot]
            if not unit.whole:
                why = "its log blocks were not wholly written, or are damaged"
            elif not unit.flags & FLAG_FRAMES_SYNCED and not all(map(is_intact, versions)):
                why = "a frame of it was not wholly written, or is damaged"
            else:
                self.last = unit.seq
                continue
            self._units.remove(unit)
            self.left_out = f"group {unit.seq}, the last one, is left out: {why}"

    def gaps(self) -> list[Gap]:
        """Return the missing groups since the newest whole snapshot."""
        known = self._known_from()
        covered = {unit.seq for unit in self._units if unit.type in _GROUPS and unit.whole}
        covered |= {u.seq for u in self._units if u.type is BlockType.CARRY and u.log_id in self._adopted}
        gaps = []
        for seq in [*sorted(seq for seq in covered if known < seq <= self.last), self.last + 1]:
            if seq > known + 1:
                gaps.append((known + 1, seq - 1))
            known = seq
        return gaps

    def _known_from(self) -> int:
        """Return the highest number at which the whole map is known."""
        whole = [unit for unit in self._units if unit.whole]
        snapshots = {u.log_id: u.seq for u in whole if u.type is BlockType.SNAPSHOT}
        carries = [u.seq - 1 for u in whole if u.type is BlockType.CARRY and u.log_id in snapshots]
        return max([*snapshots.values(), *carries], default=0)

    def damaged_snapshots(self, gaps: list[Gap]) -> list[Unit]:
        """Return the snapshots that would fill one of ``gaps`` if all their blocks could be read."""
        snapshots = [unit for unit in self._units if unit.type is BlockType.SNAPSHOT and not unit.whole]
        return [unit for unit in snapshots if any(first <= unit.seq for first, _ in gaps)]

    def newest(self) -> dict[bytes, Version]:
        """Return the newest readable record of every blob that it does not delete."""
        blobs: dict[bytes, Version] = {}
        for unit in self._units:
            if unit.type is BlockType.SNAPSHOT and unit.whole:
                blobs.clear()
            for guid, version in self._records(unit):
                if version.slot:
                    blobs[guid] = version
                else:
                    blobs.pop(guid, None)
        return blobs

    def older(self, guids: Iterable[bytes]) -> dict[bytes, list[Version]]:
        """Return every readable version of these blobs, the newest first."""
        versions: dict[bytes, list[Version]] = {guid: [] for guid in guids}
        for unit in reversed(self._units):
            for guid, version in self._records(unit):
                if version.slot and guid in versions:
                    versions[guid].append(version)
        return versions

    def _records(self, unit: Unit) -> Iterator[tuple[bytes, Version]]:
        if unit.type is not BlockType.SWITCH:
            seq = unit.known_after[0]
            for _, block in sorted(unit.blocks.items()):
                for guid, entry in block.entries():
                    yield guid, Version(seq, entry_slot(entry), entry & CHECKSUM_MASK, entry_meta(entry))


_GROUPS = (BlockType.GROUP, BlockType.SWITCH)


def _units(blocks: Iterable[Block]) -> list[Unit]:
    """Return what the blocks belong to, in the order of the timeline."""
    units: dict[tuple[object, ...], Unit] = {}
    for block in blocks:
        if block.type is not BlockType.SEGMENT:
            fields = block.type, block.log_id, block.seq, block.count, block.flags
            units.setdefault(fields, Unit(*fields)).blocks[block.index] = block
    return sorted(units.values(), key=lambda unit: unit.known_after)


def _adopted(units: Iterable[Unit], superblocks: list[Superblock], stale: dict[int, int]) -> set[int]:
    """Return the logs that were in use: others are of compactions that were given up, or not yet complete."""
    adopted = {superblock.log_id for superblock in superblocks}
    for unit in units:
        if unit.type is BlockType.SWITCH:
            adopted |= {block.link()[0] for block in unit.blocks.values()}
        # A log has groups once it is adopted, and no number beyond its carry's before that; a store's first log
        # has a snapshot of nothing.
        begun = unit.type is BlockType.CARRY and stale.get(unit.log_id, 0) > unit.seq
        first = unit.type is BlockType.SNAPSHOT and unit.seq == 0
        if unit.type in _GROUPS or begun or first:
            adopted.add(unit.log_id)
    return adopted
