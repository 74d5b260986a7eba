"""Planted bugs in snapshots; see ``sim/planted.py``."""

from __future__ import annotations

import contextlib
from unittest import mock

from uringblob.store.index.moments import Moment, Moments
from uringblob.store.index.slots import SlotTable


@contextlib.contextmanager
def slots_reused_although_a_snapshot_shows_them():
    with (
        mock.patch.object(SlotTable, "hold"),
        mock.patch.object(SlotTable, "release"),
    ):
        yield


@contextlib.contextmanager
def slots_released_with_the_first_of_two_snapshots():
    real = SlotTable.release

    def release(self, slot):
        if slot in self._holds:
            self._holds[slot] = 1
            real(self, slot)

    with mock.patch.object(SlotTable, "release", release):
        yield


@contextlib.contextmanager
def unlogged_frames_not_held():
    """Who needs a frame that was never logged?"""
    real = SlotTable.retire

    def retire(self, slot, fence):
        holds = self._holds.pop(slot, None) if fence == 0 else None
        real(self, slot, fence)
        if holds is not None:
            self._holds[slot] = holds

    with mock.patch.object(SlotTable, "retire", retire):
        yield


@contextlib.contextmanager
def the_last_change_recorded_instead_of_the_first():
    real = Moment.keep

    def keep(self, guid, entry):
        self.entries.discard(guid)
        real(self, guid, entry)

    with mock.patch.object(Moment, "keep", keep):
        yield


@contextlib.contextmanager
def deletions_not_recorded():
    """A snapshot that is taken before a blob shows it from then on."""
    real = Moments.remember

    def remember(self, guid, entry):
        if entry is not None:
            real(self, guid, entry)

    with mock.patch.object(Moments, "remember", remember):
        yield


PLANTED_IN_SNAPSHOTS = {
    slots_reused_although_a_snapshot_shows_them: "snapshots",
    slots_released_with_the_first_of_two_snapshots: "snapshots",
    unlogged_frames_not_held: "snapshots",
    the_last_change_recorded_instead_of_the_first: "snapshots",
    deletions_not_recorded: "snapshots",
}
