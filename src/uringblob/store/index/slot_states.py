"""The states of slots: one table of moves, counts of each, and the search for free ones.  Pure.

Every change of a slot's state goes through :meth:`SlotStates.move`, which looks it up in :data:`MOVES`::

    FREE ──allocate──► WRITING ──publish──► PENDING ──group durable──► LIVE
     ▲ │                 │  └───────commit durable───────────────────► │
     │ │                 │                    │ overwritten unlogged   │ superseded
     │ │      failed: FREE or BAD             ▼                        ▼
     │ │                                   RETIRED ◄───────────────────┘
     │ └─► LOG (log space)                    │ fences passed (:mod:`uringblob.store.index.slots`)
     └──────┴─────────────────────────────────┘

A free slot may become a HOLE, whose blocks the file system has back, and is free again when they are
allocated.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from uringblob.store.format import EntryWithMeta, SlotRun, entry_slot, meta_cells
from uringblob.store.index.free_map import FREE_RUN, RUN_SLOTS_MAX, FreeMap


class SlotState(enum.IntEnum):
    """The states of a slot."""

    FREE = 0
    WRITING = 1  #: allocated; no record and no reader names it yet
    PENDING = 2  #: visible to readers, not yet in a durable group
    LIVE = 3  #: the durable map points here
    RETIRED = 4  #: superseded; waits for its fences
    LOG = 5  #: kept for logs; no frame is put there
    BAD = 6  #: a write into it failed: unused until the store is reopened
    HOLE = 7  #: free, but without blocks: they are allocated before it is used


_S = SlotState
MOVES: dict[SlotState, frozenset[SlotState]] = {
    _S.FREE: frozenset({_S.WRITING, _S.LOG, _S.HOLE}),
    _S.WRITING: frozenset({_S.PENDING, _S.LIVE, _S.FREE, _S.BAD}),
    _S.PENDING: frozenset({_S.LIVE, _S.RETIRED}),
    _S.LIVE: frozenset({_S.RETIRED}),
    _S.RETIRED: frozenset({_S.FREE}),
    _S.LOG: frozenset({_S.FREE}),
    _S.BAD: frozenset(),
    _S.HOLE: frozenset({_S.FREE}),
}
_ALLOWED = tuple(MOVES[state] for state in SlotState)
#: Names of their own: looking a member up takes 75 ns on CPython 3.11, and a slot moves four times a write.
_FREE = SlotState.FREE
#: By state, 1 if a record names such a slot, or the next group may.
_NAMED = tuple(int(state in (_S.WRITING, _S.PENDING, _S.LIVE)) for state in SlotState)
_RETIRED = SlotState.RETIRED
_LIVE = SlotState.LIVE
_UNUSED = bytes((_S.FREE, _S.HOLE))


class SlotStates:
    """The state of every slot below ``limit``, one byte each, and the free space among them.

    ``first`` is the lowest slot there is; ``limit`` the first one past the file's end.
    """

    def __init__(self, first: int, limit: int) -> None:
        self.first = first
        self._states = bytearray(limit)
        self._states[:first] = bytes([_S.BAD]) * min(first, limit)
        #: Slots that the file has room for, the superblocks' included.
        self.limit = limit
        #: Slots that a record names, or the next group may name: the most records that one group can have.
        self.named = 0
        #: Cells of the log that the metadata of their blobs takes, of live ones alone, and by slot.
        self.meta_cells = self.live_meta_cells = 0
        self._meta_cells: dict[int, int] = {}
        self._counts = [0] * len(_S)
        self._counts[_S.FREE] = max(0, limit - first)
        #: States of slots that lay past the file's end when the store was opened.
        self.beyond: dict[int, SlotState] = {}
        self._free = FreeMap(self._states)

    def count(self, state: SlotState) -> int:
        """Return how many slots are in ``state``."""
        return self._counts[state]

    def state(self, slot: int) -> SlotState:
        """Return the state of ``slot``, which may lie beyond the file's end."""
        if slot < len(self._states):
            return SlotState(self._states[slot])
        return self.beyond.get(slot, _S.FREE)

    def move(self, slot: int, to: SlotState) -> None:
        """Move ``slot`` to state ``to``; a move that :data:`MOVES` lacks is a bug in the store."""
        states, beyond = self._states, self.beyond
        inside = slot < len(states)
        before = states[slot] if inside else beyond[slot]
        if to not in _ALLOWED[before]:
            raise _not_in_table(slot, before, to)
        self._counts[before] -= 1
        self.named -= _NAMED[before]
        if self._meta_cells and (cells := self._meta_cells.get(slot)):
            self.live_meta_cells += cells * ((to == _LIVE) - (before == _LIVE))
            if not _NAMED[to]:
                self.meta_cells -= self._meta_cells.pop(slot)
        if beyond and slot in beyond:
            if to == _FREE:
                del beyond[slot]
            else:
                beyond[slot] = to
        if inside:
            states[slot] = to
        elif to == _FREE:
            return  # There is no such slot in the file any more.
        self._counts[to] += 1
        self.named += _NAMED[to]
        if to == _FREE:
            self._free.freed(slot)

    def move_each(self, slots: Sequence[int], to: SlotState) -> None:
        """Move ``slots`` to state ``to``: a group's all at once, for half of what as many :meth:`move` take."""
        if self.beyond or self._meta_cells:
            for slot in slots:
                self.move(slot, to)
            return
        states, counts, named = self._states, self._counts, _NAMED[to]
        for slot in slots:
            before = states[slot]
            if to not in _ALLOWED[before]:
                raise _not_in_table(slot, before, to)
            counts[before] -= 1
            states[slot] = to
            counts[to] += 1
            self.named += named - _NAMED[before]
        if to == _FREE:
            self._free.freed(*slots)

    def note_meta(self, slot: int, cells: int) -> None:
        """Note that ``cells`` of :attr:`meta_cells` are of ``slot``, until no record may name it any more."""
        self._meta_cells[slot] = cells

    def count_metas(self, entries: Iterable[int]) -> None:
        """Count the metadata of live blobs while a store is opened."""
        for entry in entries:
            if isinstance(entry, EntryWithMeta):
                cells = meta_cells(entry.meta)
                self._meta_cells[entry_slot(entry)] = cells
                self.meta_cells += cells
                self.live_meta_cells += cells

    def mark_used(self, slot: int, state: SlotState) -> bool:
        """Give a slot its state while a store is opened; False if it is taken or no slot."""
        if slot < self.first or self.state(slot) != _S.FREE:
            return False
        if slot < len(self._states):
            self._states[slot] = state
            self._counts[_S.FREE] -= 1
        else:
            self.beyond[slot] = state
        self._counts[state] += 1
        self.named += _NAMED[state]
        return True

    def mark_run_used(self, run: SlotRun, state: SlotState) -> None:
        """Give free slots inside the file their state while a store is opened; slots below the first stay."""
        begin, end = max(run.slot, self.first), run.end
        self._states[begin:end] = bytes((state,)) * (end - begin)
        self._counts[_S.FREE] -= end - begin
        self._counts[state] += end - begin
        self.named += _NAMED[state] * (end - begin)

    def mark_all_used(self, slots: Iterable[int], state: SlotState) -> int:
        """Mark slots in order; return how many succeeded before the first failure.

        A store of two million blobs is opened through this loop, so it does what :meth:`mark_used` does
        for a slot inside the file.
        """
        states, first, limit = self._states, self.first, len(self._states)
        free = int(_S.FREE)
        inside = beyond = 0
        for slot in slots:
            if first <= slot < limit and states[slot] == free:
                states[slot] = state
                inside += 1
            elif self.mark_used(slot, state):
                beyond += 1
            else:
                break
        self._counts[_S.FREE] -= inside
        self._counts[state] += inside
        self.named += _NAMED[state] * inside
        return inside + beyond

    def extend(self, limit: int) -> None:
        """Lengthen the table to ``limit`` slots, the new ones free; those that already had a state keep it."""
        old = len(self._states)
        self._states.extend(bytes(limit - old))
        self.limit = limit
        known = [(slot, state) for slot, state in self.beyond.items() if slot < limit]
        for slot, state in known:
            self._states[slot] = state
        self._counts[_S.FREE] += limit - old - len(known)
        self._free.grown()

    # --- the file's end, and holes -------------------------------------------------------

    def unused_from(self) -> int:
        """Return the slot from which on all are free, or holes."""
        return len(self._states.rstrip(_UNUSED))

    def cut(self, limit: int) -> None:
        """Shorten the table to ``limit`` slots; those behind are unused."""
        states, counts = self._states, self._counts
        for state in _UNUSED:
            counts[state] -= states.count(state, limit)
        del states[limit:]
        self.limit = limit
        self._free.cut()

    def free_runs(self) -> list[SlotRun]:
        """Return all runs of free slots; in one step, so for an opener only."""
        return [
            SlotRun(found.start(), found.end() - found.start()) for found in FREE_RUN.finditer(self._states)
        ]

    def find_run(self, state: SlotState, first: int, stop: int, least: int, most: int) -> SlotRun | None:
        """Return the first run of at least ``least`` slots in ``state`` from ``first`` on; up to ``most`` of it."""
        begin = self._states.find(bytes((state,)) * least, first, stop)
        if begin < 0:
            return None
        end = min(begin + most, stop)
        rest = self._states[begin:end].lstrip(bytes((state,)))
        return SlotRun(begin, end - begin - len(rest))

    def live_from(self, low: int, high: int, most: int) -> int:
        """Return a slot from ``low`` on from which up to ``high`` there are at most ``most`` live ones."""
        while self._states.count(_LIVE, low, high) > most:
            low += (high - low + 1) // 2
        return low

    # --- allocation ----------------------------------------------------------------------

    def allocate_run(self, count: int, to: SlotState) -> SlotRun | None:
        """Move the lowest run of ``count`` free slots to state ``to``; the lowest keeps the file dense.

        ``None`` if there is none, or ``count`` is more than ``RUN_SLOTS_MAX``.
        """
        start = self._free.lowest(count) if count <= RUN_SLOTS_MAX else -1
        if start < 0:
            return None
        if to not in _ALLOWED[_FREE]:
            raise _not_in_table(start, _FREE, to)
        # What move_run() asks is known: they are all free, so inside the file, and no blob's.
        self._states[start : start + count] = bytes((to,)) * count
        self._counts[_FREE] -= count
        self._counts[to] += count
        self.named += _NAMED[to] * count
        return SlotRun(start, count)

    def allocate_runs(self, count: int, to: SlotState) -> list[SlotRun]:
        """Move ``count`` free slots to state ``to``, the longest runs first, as halving finds them."""
        runs: list[SlotRun] = []
        size = min(count, RUN_SLOTS_MAX)
        while count:
            start = self._free.lowest(size) if size else -1
            if start < 0:
                if size <= 1:
                    raise AssertionError("allocate_runs: fewer free slots than asked for")
                size = (size + 1) // 2
                continue
            run = SlotRun(start, self._free.run_at(start, count))
            self.move_run(run, to)
            runs.append(run)
            count -= run.slots
            size = min(size, count)
        return runs

    def move_run(self, run: SlotRun, to: SlotState) -> None:
        """Move every slot of ``run`` to state ``to``; in one step where all are in the same state."""
        begin, count = run.slot, run.slots
        states, end = self._states, begin + count
        one_by_one = self.beyond or (self._meta_cells and not _NAMED[to])
        if one_by_one or end > len(states) or states.count(states[begin], begin, end) < count:
            for slot in range(begin, end):
                self.move(slot, to)
            return
        before = states[begin]
        if to not in _ALLOWED[before]:
            raise _not_in_table(begin, before, to)
        states[begin:end] = bytes((to,)) * run.slots
        self._counts[before] -= count
        self._counts[to] += count
        self.named += (_NAMED[to] - _NAMED[before]) * count
        if to == _FREE:
            self._free.freed_run(begin, end)

    def live_beyond(self) -> int:
        """Return how many live slots lie past the end of the file as it was when opened."""
        return sum(1 for state in self.beyond.values() if state == _S.LIVE)


def _not_in_table(slot: int, before: int, to: SlotState) -> AssertionError:
    return AssertionError(f"slot {slot}: {SlotState(before).name} -> {to.name} is not in the table")
