"""The life of a slot: one table of moves, the search for free slots, the fences before reuse.  Pure.

Every change of a slot's state goes through :meth:`SlotTable.move`, which looks it up in :data:`MOVES`::

    FREE ──allocate──► WRITING ──publish──► PENDING ──group durable──► LIVE
     ▲ │                 │  └───────commit durable───────────────────► │
     │ │                 │                    │ overwritten unlogged   │ superseded
     │ │      failed: FREE or BAD             ▼                        ▼
     │ │                                   RETIRED ◄───────────────────┘
     │ └─► LOG (log space)                    │ fences passed
     └──────┴─────────────────────────────────┘

A free slot may become a HOLE, whose blocks the file system has back, and is free again when they are
allocated.

**Fences.**  A slot that group N superseded is free again when

* N is durable *and* no longer the last group, because recovery may drop a last group whose frames or
  block are bad and then needs the slot as it was: ``confirmed >= N``, and
* no reader in flight has it pinned, and
* no reader in another process is at a state before N (:attr:`SlotTable.none_below`); else it is *kept*.

Slots that no durable record ever named have fence 0 and wait for their readers only.  One that a snapshot
shows is *held*: it comes to its fences when the last such snapshot is closed.
"""

from __future__ import annotations

import collections
import enum
import sys
from collections.abc import Callable, Iterable
from typing import Any

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


class SlotTable:
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
        self._retired: collections.deque[tuple[int, int]] = collections.deque()
        self._awaiting_readers: set[int] = set()
        self._pins: dict[int, int] = {}
        self._holds: dict[int, int] = {}  # by how many snapshots a slot is held
        self._held: dict[int, int] = {}  # those of them that are retired, with their fences
        #: Slots that callers read in their own threads; see :mod:`uringblob.store.caller_reads`.
        self.caller_reads: dict[Any, int] = {}
        self.confirmed = 0
        #: Whether no reader of another process, present or future, is at a state before a group: asked where
        #: that is not known yet, and an answer of true stays so.
        self.none_below: Callable[[int], bool] | None = None
        self._none_below = 0  # the highest group of which it is known
        self._kept: collections.deque[tuple[int, SlotRun]] = collections.deque()
        self.kept = 0  #: retired slots that only readers in other processes keep
        self.drained: Callable[[], object] | None = (
            None  #: called when a slot has waited for its readers, or for snapshots
        )
        self._unknown_end, self._unknown_fence = 0, 0

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

    def move_each(self, slots: Iterable[int], to: SlotState) -> None:
        """Move ``slots`` to state ``to``: a group's all at once, for half of what as many :meth:`move` take."""
        if self.beyond or self._meta_cells:
            for slot in slots:
                self.move(slot, to)
            return
        states, counts, freed, named = self._states, self._counts, self._free.freed, _NAMED[to]
        for slot in slots:
            before = states[slot]
            if to not in _ALLOWED[before]:
                raise _not_in_table(slot, before, to)
            counts[before] -= 1
            states[slot] = to
            counts[to] += 1
            self.named += named - _NAMED[before]
            if to == _FREE:
                freed(slot)

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
        if old < self._unknown_end:
            self._keep_free(old, min(limit, self._unknown_end), self._unknown_fence)

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
        run = SlotRun(start, count)
        if count == 1:
            self.move(start, to)
        else:
            self.move_run(run, to)
        return run

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

    # --- fences --------------------------------------------------------------------------

    def retire(self, slot: int, fence: int) -> None:
        """Retire ``slot``, which the map no longer names: free once ``fence`` is confirmed and no reader has it."""
        self.move(slot, _RETIRED)
        if slot in self._holds:
            self._held[slot] = fence
        elif fence > self.confirmed:
            self._retired.append((fence, slot))
        elif self._none_is_below(fence):
            self._free_retired((slot,))
        else:
            self._keep(fence, SlotRun(slot, 1))

    def hold(self, slot: int) -> None:
        """Keep ``slot``, which is not retired yet, for a snapshot until as many calls of :meth:`release`."""
        self._holds[slot] = self._holds.get(slot, 0) + 1

    def release(self, slot: int) -> None:
        """Take one hold away; after the last one the slot, if it is retired, waits for its fences."""
        holds = self._holds[slot] - 1
        if holds:
            self._holds[slot] = holds
            return
        del self._holds[slot]
        fence = self._held.pop(slot, None)
        if fence is None:
            return
        if fence > self.confirmed:
            self._retired.append((fence, slot))
        elif self._none_is_below(fence):
            self._free_retired((slot,))
            if self.drained is not None:
                self.drained()
        else:
            self._keep(fence, SlotRun(slot, 1))

    @property
    def held(self) -> int:
        """Retired slots that only snapshots keep."""
        return len(self._held)

    def _free_retired(self, slots: Iterable[int]) -> None:
        """Free ``slots``, whose fences have passed, but for those that somebody reads."""
        unread = []
        for slot in slots:
            if slot in self._pins or self.caller_reads:
                self._drain(slot)
            else:
                unread.append(slot)
        self.move_each(unread, _FREE)  # a reader that begins now finds its blob elsewhere, and begins again

    def confirm(self, seq: int, at_most: int = sys.maxsize) -> bool:
        """Pass the fences of groups up to ``seq``, which are durable and not the last.

        Frees up to ``at_most`` slots; returns whether there are more.
        """
        confirmed = self.confirmed = max(self.confirmed, seq)
        if self._kept and self._free_kept(at_most):
            return True
        retired, passed = self._retired, list[int]()
        while retired and retired[0][0] <= confirmed and at_most > 0:
            at_most -= 1
            fence, slot = retired.popleft()
            if fence > self._none_below and (self._kept or not self._none_is_below(fence)):
                self._keep(fence, SlotRun(slot, 1))
            else:
                passed.append(slot)
        self._free_retired(passed)
        return bool(retired) and retired[0][0] <= confirmed

    @property
    def awaiting_group(self) -> int:
        """Retired slots that the next durable group sets free."""
        return 0 if self._kept else len(self._retired)

    # --- readers in other processes --------------------------------------------------------

    def _none_is_below(self, fence: int) -> bool:
        if fence <= self._none_below or self.none_below is None:
            return True
        if not self.none_below(fence):
            return False
        self._none_below = fence
        return True

    def _keep(self, fence: int, run: SlotRun) -> None:
        self._kept.append((fence, run))
        self.kept += run.slots

    def _free_kept(self, at_most: int) -> bool:
        """Free what readers in other processes have let go of; return whether there is more of it."""
        while self._kept and self._none_is_below(self._kept[0][0]):
            if at_most <= 0:
                return True
            _, run = self._kept.popleft()
            self.kept -= run.slots
            at_most -= 1
            if run.slots == 1:
                self._free_retired((run.slot,))
            else:
                self.move_run(run, _FREE)  # of keep_all_free: none in this process reads there
        return False

    def keep_all_free(self, fence: int, end: int) -> None:
        """Keep every free slot below ``end``, the file's, until no reader is at a state before ``fence``.

        While a store is opened: which of them such a reader needs is not known.
        """
        self._unknown_end, self._unknown_fence = end, fence
        self._keep_free(self.first, len(self._states), fence)

    def _keep_free(self, begin: int, end: int, fence: int) -> None:
        if self._none_is_below(fence):
            return
        for found in FREE_RUN.finditer(self._states, begin, end):
            run = SlotRun(found.start(), found.end() - found.start())
            self._states[run.slot : run.end] = bytes((_RETIRED,)) * run.slots
            self._counts[_FREE] -= run.slots
            self._counts[_RETIRED] += run.slots
            self._keep(fence, run)

    def pin(self, slot: int) -> None:
        """Keep ``slot`` from being reused until as many calls of :meth:`unpin`."""
        self._pins[slot] = self._pins.get(slot, 0) + 1

    def unpin(self, slot: int) -> None:
        """Take one pin away."""
        pins = self._pins[slot] - 1
        if pins:
            self._pins[slot] = pins
            return
        del self._pins[slot]
        if slot in self._awaiting_readers:
            self.try_free(slot)

    def awaits_readers(self, slot: int) -> bool:
        """Whether ``slot`` waits for its readers only; in any thread."""
        return slot in self._awaiting_readers

    def try_free(self, slot: int) -> None:
        """Free ``slot`` if it awaits its readers and the last of them is done."""
        if slot in self._awaiting_readers and slot not in self._pins and not self._is_read_by_caller(slot):
            self._awaiting_readers.discard(slot)
            self.move(slot, _FREE)
            if self.drained is not None:
                self.drained()

    def _is_read_by_caller(self, slot: int) -> bool:
        # A copy, made in one step: reading threads register and unregister meanwhile.
        return bool(self.caller_reads) and slot in list(self.caller_reads.values())

    def _drain(self, slot: int) -> None:
        # In this order: a caller's read unregisters first, and then looks whether its slot awaits readers.
        self._awaiting_readers.add(slot)
        self.try_free(slot)

    def live_beyond(self) -> int:
        """Return how many live slots lie past the end of the file as it was when opened."""
        return sum(1 for state in self.beyond.values() if state == _S.LIVE)


def _not_in_table(slot: int, before: int, to: SlotState) -> AssertionError:
    return AssertionError(f"slot {slot}: {SlotState(before).name} -> {to.name} is not in the table")
