"""The order monitor: it sees what a store asks of its engine, and knows in which order that must be.

It asks the store nothing.  From the bytes that pass it learns which slots the durable map names,
where the log stands and what is on its way; from the answers, what is durable.  What it finds is a
line in ``report``; the rules it names are those of docs/maintainers/format.md.

It cannot see which frame a slot that no record names holds, so a *pending* frame overwritten in
place is not its to find; nor that a group should have been dropped.  The crash rig finds those.
"""

from __future__ import annotations

import collections
import weakref

import xxhash

from monitor.blocks import (
    BLANK,
    BLOCK,
    CARRY,
    FRAMES_WERE_FLUSHED,
    GROUP,
    MARK,
    SEGMENT,
    SNAPSHOT,
    SWITCH,
    names_its_store,
    parse_block,
    parse_superblock,
    unmarked_sector,
)
from monitor.flushes import Clock, Unit
from monitor.opening import Chain, Reader, Unreadable, note_metas
from monitor.readers import NoReaders

HEADER = 2 * BLOCK
_ZERO8 = bytes(8)
_ECANCELED = -125


class Group:
    """A group, or a switch, whose blocks are being written."""

    def __init__(self, seq: int, count: int, at: int) -> None:
        self.seq = seq
        self.count = count
        self.at = at
        self.blocks: dict[int, Unit] = {}
        self.indexes: set[int] = set()
        self.records: list[tuple[bytes, int, int]] = []
        self.link: tuple[int, int, int, int] | None = None
        self.wipes: dict[int, Unit] = {}

    @property
    def whole(self) -> bool:
        return len(self.indexes) == self.count


class NewLog:
    """A log that nothing names yet: compaction writes it."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.units: dict[int, Unit] = {}
        self.entries: dict[bytes, int] = {}
        self.metas: dict[bytes, bytes | None] = {}
        self.carry_seq = 0
        self.last = 0
        self.spoiled = False

    def link_failed(self, offset: int, size: int) -> bool:
        """Whether these zeroes wipe the header of its last segment, whose write has failed."""
        header = self.chain.headers.get(offset)
        return header is not None and not header.ended and size == BLOCK and offset == self.chain.start(-2)


class OrderMonitor:
    """One store's monitor, from the moment its engine is handed over; see the module's first lines.

    ``peek(offset, size)`` reads the medium at that moment; ``report`` takes a line for each violation.
    Belongs to the thread of the store's loop, but for :attr:`last_record` and :attr:`seq`.
    """

    def __init__(self, peek, report, *, name: str = "store", readers=None) -> None:
        self.name = name
        #: Readers in other processes.
        self.readers = NoReaders() if readers is None else readers
        self._report = report
        self.violations = 0
        self.clock = Clock()
        self._header = peek(0, HEADER)
        self.page_size = max(BLOCK, int.from_bytes(self._header[12:16], "little"))
        self.supers: dict[int, list] = {}
        self._super = None
        #: Reads of the opening; ``None`` once they have been looked at.
        self._chunks: list[tuple[int, bytes]] | None = []
        self.recording = True
        self._disturbed = False
        self._claims: list[tuple[int, int]] = []
        #: What the superblocks were before their last writes: an opener may read it until those are durable.
        self._replaced: dict[int, object] = {}
        self._covered = 0  # what both superblocks have said: while one is rewritten, the other still does
        #: Why it cannot judge this store, or "".
        self.blind = ""
        self.seq = 0
        self.last_record: dict[bytes, int] = {}
        self.entries: dict[bytes, int] = {}
        #: Metadata that records gave slots: it goes with the slot into the next log.
        self.metas: dict[int, bytes] = {}
        self.units: dict[int, Unit] = {}
        self._owned: dict[int, bytes] = {}
        self._fenced: dict[int, int] = {}
        #: By slot, the group that took it from a blob; of slots that were free at the opening it is not known.
        self._freed_by: dict[int, int] = {}
        self._named_by: dict[int, int] = {}
        self._freed_before = 0
        #: The slots that each open snapshot shows, as far as records and calls say.
        self.shown: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        self._chain_of: dict[int, Chain] = {}
        self._chain: Chain | None = None
        self._older: Chain | None = None
        self._group: Group | None = None
        self._new: NewLog | None = None
        self._reading: dict[int, int] = {}
        self._visited: dict[object, int] = {}
        self._found = None
        self._dirty: set[int] = set()
        self._unverified: set[int] = set()
        self._unproved = self._announced = 0
        self._cleaned: dict[int, Unit] = {}
        self._began = False
        self._course: collections.deque[tuple] = collections.deque(maxlen=40)

    def __repr__(self) -> str:
        return f"<OrderMonitor of {self.name} group={self.seq} violations={self.violations}>"

    def _wrong(self, rule: int, what: str) -> None:
        self.violations += 1
        if self.violations <= 3:
            self._report(
                f"{self.name}: order: rule {rule}: {what} (event {self.clock.now}, group {self.seq})"
            )
        if self.violations == 1:
            self._report("  what went before: " + "; ".join(self._last_events()))

    def _last_events(self):
        for word, *numbers in self._course:
            yield f"{word} {' '.join(map(str, numbers))}"

    def _check_whole(self, what: str) -> None:
        """A poisoned store changes nothing that counts; a frame on its way harms nobody."""
        if self.clock.broken:
            self._wrong(10, f"{what} is written after a flush failed")

    def opened(self, *, read_only: bool = False) -> None:
        """The store is open: later reads are not the opening's."""
        self.recording = False
        if read_only and not self._disturbed:
            self._note_unverified()

    def _note_unverified(self) -> None:
        """What a read-only opener may show, it has verified while it was opening."""
        self._awake()
        if self.blind:
            return
        first = self._super
        reader = Reader(first.store_id, first.page_size, self._chunks)
        try:
            found = reader.play(first.log_id, first.head)
        except Unreadable:
            return  # the store's opener has said so, or its reads were disturbed
        announced = self._announced
        if not announced:
            self._unverified = reader.unverified(found, first.floor if found.older is None else 0)
        elif found.seq > announced:
            self._unverified = {found.entries[name] for name in found.undo if name in found.entries}
        self._unproved = found.seq

    def _note_announced(self) -> int:
        """Return the last group that a writer is known to have announced, or 0."""
        self._announced = max(self._announced, self.readers.announced() or 0)
        return self._announced

    def _check_verified(self, slot: int) -> None:
        if slot in self._unverified and self._note_announced() < self._unproved:
            self._wrong(14, f"slot {slot}, of a group that nothing proves, is shown and was not verified")

    def _awake(self) -> None:
        """The first write: until then the superblocks were of no interest."""
        for at in (0, BLOCK):
            unit = Unit(at, at + BLOCK)
            unit.ended = 0.5  # before anything
            raw = self._header[at : at + BLOCK]
            self.supers[at] = [parse_superblock(raw, at) if len(raw) == BLOCK else None, unit]
        good = [known for known, _ in self.supers.values() if known is not None]
        self._super = max(good, key=lambda known: known.revision) if good else None
        if self._super is None:
            self.blind = "no good superblock"
        else:
            self.page_size = self._super.page_size

    # --- reads ---------------------------------------------------------------------------

    def read_begins(self, offset: int, frames):
        if offset < HEADER and not self.recording:
            self._unverified = set()  # it reads the map anew
        if self._unverified:
            self._note_announced()
        if len(frames) > 1 or frames[0].size > self.page_size:
            return frames, offset, -1
        slot = offset // self.page_size
        if slot in self._chain_of:
            return frames, offset, -1
        unit = self.units.get(slot)
        if unit is not None and unit.busy and not self.recording:
            self._wrong(8, f"slot {slot} is read while it is being written")
        self._check_verified(slot)
        self._reading[slot] = self._reading.get(slot, 0) + 1
        return frames, offset, slot

    def read_ends(self, token, rc: int) -> None:
        frames, offset, slot = token
        if slot >= 0:
            left = self._reading[slot] - 1
            if left:
                self._reading[slot] = left
            else:
                del self._reading[slot]
        if self.recording:
            self.record(frames, offset, rc)
        else:
            self.looked(frames, offset, rc)

    def looked(self, frames, offset: int, rc: int) -> None:
        """A block of a failed group, or a failed header, that shows blank needs no zeroes, but a flush.

        Nothing of it landed, or the zeroes did although they were refused.
        """
        chain = self._chain_of.get(offset // self.page_size)
        if chain is None or len(frames) > 1:
            return
        data = bytes(frames[0].view)
        for at in range(offset, offset + max(0, rc), BLOCK):
            if data[at - offset : at - offset + BLOCK] != BLANK:
                continue
            group, header = self._group, chain.headers.get(at)
            block = None if group is None else group.blocks.get(at)
            # A write that is in flight has not failed, and what was wiped is wiped: verify() looks here, too.
            wipe = None if group is None else group.wipes.get(at)
            if wipe is not None and self.clock.is_durable(wipe):
                continue
            if block is not None and (wipe is not None or not (block.ended or block.busy)):
                self._blank_already(at, group.wipes)
            elif header is not None and not header.ended and not header.busy:
                self._unlink(chain, at)
                self._blank_already(at, self._cleaned)

    def _blank_already(self, at: int, wipes: dict[int, Unit]) -> None:
        unit = wipes[at] = Unit(at, at + BLOCK, blank=True)
        unit.ended = self.clock.tick()

    def visit_begins(self, offset: int, frame):
        """A read in its caller's own thread, so each step here is one step of the interpreter's."""
        slot = offset // frame.size
        visit = object()
        self._visited[visit] = slot
        self._check_verified(slot)
        unit = self.units.get(slot)
        if unit is not None and unit.busy:
            self._wrong(8, f"slot {slot} is read while it is being written")
        return visit

    def visit_ends(self, visit) -> None:
        self._visited.pop(visit)

    def record(self, frames, offset: int, rc: int) -> None:
        """Keep what a read of the opening brought."""
        data = bytes(frames[0].view) if len(frames) == 1 else b"".join([f.view for f in frames])
        if rc != len(data):
            self._disturbed = True
            data = data[: max(0, rc)]
        self._note_announced()  # before its writer ends, perhaps
        if self._chunks is not None:
            self._chunks.append((offset, data))

    # --- writes --------------------------------------------------------------------------

    def write_begins(self, offset: int, frames):
        self.clock.tick()
        if not self.supers:
            self._awake()
        size = frames[0].size if len(frames) == 1 else sum([frame.size for frame in frames])
        self._course.append(("write", offset, size))
        if self.blind:
            units = []
        elif offset < HEADER:
            units = self._superblock_begins(offset, bytes(frames[0].view))
        else:
            if self._chunks is not None:
                self._settle()
            head = bytes(frames[0].view[:8])
            if head[:4] == MARK:
                units = self._marked(offset, bytes(frames[0].view)) or self._slots(offset, frames)
            elif head == _ZERO8 and offset // self.page_size in self._chain_of:
                units = self._wiped(offset, size)
            elif head == _ZERO8 and self._new is not None and self._new.link_failed(offset, size):
                units = [self._unlinked_in_new_log(self._new, offset)]
            else:
                units = self._slots(offset, frames, first_blank=head == _ZERO8)
        for unit in units:
            unit.busy += 1
        return offset, size, units

    def write_ends(self, token, rc: int) -> None:
        offset, size, units = token
        self._course.append(("written", offset, rc))
        self.clock.write_ends(offset, size, units, rc)

    def both_end(self, token, answer) -> None:
        (offset, size, units), began = token
        put, synced = answer if isinstance(answer, tuple) else (answer, _ECANCELED)
        self._course.append(("written", offset, put))
        self.clock.write_ends(offset, size, units, put)
        if synced == _ECANCELED:
            self._flushed(more=self.clock.sync_never_began(began))
            return
        if put == size and synced == 0:
            for unit in units:
                # This flush began after its own write, however early it was asked for.
                unit.ended = unit.ended and min(unit.ended, began - 0.5)
        self.sync_ends(began, synced)

    def _check_announced(self) -> None:
        announced = self.readers.announced()
        if announced is not None and announced > self.seq and self._chunks is None and not self.blind:
            self._wrong(17, f"group {announced} is announced, and only {self.seq} is durable")

    def sync_begins(self) -> int:
        self._check_announced()
        if self.clock.broken:
            self._wrong(12, "a flush is asked for after one that failed")
        began = self.clock.sync_begins()
        self._course.append(("flush", began))
        return began

    def sync_ends(self, began: int, rc: int) -> None:
        self._course.append(("flushed", began, rc))
        self._flushed(more=self.clock.sync_ends(began, rc))

    def sync_never_began(self, began: int, _rc: int) -> None:
        self._flushed(more=self.clock.sync_never_began(began))

    def _flushed(self, *, more: bool) -> None:
        if more and not self.blind:
            if self._group is not None:
                self._try_group(self._group)
            if self._older is not None:
                self._release_older()

    # --- superblocks ---------------------------------------------------------------------

    def _superblock_begins(self, offset: int, raw: bytes) -> list[Unit]:
        new = parse_superblock(raw, offset)
        if new is None:
            self._wrong(9, f"what is written at {offset} is no superblock")
            return []
        old, unit = self.supers[offset]
        if old == new and not unit.ended:
            return [unit]  # a short write is finished
        if old == new and not self._began:
            # Where I/O is buffered, an opener writes the newest again (rule 12).
            self.supers[offset][1] = unit = Unit(offset, offset + BLOCK)
            return [unit]
        self._check_whole(f"superblock {offset}")
        self._floor()
        other, other_unit = self.supers[BLOCK - offset]
        if other is not None and not self.clock.is_durable(other_unit):
            self._wrong(9, f"superblock {offset} is written before the other one is flushed")
        if other is not None and old is not None and old.revision > other.revision:
            self._wrong(9, f"superblock {offset} is the newer one, and is written first")
        if new.revision <= max(known.revision for known in (old, other) if known is not None):
            self._wrong(9, f"superblock {offset} has an old revision")
        if self._chunks is not None and other is not None and new.log_space != other.log_space:
            self._settle()
        upgrades = new.version > 1 and self._chain is not None and new.log_id != self._chain.log_id
        if upgrades and other is not None and other.version == 1:
            self._check_new_log(new.floor, new.log_id, new.head)
        elif upgrades and self._new is not None and new.log_id == self._new.chain.log_id:
            self._switched()  # the other superblock, which names the new log, is durable
        if other is not None and self._chunks is None:
            self._check_extents(new, other)
        if not upgrades or self._chain.log_id == new.log_id:
            self._claims.append((new.floor, new.log_id))
            if self._chunks is None:
                self._check_claims()
        unit = Unit(offset, offset + BLOCK)
        self._replaced[offset] = old
        self.supers[offset] = [new, unit]
        return [unit]

    def _check_extents(self, new, other) -> None:
        """Log space grows out of slots that nothing needs; a log's slots stay in it."""
        for first, count in new.log_space:
            for slot in range(first, first + count):
                if slot in self._owned:
                    self._wrong(13, f"slot {slot} of blob {self._owned[slot].hex()} is made log space")
                if not self._is_log_space(slot):
                    self._check_no_older_reader(slot, "made log space")
        if new.version > 1 and other.version > 1:
            for slot, chain in self._chain_of.items():
                if chain is self._chain and not new.keeps(slot):
                    self._wrong(13, f"slot {slot} of the log is no log space any more")

    def _keep_both(self, slot: int) -> bool:
        return all(known is None or known.keeps(slot) for known, _ in self.supers.values())

    def _is_log_space(self, slot: int) -> bool:
        """Whether a superblock of which an opener may read keeps ``slot`` for logs."""
        if any(known is not None and known.keeps(slot) for known, _ in self.supers.values()):
            return True
        return any(
            old is not None and old.keeps(slot) and not self.clock.is_durable(self.supers[at][1])
            for at, old in self._replaced.items()
        )

    def _check_claims(self) -> None:
        """What superblocks claim must be durable before they are written."""
        claims, self._claims = self._claims, []
        for floor, log_id in claims:
            if floor > self.seq:
                self._wrong(10, f"a superblock seals group {floor}, and only {self.seq} is durable")
            if log_id != self._chain.log_id:
                self._wrong(9, f"a superblock names log {log_id:016x}, not {self._chain.log_id:016x}")

    def _floor(self) -> int:
        """Up to which group nothing can be dropped, also if one superblock is lost."""
        floors = [
            known.floor for known, unit in self.supers.values() if known and self.clock.is_durable(unit)
        ]
        if len(floors) == 2:
            self._covered = min(floors)
        return self._covered

    # --- the opening ---------------------------------------------------------------------

    def _settle(self) -> None:
        """The store is about to change something: see what its opening found."""
        chunks, self._chunks = self._chunks, None
        first = self._super
        try:
            found = Reader(first.store_id, first.page_size, chunks).play(first.log_id, first.head)
        except Unreadable as what:
            self.blind = f"the opening's reads do not show {what}"
            if not self._disturbed:
                self._wrong(6, f"the log that was opened is not one: {what} is missing")
            return
        self._found = found
        self._chain, self._older = found.chain, found.older
        for chain in (found.older, found.chain):
            if chain is not None:
                self._chain_of.update(dict.fromkeys(chain.slots, chain))
        self.entries, self.metas = found.entries, found.metas
        self._owned = {slot: guid for guid, slot in found.entries.items()}
        self.seq = found.seq
        self._fenced = {slot: found.seq for slot in found.undo.values() if slot and slot not in self._owned}
        self._freed_before = found.seq
        self._dirty = found.dirty
        self._check_claims()
        if self._older is not None:
            self._release_older()

    def _drop_last(self) -> None:
        """Recovery decided that the last group never happened, and wipes it."""
        found, self._found = self._found, None
        for guid, slot in found.undo.items():
            now = self.entries.pop(guid, 0)
            self._owned.pop(now, None)
            if slot:
                self.entries[guid] = slot
                self._owned[slot] = guid
        self._fenced = {}
        self._dirty.update(found.last_blocks)
        self._chain.sealed.difference_update(found.last_blocks)
        self._chain.position = found.before_last
        self.seq -= 1

    def _begins(self) -> None:
        """The first change of a store that is open: is the tail wiped?"""
        self._began = True
        self._found = None
        left = {offset for offset in self._dirty if not self._is_cleaned(offset)}
        if left:
            self._wrong(4, f"the log's tail is not wiped and flushed at {sorted(left)[:3]}")

    def _is_cleaned(self, offset: int) -> bool:
        unit = self._cleaned.get(offset)
        return unit is not None and self.clock.is_durable(unit)

    def _release_older(self) -> None:
        named = [
            known is not None and known.log_id == self._chain.log_id and self.clock.is_durable(unit)
            for known, unit in self.supers.values()
        ]
        if all(named):
            for slot in self._older.slots:
                if self._chain_of.get(slot) is self._older:
                    del self._chain_of[slot]
            self._older = None

    # --- zeroes over the log ---------------------------------------------------------------

    def _wiped(self, offset: int, size: int) -> list[Unit]:
        return [self._wiped_block(at) for at in range(offset, offset + size, BLOCK)]

    def _wiped_block(self, at: int) -> Unit:
        chain = self._chain_of.get(at // self.page_size)
        if chain is None:
            self._wrong(4, f"zeroes from the log into slot {at // self.page_size}")
            return Unit(at, at + BLOCK)
        known, group = self._cleaned.get(at), self._group
        if known is not None and not known.ended:
            if group is not None and at in group.blocks:
                group.wipes[at] = known  # there was no room for that of an earlier group at this place
            return known
        unit = Unit(at, at + BLOCK, blank=True)
        found = self._found
        if (
            found is not None
            and at in found.last_blocks
            and found.seq > max(found.base_seq, self._opened_floor)
        ):
            self._drop_last()
        if group is not None and at in group.blocks:
            group.wipes[at] = unit
        elif at in chain.sealed:
            self._wrong(4, f"an acknowledged block of the log, at {at}, is wiped")
        elif not self._began and self._floor() < self.seq:
            self._wrong(4, f"the tail is wiped at {at} before group {self.seq} is sealed")
        if at in chain.headers:
            self._unlink(chain, at)
        self._cleaned[at] = unit
        return unit

    @property
    def _opened_floor(self) -> int:
        return self._super.floor if self._super.log_id == self._chain.log_id else 0

    # --- frames, and room for the log --------------------------------------------------------

    def _slots(self, offset: int, frames, *, first_blank: bool = False) -> list[Unit]:
        page = self.page_size
        units = []
        at = offset
        for frame in frames:
            start, end = at, at + frame.size
            blank = first_blank and _is_blank(frame.view)
            while at < end:
                slot = at // page
                data = frame.view[at - start : at - start + page]
                units.append(self._slot_begins(slot, at, end, data, blank=blank))
                at = min(end, (slot + 1) * page)
        return units

    def _slot_begins(self, slot: int, at: int, end: int, data: memoryview, *, blank: bool) -> Unit:
        page = self.page_size
        unit = self.units.get(slot)
        if unit is not None and not unit.ended and not unit.failed and not unit.busy and at <= unit.reached:
            started = unit.reached > unit.start or at > unit.start
            if started or self._is_named(slot):
                # The rest of a short write, or one that was interrupted.
                unit.blank = blank and (unit.blank or at == unit.start)
                if at == unit.start:  # all of it again, or another frame where the one before found no room
                    unit.checksum = xxhash.xxh3_64_intdigest(data)
                self._check_no_reader(slot)
                return unit
        if not (self._confirming(slot) or self._check_free(slot, data, blank=blank)):
            return Unit(slot * page, slot * page + page)
        new = self.units[slot] = Unit(slot * page, slot * page + page, blank=blank)
        new.checksum = xxhash.xxh3_64_intdigest(data)
        if unit is not None:
            if unit.busy:
                self._wrong(8, f"slot {slot} is written while it is being written")
            if unit.failed:
                self._wrong(8, f"slot {slot} is used again after a write into it failed")
        return new

    def _is_named(self, slot: int) -> bool:
        group = self._group
        return group is not None and any(slot == named for _, named, _ in group.records)

    def _confirming(self, slot: int) -> bool:
        """Where I/O is buffered, an opener writes the group in doubt again (rule 12)."""
        found = self._found
        return (
            not self._began
            and found is not None
            and slot in self._owned
            and found.undo.keys() >= {self._owned[slot]}
        )

    def _confirmed(self, at: int) -> bool:
        """The same of a block: the last group's, or the header of the last segment."""
        found = self._found
        if self._began or found is None:
            return False
        return at in found.last_blocks or at == found.chain.start(len(found.chain.segments) - 2)

    def _check_free(self, slot: int, data: memoryview, *, blank: bool) -> bool:
        """A write into ``slot`` begins: nothing may need what is there."""
        if not self._began:
            self._begins()
        before = self.violations
        guid = self._owned.get(slot)
        if guid is not None:
            self._wrong(8, f"slot {slot} is written, and blob {guid.hex()} lives there")
        if not blank and self._is_log_space(slot):
            self._wrong(13, f"slot {slot} is written, and a superblock keeps it for logs")
        if slot in self._chain_of:
            self._wrong(
                8, f"slot {slot} is written, and the log {self._chain_of[slot].log_id:016x} lies there"
            )
        fence = self._fenced.get(slot)
        if fence is not None:
            if fence < self.seq or fence <= self._floor():
                del self._fenced[slot]
            else:
                self._wrong(
                    8, f"slot {slot}, freed by group {fence}, is written before that cannot be dropped"
                )
        if not self._is_log_space(slot):
            self._check_no_older_reader(slot, "written")
        if self.shown and any(slot in slots for slots in self.shown.values()):
            self._wrong(8, f"slot {slot} is written, and an open snapshot shows it")
        self._check_no_reader(slot)
        group = self._group
        if group is not None and self._is_named(slot):
            unit = self.units.get(slot)
            used = unit is not None and (unit.ended or unit.failed)
            if used and not self._is_wiped(group) and not self._is_own(group, slot, data):
                self._wrong(
                    5,
                    f"slot {slot}, named by group {group.seq}, is used again before that is wiped"
                    f" (written {unit.ended}, failed {unit.failed}, wipes {len(group.wipes)})",
                )
        if self._new is not None and not blank and slot in self._new.chain.slots:
            self._new.spoiled = True
        return self.violations == before

    def _check_no_older_reader(self, slot: int, what: str) -> None:
        """No reader in another process may need what is in ``slot``."""
        grown = slot * self.page_size >= self.readers.size_at_opening
        freed_by = self._freed_by.get(slot, 0 if grown else self._freed_before)
        if self.readers.between(self._named_by.get(slot, 0), freed_by):
            self._wrong(17, f"slot {slot}, freed by group {freed_by}, is {what}, and a reader is shown it")
        self._freed_by[slot] = 0  # no record names what is written now

    @staticmethod
    def _is_own(group: Group, slot: int, data: memoryview) -> bool:
        """The frame that ``group`` names may come after its blocks: only the flush waits for both.

        So it does where a batch is copied through bounce frames, one stretch of slots after the other.
        """
        wanted = [checksum for _, named, checksum in group.records if named == slot]
        return xxhash.xxh3_64_intdigest(data) in wanted

    def _check_no_reader(self, slot: int) -> None:
        if slot in self._reading or slot in list(self._visited.values()):
            self._wrong(8, f"slot {slot} is written while it is being read")

    def _is_wiped(self, group: Group) -> bool:
        return all(at in group.wipes and self.clock.is_durable(group.wipes[at]) for at in group.blocks)

    # --- space that goes back ----------------------------------------------------------------

    def space_given_back(self, what: str, offset: int, end: int | None = None) -> None:
        """The file is cut from ``offset`` on, or punched up to ``end``: as if it were written, nothing may need it."""
        self.clock.tick()
        self._course.append((what, offset, end or 0))
        if not self.supers:
            self._awake()
        if self.blind:
            return
        if self._chunks is not None:
            self._settle()
        first, stop = offset // self.page_size, 1 << 60 if end is None else end // self.page_size
        needed = {*self._owned, *self._chain_of, *self._fenced, *self._reading, *self._visited.values()}
        needed.update(*self.shown.values(), self.units)
        for slot in sorted(slot for slot in needed if first <= slot < stop):
            unit = self.units.pop(slot, None)
            if unit is not None and unit.busy:
                self._wrong(18, f"slot {slot} goes back while it is being written")
            self._check_free(slot, memoryview(b""), blank=True)
        for known, _ in self.supers.values():
            for at, count in () if known is None else known.log_space:
                if at < stop and first < at + count:
                    self._wrong(13, f"slot {max(at, first)} goes back, and a superblock keeps it for logs")

    # --- log blocks ------------------------------------------------------------------------

    def _marked(self, offset: int, data: bytes) -> list[Unit]:
        """The blocks of ``data`` are written; none if it is a frame that only looks like one."""
        store_id = self._super.store_id
        units = []
        for at in range(0, len(data), BLOCK):
            raw = data[at : at + BLOCK]
            block = parse_block(store_id, offset + at, raw)
            if block is None:
                if not units and offset // self.page_size not in self._chain_of:
                    return []
                self._wrong(6, f"what is written into the log at {offset + at} is no block of it")
                return units
            if (sector := unmarked_sector(raw)) >= 0:
                self._wrong(3, f"sector {sector} of the block at {offset + at} does not name its group")
            if not names_its_store(raw, store_id, self.page_size):
                self._wrong(6, f"the block at {offset + at} does not name its store and frame size")
            units.append(self._block_begins(offset + at, block))
        return units

    def _block_begins(self, at: int, block) -> Unit:
        if self._confirmed(at):
            return Unit(at, at + BLOCK)
        if not self._began:
            self._begins()
        if block.log_id != self._chain.log_id:
            if self._older is not None and block.log_id == self._older.log_id:
                self._wrong(9, f"a block is written into the old log, at {at}")
            return self._new_log(at, block)
        chain = self._chain_of.get(at // self.page_size)
        if chain is not self._chain:
            self._wrong(7, f"a block of the log is written outside its chain, at {at}")
        if block.kind == SEGMENT:
            return self._link(at, block)
        if at in self._chain.sealed:
            self._wrong(4, f"an acknowledged block of the log is written again, at {at}")
        return self._group_block(at, block)

    def _link(self, at: int, block) -> Unit:
        chain = self._chain
        old = chain.headers.get(at)
        if old is not None and not old.ended:
            return old
        self._check_whole("a segment's header")
        if at in chain.headers:
            self._wrong(7, f"a segment's header is written again, at {at}")
        index, slots, next_slot, next_slots = block.records[0]
        if at != chain.start(-1) or index != len(chain.segments) - 1 or slots != chain.segments[-1][1]:
            self._wrong(7, f"a header that does not fit its place in the chain, at {at}")
        for slot in range(next_slot, next_slot + next_slots):
            if self._super.version > 1 and not self._keep_both(slot):
                self._wrong(13, f"slot {slot} is linked into the log, and is not listed as log space")
            self._check_zeroed(slot)
            self._chain_of[slot] = chain
        unit = chain.headers[at] = Unit(at, at + BLOCK)
        chain.segments.append((next_slot, next_slots))
        return unit

    def _unlink(self, chain: Chain, at: int) -> None:
        """Linking the last segment failed, and its header is wiped."""
        header = chain.headers.pop(at)
        if header is None or header.ended or at != chain.start(-2):
            self._wrong(7, f"a segment's header, at {at}, is wiped")
            return
        first, count = chain.segments.pop()
        for slot in range(first, first + count):
            self._chain_of.pop(slot, None)

    def _unlinked_in_new_log(self, new: NewLog, at: int) -> Unit:
        """The same in a log that compaction writes: its tail stays the zeroed room that it was."""
        self._unlink(new.chain, at)
        new.units.pop(at, None)
        return Unit(at, at + BLOCK, blank=True)

    def _check_zeroed(self, slot: int) -> None:
        unit = self.units.pop(slot, None)
        if unit is None or not unit.blank or not self.clock.is_durable(unit):
            self._wrong(6, f"slot {slot} is linked into the log before it is zeroed and flushed")

    def _group_block(self, at: int, block) -> Unit:
        group = self._group
        if group is not None and block.seq == group.seq and at in group.blocks and not group.wipes:
            unit = group.blocks[at]
            if unit.ended:
                self._wrong(5, f"a block of group {group.seq} is written twice, at {at}")
            return unit
        if group is None or block.seq != group.seq or group.wipes:
            group = self._group_begins(at, block)
        header_at = self._chain.has_header(at)
        if not header_at or not self._header_is_durable(at):
            self._wrong(7, f"group {block.seq} is written before its segment's header is durable")
        unit = group.blocks[at] = Unit(at, at + BLOCK)
        group.indexes.add(block.index)
        if block.kind == SWITCH:
            group.link = block.records[0]
            self._switch_begins(group)
        elif block.kind == GROUP:
            group.records += block.records
            self._check_records(block)
            note_metas(self.metas, [block])
        else:
            self._wrong(9, f"a {block.kind} block among the groups of the log, at {at}")
        return unit

    def _group_begins(self, at: int, block) -> Group:
        self._check_whole(f"group {block.seq}")
        old = self._group
        if old is not None:
            self._try_group(old)
            if self._group is not None and not (old.wipes and self._is_wiped(old)):
                self._wrong(2, f"group {block.seq} is written before group {old.seq} is durable, or wiped")
        if block.seq != self.seq + 1:
            self._wrong(2, f"group {block.seq} is written, and {self.seq} is the last durable one")
        if at != self._chain.position:
            self._wrong(
                4, f"group {block.seq} is written at {at}, and the log ends at {self._chain.position}"
            )
        self._group = group = Group(block.seq, block.count, at)
        return group

    def _header_is_durable(self, at: int) -> bool:
        chain = self._chain
        for index in range(len(chain.segments) - 1, -1, -1):
            if chain.start(index) <= at < chain.stop(index):
                unit = chain.headers.get(chain.start(index))
                return unit is None or self.clock.is_durable(unit)
        return False

    def _check_records(self, block) -> None:
        for guid, slot, checksum in block.records:
            if not slot:
                continue
            owner = self._owned.get(slot)
            if owner is not None:
                self._wrong(8, f"group {block.seq} gives blob {guid.hex()} slot {slot} of blob {owner.hex()}")
            if slot in self._chain_of or self._is_log_space(slot):
                self._wrong(8, f"group {block.seq} gives blob {guid.hex()} slot {slot} of the log")
            if block.flags & FRAMES_WERE_FLUSHED and not self._frame_is_durable(slot, checksum):
                self._wrong(15, f"group {block.seq} says its frames were flushed; slot {slot} was not")

    def _frame_is_durable(self, slot: int, checksum: int) -> bool:
        """Whether the frame with ``checksum`` is; an older one in ``slot`` may be, while it is on its way."""
        unit = self.units.get(slot)
        return unit is not None and unit.checksum == checksum and self.clock.is_durable(unit)

    def _try_group(self, group: Group) -> None:
        """More was flushed: is the group durable now?"""
        if not group.whole or group.wipes or not all(map(self.clock.is_durable, group.blocks.values())):
            return
        if not all(self._frame_is_durable(slot, sum_) for _, slot, sum_ in group.records if slot):
            return
        self._group = None
        self.seq = group.seq
        chain = self._chain
        chain.sealed.update(group.blocks)
        chain.position = chain.after(max(group.blocks, key=lambda at: _place(chain, at)))
        if group.link is not None:
            self._switched()
            return
        for guid, slot, _ in group.records:
            old = self.entries.pop(guid, 0)
            if old:
                del self._owned[old]
                self._fenced[old] = self._freed_by[old] = group.seq
            if slot:
                self.entries[guid] = slot
                self._owned[slot] = guid
                self._named_by[slot] = group.seq
            self.last_record[guid] = group.seq

    # --- compaction ------------------------------------------------------------------------

    def _new_log(self, at: int, block) -> Unit:
        new = self._new
        if new is None or new.chain.log_id != block.log_id:
            if block.kind != SEGMENT:
                self._wrong(9, f"a new log begins without a header, at {at}")
            head = at // self.page_size, block.records[0][1] if block.kind == SEGMENT else 1
            new = self._new = NewLog(Chain(block.log_id, self.page_size, head))
        slot = at // self.page_size
        if slot in self._owned or slot in self._chain_of:
            self._wrong(9, f"a new log is written over something that lives in slot {slot}")
        known = new.units.get(at)
        if known is not None and not known.ended:
            return known
        unit = new.units[at] = Unit(at, at + BLOCK)
        if block.kind == SEGMENT:
            new.chain.headers[at] = unit
            new.chain.segments.append(tuple(block.records[0][2:]))
        elif block.kind in (SNAPSHOT, CARRY):
            for guid, named, _ in block.records:
                if named:
                    new.entries[guid] = named
                    new.metas[guid] = block.metas.get(named)
                else:
                    new.entries.pop(guid, None)
            new.carry_seq = block.seq if block.kind == CARRY else 0
            new.last = at
        else:
            self._wrong(9, f"a block of kind {block.kind} in a log that nothing names, at {at}")
        return unit

    def _switch_begins(self, group: Group) -> None:
        """The record that ends the old log is written: the new log must be whole, durable and right."""
        log_id, slot, slots, _ = group.link
        self._check_new_log(group.seq, log_id, (slot, slots))

    def _check_new_log(self, seq: int, log_id: int, head: tuple[int, int]) -> None:
        new = self._new
        if new is None or new.chain.log_id != log_id or new.chain.segments[0] != head:
            self._wrong(9, f"the log switches to {log_id:016x}, which was never written")
            return
        if new.spoiled:
            self._wrong(9, "a segment of the new log was given to others")
        # The header that links one more segment may still be on its way: nothing stands behind it.
        spare = {start for start in new.chain.headers if new.chain.after(start) not in new.units}
        if not all(self.clock.is_durable(unit) for at, unit in new.units.items() if at not in spare):
            self._wrong(9, "the log switches before the new one is flushed")
        for taken in new.chain.slots:
            if self._super.version > 1 and not self._keep_both(taken):
                self._wrong(13, f"slot {taken} of the new log is not listed as log space")
                break
            unit = self.units.get(taken)
            if unit is None or not unit.blank or not self.clock.is_durable(unit):
                self._wrong(6, f"slot {taken} of the new log was not zeroed and flushed")
                break
        if new.carry_seq != seq or seq != self.seq + 1:
            self._wrong(9, f"the new log begins with group {new.carry_seq}, and the switch is {seq}")
        if new.entries != self.entries:
            self._wrong(9, "the new log does not hold the durable map")
        # Not before: a slot that the snapshot names may be another blob's by now, with other metadata.
        if any(new.metas[guid] != self.metas.get(slot) for guid, slot in new.entries.items()):
            self._wrong(9, "the new log does not hold the metadata of the durable map")

    def _switched(self) -> None:
        new, self._new = self._new, None
        if new is None:
            return
        self.seq = new.carry_seq
        chain = new.chain
        chain.sealed.update(at for at in new.units if at not in chain.headers)
        chain.position = chain.after(new.last)
        self._older, self._chain = self._chain, chain
        for slot in chain.slots:
            self.units.pop(slot, None)
            self._chain_of[slot] = chain
        self._release_older()


def _is_blank(view: memoryview) -> bool:
    # Block by block: comparing views is slow, and so is one copy of all of it.
    return all(bytes(view[at : at + BLOCK]) == BLANK for at in range(0, len(view), BLOCK))


def _place(chain: Chain, at: int) -> tuple[int, int]:
    for index in range(len(chain.segments) - 1, -1, -1):
        if chain.start(index) <= at < chain.stop(index):
            return index, at
    return -1, at
