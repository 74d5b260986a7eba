"""Planted bugs of readers beside a writer; see ``sim/planted.py``."""

from __future__ import annotations

import collections
import contextlib
import sys
from unittest import mock

from uringblob.store.index.slots import SlotTable
from uringblob.store.log.flat_group import FlatGroup
from uringblob.store.log.group import Group
from uringblob.store.opening import state
from uringblob.store.opening.view import View
from uringblob.testing.sim.locks import SimLocks


@contextlib.contextmanager
def slots_freed_without_asking_for_readers():
    with (
        mock.patch.object(SlotTable, "_none_is_below", return_value=True),
        mock.patch.object(SlotTable, "_without_shown", lambda _, passed: passed),
    ):
        yield


@contextlib.contextmanager
def an_answer_taken_for_later_groups_too():
    """No reader is below this group, so none will be below any other."""
    real = SlotTable._none_is_below

    def none_is_below(self, fence):
        answer = real(self, fence)
        if answer and self.none_between is not None:
            self._none_below = sys.maxsize
        return answer

    with mock.patch.object(SlotTable, "_none_is_below", none_is_below):
        yield


@contextlib.contextmanager
def only_readers_asked_and_not_what_they_may_begin_with():
    """A reader that begins now reads an announcement that is older than this group."""

    def none_between(self, low, high):
        return not any(at == 0 or low <= at < high for at in self.registered())

    real = SimLocks.announce

    def late(self, seq):
        real(self, max(seq - 3, self.announced or seq))

    with (
        mock.patch.object(SimLocks, "none_between", none_between),
        mock.patch.object(SimLocks, "announce", late),
    ):
        yield


@contextlib.contextmanager
def announced_before_the_flush():
    real_flat, real = FlatGroup._write, Group._finish

    def write(self, changes):
        self._writer.active.announce(self.seq)
        real_flat(self, changes)

    def finish(self, *arguments):
        if isinstance(self, FlatGroup):
            self._writer.active.announce(self.seq)
        return real(self, *arguments)

    with mock.patch.object(FlatGroup, "_write", write), mock.patch.object(Group, "_finish", finish):
        yield


@contextlib.contextmanager
def registered_after_the_map_was_read():
    real = SimLocks.register

    def register(self, seq):
        return seq == 0 or real(self, seq)

    with mock.patch.object(SimLocks, "register", register):
        yield


@contextlib.contextmanager
def what_is_not_announced_is_read_too():
    real = state.recover

    async def recover(*arguments, up_to=None, **options):
        found = await real(*arguments, up_to=up_to, **options)
        while up_to is not None and (group := await found.reader.group(found.seq + 1, 4)) is not None:
            found.replay.apply(group)
            found.seq += 1
        return found

    with mock.patch.object(state, "recover", recover):
        yield


@contextlib.contextmanager
def an_older_state_let_go_of_under_its_reads():
    """A refresh releases the old state at once, whatever snapshots and reads need of it."""

    def release_older(self):
        older, self._registered = self._registered[:-1], self._registered[-1:]
        for seq in older:
            self._file.locks.release(seq)

    with mock.patch.object(View, "_release_older", release_older):
        yield


@contextlib.contextmanager
def free_slots_used_by_a_writer_that_opens_beside_older_readers():
    with mock.patch.object(SlotTable, "keep_all_free"):
        yield


@contextlib.contextmanager
def slots_taken_for_younger_than_they_are():
    real = SlotTable._none_is_shown

    def none_is_shown(self, birth, fence):
        return real(self, birth and min(birth + 2, fence), fence)

    with mock.patch.object(SlotTable, "_none_is_shown", none_is_shown):
        yield


@contextlib.contextmanager
def slots_of_unknown_age_taken_for_new():
    """What was named before anything was kept is taken for what the superseding group named."""
    real = SlotTable._without_shown

    def without_shown(self, passed):
        births, self.births = self.births, collections.defaultdict(lambda: passed[0][0])
        births and self.births.update(births)
        self.births.update({slot: self.births[slot] for _, slot in passed})
        unshown = real(self, passed)
        self.births = births
        return unshown

    with mock.patch.object(SlotTable, "_without_shown", without_shown):
        yield


@contextlib.contextmanager
def refreshed_without_a_lock_for_any_state():
    """The states between the old one and the new one are not kept by the lock of the old one."""
    real = View._register_at

    def register_at(self, seq):
        if seq:
            real(self, seq)

    with mock.patch.object(View, "_register_at", register_at):
        yield


PLANTED = [
    slots_taken_for_younger_than_they_are,
    slots_of_unknown_age_taken_for_new,
    refreshed_without_a_lock_for_any_state,
    slots_freed_without_asking_for_readers,
    an_answer_taken_for_later_groups_too,
    only_readers_asked_and_not_what_they_may_begin_with,
    announced_before_the_flush,
    registered_after_the_map_was_read,
    what_is_not_announced_is_read_too,
    an_older_state_let_go_of_under_its_reads,
    free_slots_used_by_a_writer_that_opens_beside_older_readers,
]
