"""The fences before a slot is used again.  Pure.

A slot that group N superseded is RETIRED, and free again when

* N is durable *and* no longer the last group, because recovery may drop a last group whose frames or
  block are bad and then needs the slot as it was: ``confirmed >= N``, and
* no reader in flight has it pinned, and
* no reader in another process is at a state that shows it, from the group that named it on and before N
  (:attr:`SlotTable.none_between`); else it is *kept*.  While slots are kept, the table notes which group named
  each slot (:attr:`SlotTable.births`); one that was named before counts as shown by every state before N.

Slots that no durable record ever named have fence 0 and wait for their readers only.  One that a snapshot
shows is *held*: it comes to its fences when the last such snapshot is closed.
"""

from __future__ import annotations

import collections
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from uringblob.store.format import SlotRun
from uringblob.store.index.free_map import FREE_RUN
from uringblob.store.index.slot_states import SlotState, SlotStates

#: Names of their own: looking a member up takes 75 ns on CPython 3.11, and a slot moves four times a write.
_FREE = SlotState.FREE
_RETIRED = SlotState.RETIRED


class SlotTable(SlotStates):
    """The state of every slot, and what those that were superseded wait for."""

    def __init__(self, first: int, limit: int) -> None:
        super().__init__(first, limit)
        self._retired: collections.deque[tuple[int, int]] = collections.deque()
        self._awaiting_readers: set[int] = set()
        self._pins: dict[int, int] = {}
        self._holds: dict[int, int] = {}  # by how many snapshots a slot is held
        self._held: dict[int, int] = {}  # those of them that are retired, with their fences
        #: Slots that callers read in their own threads; see :mod:`uringblob.store.caller_reads`.
        self.caller_reads: dict[Any, int] = {}
        self.confirmed = 0
        #: Whether no reader of another process, present or future, is at a state from one group on and before
        #: another: an answer of true stays so.
        self.none_between: Callable[[int, int], bool] | None = None
        self._none_below = 0  # the highest group of which it is known that no state before it is shown
        self._kept: collections.deque[tuple[int, int, SlotRun]] = collections.deque()
        #: By slots that were named meanwhile, the group that did; ``None`` while nothing is kept.
        self.births: dict[int, int] | None = None
        self.kept = 0  #: retired slots that only readers in other processes keep
        self.drained: Callable[[], object] | None = (
            None  #: called when a slot has waited for its readers, or for snapshots
        )
        self._unknown_end, self._unknown_fence = 0, 0

    def extend(self, limit: int) -> None:
        """Lengthen the table; slots that the file had when it was opened may be an older reader's."""
        old = len(self._states)
        super().extend(limit)
        if old < self._unknown_end:
            self._keep_free(old, min(limit, self._unknown_end), self._unknown_fence)

    def retire(self, slot: int, fence: int) -> None:
        """Retire ``slot``, which the map no longer names: free once ``fence`` is confirmed and no reader has it."""
        self.move(slot, _RETIRED)
        if slot in self._holds:
            self._held[slot] = fence
        elif fence > self.confirmed:
            self._retired.append((fence, slot))
        elif self._none_is_below(fence) or self._without_shown([(fence, slot)]):
            self._free_retired([(fence, slot)])

    def retire_each(self, slots: Sequence[int], fence: int) -> None:
        """Retire ``slots``, which group ``fence`` has superseded: all at once, for a third of what each takes."""
        if self._holds or fence <= self.confirmed:
            for slot in slots:
                self.retire(slot, fence)
            return
        self.move_each(slots, _RETIRED)
        self._retired.extend(zip(itertools.repeat(fence), slots))

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
        elif self._none_is_below(fence) or self._without_shown([(fence, slot)]):
            self._free_retired([(fence, slot)])
            if self.drained is not None:
                self.drained()

    @property
    def held(self) -> int:
        """Retired slots that only snapshots keep."""
        return len(self._held)

    def _free_retired(self, passed: Iterable[tuple[int, int]]) -> None:
        """Free slots whose fences have passed, given with these, but for those that somebody reads."""
        unread = []
        for _, slot in passed:
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
        retired, passed, last = self._retired, list[tuple[int, int]](), 0
        while retired and retired[0][0] <= confirmed and at_most > 0:
            at_most -= 1
            last = max(last, retired[0][0])
            passed.append(retired.popleft())
        if last > self._none_below:
            # _none_is_below(), written out: every group comes here.
            if self._kept or not (self.none_between is None or self.none_between(0, last)):
                passed = self._without_shown(passed)
            else:
                self._none_below = last
        self._free_retired(passed)
        return bool(retired) and retired[0][0] <= confirmed

    @property
    def awaiting_group(self) -> int:
        """Retired slots that the next durable group sets free."""
        return 0 if self._kept else len(self._retired)

    # --- readers in other processes --------------------------------------------------------

    def _none_is_below(self, fence: int) -> bool:
        if fence <= self._none_below or self.none_between is None:
            return True
        if not self.none_between(0, fence):
            return False
        self._none_below = fence
        return True

    def _without_shown(self, passed: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Keep those of ``passed`` that a reader in another process may be shown; return the others."""
        births = self.births or {}
        young = [births[slot] for _, slot in passed if slot in births]
        # One question for all of them, because most readers are older than any of them.
        none = bool(young) and self._none_is_shown(min(young), max(fence for fence, _ in passed))
        unshown, older = [], sys.maxsize  # a state before group `older` is shown
        for fence, slot in passed:
            birth = births.get(slot, 0)
            if birth:
                shown = not (none or self._none_is_shown(birth, fence))
            elif shown := fence >= older or not self._none_is_below(fence):
                older = min(older, fence)
            if shown:
                self._keep(fence, birth, SlotRun(slot, 1))
            else:
                unshown.append((fence, slot))
        return unshown

    def _none_is_shown(self, birth: int, fence: int) -> bool:
        """Whether no reader is at a state from group ``birth`` on, 0 if that is not known, and before ``fence``."""
        if not birth or fence <= self._none_below or self.none_between is None:
            return self._none_is_below(fence)
        return self.none_between(birth, fence)

    def _keep(self, fence: int, birth: int, run: SlotRun) -> None:
        self._kept.append((fence, birth, run))
        self.kept += run.slots
        if self.births is None:
            self.births = {}

    def _free_kept(self, at_most: int) -> bool:
        """Free what readers in other processes have let go of; return whether there may be more of it now.

        Not all of it is asked about each time: readers move on one by one.
        """
        # As many as are superseded now may have to stay: so those that need not are found in time.
        misses_left = max(1, min(len(self._retired), at_most))
        while self._kept and misses_left:
            if at_most <= 0:
                return True
            fence, birth, run = self._kept[0]
            if not self._none_is_shown(birth, fence):
                misses_left -= 1
                self._kept.rotate(-1)
                continue
            del self._kept[0]
            self.kept -= run.slots
            at_most -= 1
            if run.slots == 1:
                self._free_retired([(fence, run.slot)])
            else:
                self.move_run(run, _FREE)  # of keep_all_free: none in this process reads there
        if not self._kept:
            self.births = None
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
            self._keep(fence, 0, run)

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
