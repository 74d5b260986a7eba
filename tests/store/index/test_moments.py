"""A moment shows what was visible when it began, whatever the index does afterwards; its slots are not reused."""

from __future__ import annotations

import random

import pytest

import seeds
from uringblob.store.format import entry_slot, pack_entry
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.shards import PARTS
from uringblob.store.index.slot_states import SlotState
from uringblob.store.index.slots import SlotTable

S = SlotState
G, K = b"G" * 16, b"K" * 16


@pytest.fixture
def index():
    return BlobIndex(SlotTable(2, 64))


def frame(index):
    return pack_entry(index.slots.allocate_run(1, S.WRITING).slot, 1)


def state(index, entry):
    return index.slots.state(entry_slot(entry))


def commit(index, seq, *entries, deletes=()):
    changes = dict(index.commit_changes(entries, deletes))
    index.begin_group(changes)
    index.finish_group(changes, seq)
    index.slots.confirm(seq - 1)


def flush(index, seq):
    changes = dict(index.pending_changes())
    index.begin_group(changes)
    index.finish_group(changes, seq)
    index.slots.confirm(seq - 1)


def snapshot(index):
    return index.moments.begin(index, holds=True)


def release(index, moment):
    index.moments.end_moment(moment)
    for slot in moment.held_slots():
        index.slots.release(slot)


def test_a_replaced_frame_keeps_its_slot_until_the_last_moment_that_shows_it_ends(index):
    a = frame(index)
    commit(index, 1, (G, a))
    first, second = snapshot(index), snapshot(index)
    commit(index, 2, (G, frame(index)))
    third = snapshot(index)
    commit(index, 3, (G, frame(index)))
    commit(index, 4)
    assert index.slots.held == 2
    release(index, first)
    assert (second.find(G), state(index, a)) == (a, S.RETIRED)
    release(index, third)
    assert index.slots.held == 1
    release(index, second)
    assert state(index, a) is S.FREE
    assert not index.slots.count(S.RETIRED)


def test_a_slot_goes_on_to_its_fences(index):
    a = frame(index)
    commit(index, 1, (G, a))
    moment = snapshot(index)
    commit(index, 2, (G, frame(index)))
    release(index, moment)
    assert state(index, a) is S.RETIRED, "group 2 may still be dropped"
    assert index.slots.awaiting_group == 1
    commit(index, 3)
    assert state(index, a) is S.FREE


def test_a_slot_goes_on_to_its_readers(index):
    a = frame(index)
    commit(index, 1, (G, a))
    moment = snapshot(index)
    commit(index, 2, (G, frame(index)))
    commit(index, 3)
    index.slots.pin(entry_slot(a))
    release(index, moment)
    assert state(index, a) is S.RETIRED
    index.slots.unpin(entry_slot(a))
    assert state(index, a) is S.FREE


def test_a_frame_that_was_never_logged_is_kept_too(index):
    a = frame(index)
    index.publish([(G, a)], synced=False)
    moment = snapshot(index)
    index.publish([(G, frame(index))], synced=False)
    assert (moment.find(G), state(index, a)) == (a, S.RETIRED)
    release(index, moment)
    assert state(index, a) is S.FREE


def test_making_a_change_durable_records_nothing(index):
    index.publish([(G, frame(index))], synced=False)
    moment = snapshot(index)
    flush(index, 1)
    assert not moment.entries
    assert moment.find(G) == index.find(G)


def test_a_listing_holds_no_slot(index):
    a = frame(index)
    commit(index, 1, (G, a))
    moment = index.moments.begin(index, holds=False)
    commit(index, 2, (G, frame(index)))
    commit(index, 3)
    assert state(index, a) is S.FREE
    assert index.names(0, PARTS, moment) == [G]


def test_an_ended_moment_shows_nothing(index):
    commit(index, 1, (G, frame(index)))
    moment = snapshot(index)
    index.moments.end_moment(moment)
    assert moment.find(G) is None


def test_its_number_is_that_of_the_last_visible_group(index):
    commit(index, 7, (G, frame(index)))
    index.publish([(K, frame(index))], synced=False)
    assert snapshot(index).seq == 7


class Course:
    """A random course of an index, one step at a time, beside a model: a plain dict a moment."""

    GUIDS = tuple(bytes([number]) * 16 for number in range(6))

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.index = BlobIndex(SlotTable(2, 400))
        self.visible: dict[bytes, int] = {}
        self.moments: list[tuple] = []
        self.seq = 0
        self.group = None
        self.left = []
        self.frozen = False
        self.looks = 0

    def step(self):
        rng, index = self.rng, self.index
        kinds = ["write", "write", "delete", "begin", "look"]
        if self.group is None:
            kinds += ["commit", "flush", "freeze"]
        else:
            kinds += ["durable", "durable", "abort"] if not index.applying else ["apply"] * 4
        if self.moments:
            kinds += ["end"]
        getattr(self, rng.choice(kinds))()
        self.check()

    def check(self):
        """No slot that is shown is free; and the index is what the model says."""
        for moment, shown in self.moments:
            for entry in shown.values():
                assert self.index.slots.state(entry_slot(entry)) not in (S.FREE, S.WRITING), "reused"
            assert {g: e for g in self.GUIDS if (e := moment.find(g)) is not None} == shown
            assert moment.count == len(shown)
            self.looks += 1
        assert {g: e for g in self.GUIDS if (e := self.index.find(g)) is not None} == self.visible

    def frame(self):
        slot = self.index.slots.allocate_run(1, S.WRITING).slot
        return pack_entry(slot, self.rng.getrandbits(64))

    def write(self):
        name, entry = self.rng.choice(self.GUIDS), self.frame()
        self.index.publish([(name, entry)], synced=False)
        self.visible[name] = entry

    def delete(self):
        name = self.rng.choice(self.GUIDS)
        self.index.publish_deletion(name)
        self.visible.pop(name, None)

    def begin(self):
        if not self.index.applying and len(self.moments) < 4:
            moment = self.index.moments.begin(self.index, holds=True)
            self.moments.append((moment, dict(self.visible)))

    def end(self):
        moment, _ = self.moments.pop(self.rng.randrange(len(self.moments)))
        self.index.moments.end_moment(moment)
        for slot in moment.held_slots():
            self.index.slots.release(slot)

    def look(self):
        if self.index.applying:
            return
        for moment, shown in self.moments:
            assert sorted(self.index.names(0, PARTS, moment)) == sorted(shown)

    def commit(self):
        names = self.rng.sample(self.GUIDS, self.rng.randint(1, 4))
        writes = [(name, self.frame()) for name in names if self.rng.random() < 0.7]
        deletes = [name for name in names if name not in dict(writes)]
        self._begin_group(dict(self.index.commit_changes(writes, deletes)))

    def flush(self):
        self._begin_group(dict(self.index.pending_changes()))

    def _begin_group(self, changes):
        self.index.begin_group(changes)
        self.group = changes

    def abort(self):
        for name, change in self.group.items():
            self.index.abort_change(name, change)
            if change.pending is None:
                self.index.free_superseded(change)
        self.index.end_group()
        self.group = None

    def durable(self):
        """At once, or in turns: then other changes come in between."""
        self.seq += 1
        before, group = dict(self.visible), self.group
        if self.rng.random() < 0.5:
            self.index.finish_group(self.group, self.seq)
            self._confirm()
        else:
            for change in self.group.values():
                self.index.mark_slot_live(change)
            self.index.show_group(self.group)
            self.left = list(self.group.items())
        # What it shows is the index's own affair; that it is one step is seen by the moments.
        self.visible = {g: e for g in self.GUIDS if (e := self.index.find(g)) is not None}
        for name in before.keys() | self.visible.keys():
            assert before.get(name) == self.visible.get(name) or name in group

    def apply(self):
        if self.left:
            name, change = self.left.pop()
            self.index.apply_change(name, change, self.seq)
        else:
            self.index.end_group()
            self._confirm()

    def _confirm(self):
        self.index.slots.confirm(self.seq - 1)
        self.group = None

    def freeze(self):
        """A compaction begins, or ends."""
        if self.frozen:
            self.index.thaw()
            while self.index.fold(1):
                pass
        else:
            self.index.freeze()
        self.frozen = not self.frozen


def test_any_course_of_an_index_leaves_moments_as_they_were():
    looks = 0
    for seed in range(seeds.first(), seeds.first() + 60):
        course = Course(seed)
        try:
            for _ in range(400):
                course.step()
            while course.moments:
                course.end()
                course.check()
            assert not course.index.slots._holds
            assert not course.index.slots.held
        except Exception as error:
            raise AssertionError(f"{error!r}\nreplay: seed={seed}") from error
        looks += course.looks
    assert looks > 10_000
