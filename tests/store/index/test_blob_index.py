"""The two layers of the map, and what groups do to them."""

from __future__ import annotations

import pytest

from uringblob.store.format import entry_slot, pack_entry
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.shards import Shards
from uringblob.store.index.slot_states import SlotState
from uringblob.store.index.slots import SlotTable

S = SlotState
G, K = b"G" * 16, b"K" * 16


@pytest.fixture
def index():
    return BlobIndex(SlotTable(2, 64))


def frame(index, checksum=1):
    """A wholly written frame in a slot of its own, as a packed entry."""
    return pack_entry(index.slots.allocate_run(1, S.WRITING).slot, checksum)


def state(index, entry):
    return index.slots.state(entry_slot(entry))


def group(index, changes, seq):
    changes = dict(changes)
    index.begin_group(changes)
    index.finish_group(changes, seq)
    index.slots.confirm(seq - 1)


def commit(index, seq, *entries, deletes=()):
    group(index, index.commit_changes(entries, deletes), seq)


def flush(index, seq):
    group(index, index.pending_changes(), seq)


def test_a_published_frame_is_visible_and_not_durable(index):
    a = frame(index)
    index.publish([(G, a)], synced=False)
    assert index.find(G) == a
    assert index.find_durable(G) is None
    assert state(index, a) is S.PENDING
    flush(index, 1)
    assert index.find_durable(G) == a
    assert state(index, a) is S.LIVE
    assert not index.pending_count


def test_a_frame_overwritten_before_any_flush_gives_its_slot_back_at_once(index):
    a, b = frame(index), frame(index)
    index.publish([(G, a)], synced=False)
    index.publish([(G, b)], synced=False)
    assert state(index, a) is S.FREE
    assert len(index) == 1


def test_a_frame_overwritten_while_its_group_is_in_flight_waits_for_the_group(index):
    a, b = frame(index), frame(index)
    index.publish([(G, a)], synced=False)
    changes = dict(index.pending_changes())
    index.begin_group(changes)
    index.publish([(G, b)], synced=False)
    assert state(index, a) is S.PENDING
    index.finish_group(changes, 4)
    assert (index.find(G), index.find_durable(G)) == (b, a)
    flush(index, 5)
    assert state(index, a) is S.RETIRED
    flush(index, 6)
    assert state(index, a) is S.FREE


def test_the_same_with_a_group_that_failed(index):
    a, b = frame(index), frame(index)
    index.publish([(G, a)], synced=False)
    changes = dict(index.pending_changes())
    index.begin_group(changes)
    index.publish([(G, b)], synced=False)
    for guid, change in changes.items():
        index.abort_change(guid, change)
    index.end_group()
    assert state(index, a) is S.FREE
    assert index.find(G) == b
    assert index.pending_count


def test_a_commit_is_invisible_until_it_is_durable(index):
    a = frame(index)
    changes = dict(index.commit_changes([(G, a)], []))
    index.begin_group(changes)
    assert index.find(G) is None
    index.finish_group(changes, 1)
    assert index.find(G) == a


def test_a_commit_overrules_the_pending_change_made_before_it(index):
    a, b = frame(index), frame(index)
    index.publish([(G, a)], synced=False)
    commit(index, 1, (G, b))
    assert index.find(G) == b
    assert not index.pending_count
    assert state(index, a) is S.FREE


def test_a_pending_change_made_during_a_commit_stays_on_top(index):
    a, b = frame(index), frame(index)
    changes = dict(index.commit_changes([(G, b)], []))
    index.begin_group(changes)
    index.publish([(G, a)], synced=False)
    index.finish_group(changes, 1)
    assert (index.find(G), index.find_durable(G)) == (a, b)


def test_deleting_what_no_durable_group_has_leaves_nothing_to_flush(index):
    a = frame(index)
    index.publish([(G, a)], synced=False)
    index.publish_deletion(G)
    assert not index.pending_count
    assert state(index, a) is S.FREE
    assert len(index) == 0


def test_deleting_what_is_not_there_is_nothing(index):
    index.publish_deletion(G)
    assert not index.pending_count


def test_a_deleted_blob_needs_a_flush_and_then_its_slot_waits_for_one_group_more(index):
    a = frame(index)
    commit(index, 1, (G, a))
    index.publish_deletion(G)
    assert index.find(G) is None
    assert index.pending_count
    flush(index, 2)
    assert state(index, a) is S.RETIRED
    commit(index, 3, (K, frame(index)))
    assert state(index, a) is S.FREE


def test_guids_are_those_that_a_read_would_find(index):
    commit(index, 1, (G, frame(index)))
    frozen = index.freeze()
    commit(index, 2, (K, frame(index)), deletes=[G])
    new = b"N" * 16
    index.publish([(new, frame(index))], synced=True)
    assert sorted(index.guids()) == sorted([K, new])
    assert [guid for guid, _ in frozen] == [G]
    index.thaw()
    assert not index.fold(2)
    assert sorted(index.guids()) == sorted([K, new])
    assert len(index) == 2


def test_a_snapshot_shows_the_durable_map_only(index):
    a = frame(index)
    commit(index, 1, (G, a))
    index.publish([(G, frame(index))], synced=False)
    index.publish([(K, frame(index))], synced=False)
    assert dict(index.freeze()) == {G: a}


def test_a_slot_that_is_taken_twice_is_named_when_a_map_is_loaded(index):
    assert index.load(Shards.of({G: pack_entry(5, 1), K: pack_entry(5, 2)}), [], 1) in (G, K)


def test_superseded_slots_of_a_loaded_map_wait_for_the_next_group(index):
    assert index.load(Shards.of({G: pack_entry(5, 1)}), [7], 3) is None
    assert index.slots.state(7) is S.RETIRED
    index.slots.confirm(3)
    assert index.slots.state(7) is S.FREE
