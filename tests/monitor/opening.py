"""What an opener found: the log, played again from the bytes that its reads brought.

The reads of an opening are kept as they pass and looked at only if the store is changed at all.
"""

from __future__ import annotations

import dataclasses

import xxhash

from monitor.blocks import (
    BLANK,
    BLOCK,
    CARRY,
    FRAMES_WERE_FLUSHED,
    GROUP,
    SEGMENT,
    SNAPSHOT,
    SWITCH,
    parse_block,
)


class Chain:
    """One log's segments, its tail included; ``headers`` maps offsets of headers to units (or ``None``).

    ``sealed`` are the blocks that may never be rewritten; ``position`` is where the next group goes.
    """

    def __init__(self, log_id: int, page_size: int, head: tuple[int, int]) -> None:
        self.log_id = log_id
        self.page_size = page_size
        self.segments = [head]
        self.headers: dict[int, object] = {}
        self.sealed: set[int] = set()
        self.position = 0

    @property
    def slots(self):
        return (slot for first, count in self.segments for slot in range(first, first + count))

    def start(self, index: int) -> int:
        return self.segments[index][0] * self.page_size

    def stop(self, index: int) -> int:
        return sum(self.segments[index]) * self.page_size

    def after(self, offset: int) -> int:
        """Return where the block behind the one at ``offset`` goes; -1 if the chain ends there."""
        for index in range(len(self.segments) - 1, -1, -1):
            if self.start(index) <= offset < self.stop(index):
                if offset + BLOCK < self.stop(index):
                    return offset + BLOCK
                return self.start(index + 1) + BLOCK if index + 1 < len(self.segments) else -1
        return -1

    def has_header(self, offset: int) -> bool:
        """Whether the segment that the block at ``offset`` lies in has been linked."""
        return any(
            self.start(index) <= offset < self.stop(index) and self.start(index) in self.headers
            for index in range(len(self.segments))
        )


@dataclasses.dataclass
class Found:
    """A played log: ``entries`` (guid: slot), and what its last group replaced (guid: slot or 0).

    ``metas`` is the metadata that its records gave slots, of those that are no longer named, too.
    """

    chain: Chain
    older: Chain | None
    entries: dict[bytes, int]
    metas: dict[int, bytes]
    seq: int
    base_seq: int
    last_blocks: list[int]
    undo: dict[bytes, int]
    before_last: int
    dirty: set[int]


class Unreadable(Exception):
    """The log cannot be followed through the bytes that passed."""


class Reader:
    """Plays a log out of ``chunks``: (offset, bytes) in the order they were read."""

    def __init__(self, store_id: bytes, page_size: int, chunks) -> None:
        self._store_id = store_id
        self._page_size = page_size
        self._frames = {offset: data for offset, data in chunks if len(data) == page_size}
        self._blocks = {
            offset + at: data[at : at + BLOCK] for offset, data in chunks for at in range(0, len(data), BLOCK)
        }

    def _parse(self, offset: int):
        raw = self._blocks.get(offset)
        return None if raw is None or len(raw) != BLOCK else parse_block(self._store_id, offset, raw)

    def play(self, log_id: int, head: tuple[int, int], carry_seq: int | None = None) -> Found:
        chain = Chain(log_id, self._page_size, head)
        self._enter(chain)
        if not chain.headers:
            raise Unreadable("the log's first header")
        entries: dict[bytes, int] = {}
        metas: dict[int, bytes] = {}
        chain.position = chain.start(0) + BLOCK
        snapshot, _ = self._group(chain, SNAPSHOT, None) or _missing("the snapshot")
        for block in snapshot:
            entries.update((guid, slot) for guid, slot, _ in block.records)
        carry, _ = self._group(chain, CARRY, carry_seq) or _missing("the carry")
        _apply(entries, carry)
        note_metas(metas, (*snapshot, *carry))
        seq = base = carry[0].seq
        undo: dict[bytes, int] = {}
        last: list[int] = []
        before = chain.position
        while True:
            at = chain.position
            whole = self._group(chain, (GROUP, SWITCH), seq + 1)
            if whole is None:
                break
            group, offsets = whole
            seq += 1
            if group[0].kind == SWITCH:
                target, slot, slots, _ = group[0].records[0]
                found = self.play(target, (slot, slots), seq)
                found.older = chain
                return found
            undo, last, before = _apply(entries, group), offsets, at
            note_metas(metas, group)
        return Found(chain, None, entries, metas, seq, base, last, undo, before, self._dirty(chain))

    def unverified(self, found: Found, floor: int) -> set[int]:
        """Return the slots of the last group's frames if nothing proves it, but for those read and right.

        A header that was being linked proves nothing; frames that were flushed before their group need no proof.
        """
        blocks = [self._parse(offset) for offset in found.last_blocks]
        if found.seq <= max(floor, found.base_seq) or found.dirty - {found.chain.start(-1)}:
            return set()
        if any(block.flags & FRAMES_WERE_FLUSHED for block in blocks):
            return set()
        named = {slot: checksum for block in blocks for _, slot, checksum in block.records if slot}
        return {slot for slot, checksum in named.items() if not self._was_read(slot, checksum)}

    def _was_read(self, slot: int, checksum: int) -> bool:
        """By itself: what the log's read-ahead brings along, nobody has verified."""
        frame = self._frames.get(slot * self._page_size, b"")
        return xxhash.xxh3_64_intdigest(frame) == checksum

    def _enter(self, chain: Chain) -> bool:
        """Enter the chain's last segment; false if it has no header: then it is the tail."""
        offset = chain.start(-1)
        block = self._parse(offset)
        if block is None or block.kind != SEGMENT or block.log_id != chain.log_id:
            return False
        chain.headers[offset] = None
        chain.sealed.add(offset)
        chain.segments.append(tuple(block.records[0][2:]))
        return True

    def _group(self, chain: Chain, kinds, seq):
        """Return the group at the chain's position, with its offsets, and move behind it; or ``None``."""
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        blocks, offsets, at = [], [], chain.position
        while True:
            if at == chain.start(-1) + BLOCK and not self._enter(chain):
                return None
            block = self._parse(at)
            if block is None or block.kind not in kinds or block.log_id != chain.log_id:
                return None
            if block.index != len(blocks) or (seq is not None and block.seq != seq):
                return None
            seq = block.seq
            blocks.append(block)
            offsets.append(at)
            at = chain.after(at)
            if len(blocks) == blocks[0].count:
                chain.sealed.update(offsets)
                chain.position = at
                return blocks, offsets

    def _dirty(self, chain: Chain) -> set[int]:
        """Return the blocks behind the last group that are not blank."""
        while self._enter(chain):
            pass
        dirty = set()
        for index in range(len(chain.segments)):
            for offset in range(chain.start(index), chain.stop(index), BLOCK):
                raw = self._blocks.get(offset, BLANK)
                if raw != BLANK and offset not in chain.sealed and raw.strip(b"\0"):
                    dirty.add(offset)
        return dirty


def _apply(entries: dict[bytes, int], group) -> dict[bytes, int]:
    """Play one group; return what it replaced."""
    undo: dict[bytes, int] = {}
    for block in group:
        for guid, slot, _ in block.records:
            undo.setdefault(guid, entries.get(guid, 0))
            if slot:
                entries[guid] = slot
            else:
                entries.pop(guid, None)
    return undo


def note_metas(metas: dict[int, bytes], group) -> None:
    """Note the metadata that the records of ``group`` give their slots."""
    for block in group:
        for _, slot, _ in block.records:
            metas.pop(slot, None)
        metas.update(block.metas)


def _missing(what: str):
    raise Unreadable(what)
