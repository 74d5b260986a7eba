"""Stores to damage, the ways to damage them, and what is still intact afterwards.

What is intact is judged by the order monitor's parser, which shares no code with the store's.
"""

from __future__ import annotations

import os
import random
from typing import NamedTuple

import xxhash

from monitor.blocks import CARRY, GROUP, MARK, SNAPSHOT, parse_block, parse_superblock
from sim.lives import PAGE, small_log
from sim.victim import Victim
from uringblob import MemoryBlobStore
from uringblob.salvage.repair import RepairReport, Salvage
from uringblob.salvage.scan import Source
from uringblob.store.file import StoreFile

#: Compactions, whether it was closed, records in a block (``None``: as many as there is room for).
VICTIMS = [
    (0, True, None),
    (0, False, None),
    (1, True, 2),
    (1, False, None),
    (2, True, None),
    (2, False, 2),
]


class Patient:
    """A store on a simulated disk, as bytes; and which frame and which group is where."""

    def __init__(self, compactions: int, closed: bool, records: int | None) -> None:
        with small_log(segment_bytes=4 * PAGE, records=records):
            self.victim = Victim(compactions=compactions, closed=closed)
        image = self.victim.image
        self.raw = image.read(0, image.size)
        self.closed = closed
        self.store_id = self.raw[16:32]
        self.log = [at for at in self.victim.log if self.raw[at : at + 4] == MARK]
        self.blocks = [at for at in range(0, image.size, PAGE) if self.raw[at : at + 4] == MARK]

    def state_at(self, last: int) -> dict[bytes, Record]:
        """Return the map after group ``last``, as the undamaged store has it."""
        state: dict[bytes, Record] = {}
        for _, whole, records in self._timeline(last):
            if whole:
                state.clear()
            for guid, slot, checksum in records:
                state.pop(guid, None)
                if slot:
                    state[guid] = Record(slot, checksum)
        return state

    def _timeline(self, last: int):
        blocks = list(blocks_in(self.raw, self.store_id))
        units = {}
        for block in blocks:
            after = {SNAPSHOT: (block.seq, 1), CARRY: (block.seq - 1, 2), GROUP: (block.seq, 0)}[block.kind]
            units.setdefault((after, block.log_id, block.count), []).append(block)
        for (after, _, count), parts in sorted(units.items(), key=lambda unit: unit[0]):
            if after[0] <= last:
                whole = parts[0].kind == SNAPSHOT and len(parts) == count
                yield after, whole, [record for block in parts for record in block.records]

    def last_group(self) -> int:
        floor = max(parse_superblock(self.raw[at : at + PAGE], at).floor for at in (0, PAGE))
        return max(floor, *(block.seq for block in blocks_in(self.raw, self.store_id) if block.kind == GROUP))

    def intact(self, raw: bytes, last: int) -> dict[bytes, bytes]:
        """Return the blobs after group ``last`` whose frame is as written, and that an undamaged block names so."""
        named = {record for block in blocks_in(raw, self.store_id) for record in block.records}
        found = {}
        for guid, (slot, checksum) in self.state_at(last).items():
            frame = raw[slot * PAGE : (slot + 1) * PAGE]
            if (guid, slot, checksum) in named and xxhash.xxh3_64_intdigest(frame) == checksum:
                found[guid] = frame
        return found


class Record(NamedTuple):
    slot: int
    checksum: int


def blocks_in(raw: bytes, store_id: bytes):
    """Yield every undamaged log block of this store that has records."""
    for at in range(0, len(raw) // PAGE * PAGE, PAGE):
        block = parse_block(store_id, at, raw[at : at + PAGE])
        if block is not None and block.kind in (SNAPSHOT, CARRY, GROUP):
            yield block


class Saved:
    """What a repair saved, and what it reported."""

    def __init__(self, path: str, raw: bytes, **options) -> None:
        with open(path, "wb") as file:
            file.write(raw)
        source = StoreFile(os.open(path, os.O_RDONLY), path, read_only=True)
        target = MemoryBlobStore(PAGE)
        try:
            self.report: RepairReport = Salvage(Source(source)).save(target, **options)
        finally:
            source.close()
        with open(path, "rb") as file:
            assert file.read() == raw, "the damaged store was changed"
        self.frames = {bytes(guid): bytes(read(target, guid)) for guid in target.list_blobs()}


def read(store, guid) -> bytearray:
    room = bytearray(store.page_size)
    store.read_blob(guid, room)
    return room


# ---- ways to damage a store ---------------------------------------------------------------------


def flip(raw: bytearray, at: int, size: int, rng: random.Random) -> None:
    """Flip a few bits of the ``size`` bytes at ``at``."""
    for _ in range(rng.randint(1, 4)):
        raw[at + rng.randrange(size)] ^= 1 << rng.randrange(8)


def superblocks(patient, raw, rng):
    for offset in rng.choice([(0,), (PAGE,), (0, PAGE)]):
        flip(raw, offset, PAGE, rng)


def log_blocks(patient, raw, rng):
    for at in rng.sample(patient.log, rng.randint(1, min(4, len(patient.log)))):
        flip(raw, at, PAGE, rng)


def snapshot(patient, raw, rng):
    parsed = {at: parse_block(patient.store_id, at, patient.raw[at : at + PAGE]) for at in patient.log}
    of_map = [at for at, block in parsed.items() if block is not None and block.kind == SNAPSHOT]
    flip(raw, rng.choice(of_map), PAGE, rng)


def frames(patient, raw, rng):
    for slot in rng.sample(sorted(patient.victim.frames), rng.randint(1, 3)):
        flip(raw, slot * PAGE, PAGE, rng)


def truncation(patient, raw, rng):
    del raw[rng.randrange(3 * PAGE, len(raw)) :]


def zeroed_range(patient, raw, rng):
    start, size = rng.randrange(len(raw)), rng.randint(1, 8 * PAGE)
    raw[start : start + size] = bytes(len(raw[start : start + size]))


def overwritten_head(patient, raw, rng):
    size = rng.randint(1, 12) * PAGE
    raw[:size] = rng.choice([bytes(size), rng.randbytes(size), b"ublk" * (size // 4)])


def swapped_blocks(patient, raw, rng):
    a, b = (at * PAGE for at in rng.sample(range(len(raw) // PAGE), 2))
    raw[a : a + PAGE], raw[b : b + PAGE] = raw[b : b + PAGE], raw[a : a + PAGE]


def several(patient, raw, rng):
    for way in rng.sample([superblocks, log_blocks, snapshot, frames, zeroed_range, overwritten_head], 3):
        way(patient, raw, rng)


WAYS = [
    superblocks,
    log_blocks,
    snapshot,
    frames,
    truncation,
    zeroed_range,
    overwritten_head,
    swapped_blocks,
    several,
]
