"""The two layers of the map, and what groups do to them."""

from __future__ import annotations

import pytest

from uringblob.store.format import entry_slot, pack_entry
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.shards import Shards
from uringblob.store.index.slots import SlotState, SlotTable

S = SlotState
G, K = b"G" * 16, b"K" * 16


@pytest.fixture
def manifest():
    return BlobIndex(SlotTable(2, 64))


def frame(manifest, checksum=1):
    """A wholly written frame in a slot of its own, as a packed entry."""
    return pack_entry(manifest.slots.take_run(1, S.WRITING).slot, checksum)


def state(manifest, entry):
    return manifest.slots.state(entry_slot(entry))


def group(manifest, changes, seq):
    changes = dict(changes)
    manifest.begin_group(changes)
    manifest.finish_group(changes, seq)
    manifest.slots.confirm(seq - 1)


def commit(manifest, seq, *entries, deletes=()):
    group(manifest, manifest.commit_changes(entries, deletes), seq)


def flush(manifest, seq):
    group(manifest, manifest.pending_changes(), seq)


def test_a_published_frame_is_visible_and_not_durable(manifest):
    a = frame(manifest)
    manifest.publish([(G, a)], synced=False)
    assert manifest.find(G) == a
    assert manifest.find_durable(G) is None
    assert state(manifest, a) is S.PENDING
    flush(manifest, 1)
    assert manifest.find_durable(G) == a
    assert state(manifest, a) is S.LIVE
    assert not manifest.has_pending


def test_a_frame_overwritten_before_any_flush_gives_its_slot_back_at_once(manifest):
    a, b = frame(manifest), frame(manifest)
    manifest.publish([(G, a)], synced=False)
    manifest.publish([(G, b)], synced=False)
    assert state(manifest, a) is S.FREE
    assert len(manifest) == 1


def test_a_frame_overwritten_while_its_group_is_in_flight_waits_for_the_group(manifest):
    a, b = frame(manifest), frame(manifest)
    manifest.publish([(G, a)], synced=False)
    changes = dict(manifest.pending_changes())
    manifest.begin_group(changes)
    manifest.publish([(G, b)], synced=False)
    assert state(manifest, a) is S.PENDING
    manifest.finish_group(changes, 4)
    assert (manifest.find(G), manifest.find_durable(G)) == (b, a)
    flush(manifest, 5)
    assert state(manifest, a) is S.RETIRED
    flush(manifest, 6)
    assert state(manifest, a) is S.FREE


def test_the_same_with_a_group_that_failed(manifest):
    a, b = frame(manifest), frame(manifest)
    manifest.publish([(G, a)], synced=False)
    changes = dict(manifest.pending_changes())
    manifest.begin_group(changes)
    manifest.publish([(G, b)], synced=False)
    manifest.abort_group(changes)
    assert state(manifest, a) is S.FREE
    assert manifest.find(G) == b
    assert manifest.has_pending


def test_a_commit_is_invisible_until_it_is_durable(manifest):
    a = frame(manifest)
    changes = dict(manifest.commit_changes([(G, a)], []))
    manifest.begin_group(changes)
    assert manifest.find(G) is None
    manifest.finish_group(changes, 1)
    assert manifest.find(G) == a


def test_a_commit_overrules_the_pending_change_made_before_it(manifest):
    a, b = frame(manifest), frame(manifest)
    manifest.publish([(G, a)], synced=False)
    commit(manifest, 1, (G, b))
    assert manifest.find(G) == b
    assert not manifest.has_pending
    assert state(manifest, a) is S.FREE


def test_a_pending_change_made_during_a_commit_stays_on_top(manifest):
    a, b = frame(manifest), frame(manifest)
    changes = dict(manifest.commit_changes([(G, b)], []))
    manifest.begin_group(changes)
    manifest.publish([(G, a)], synced=False)
    manifest.finish_group(changes, 1)
    assert (manifest.find(G), manifest.find_durable(G)) == (a, b)


def test_deleting_what_no_durable_group_knows_leaves_nothing_to_flush(manifest):
    a = frame(manifest)
    manifest.publish([(G, a)], synced=False)
    manifest.publish_deletion(G)
    assert not manifest.has_pending
    assert state(manifest, a) is S.FREE
    assert len(manifest) == 0


def test_deleting_what_is_not_there_is_nothing(manifest):
    manifest.publish_deletion(G)
    assert not manifest.has_pending


def test_a_deleted_blob_needs_a_flush_and_then_its_slot_waits_for_one_group_more(manifest):
    a = frame(manifest)
    commit(manifest, 1, (G, a))
    manifest.publish_deletion(G)
    assert manifest.find(G) is None
    assert manifest.has_pending
    flush(manifest, 2)
    assert state(manifest, a) is S.RETIRED
    commit(manifest, 3, (K, frame(manifest)))
    assert state(manifest, a) is S.FREE


def test_guids_are_those_that_a_read_would_find(manifest):
    commit(manifest, 1, (G, frame(manifest)))
    frozen = manifest.freeze()
    commit(manifest, 2, (K, frame(manifest)), deletes=[G])
    new = b"N" * 16
    manifest.publish([(new, frame(manifest))], synced=True)
    assert sorted(manifest.guids()) == sorted([K, new])
    assert [guid for guid, _ in frozen] == [G]
    manifest.thaw()
    assert not manifest.fold(2)
    assert sorted(manifest.guids()) == sorted([K, new])
    assert len(manifest) == 2


def test_a_snapshot_shows_the_durable_map_only(manifest):
    a = frame(manifest)
    commit(manifest, 1, (G, a))
    manifest.publish([(G, frame(manifest))], synced=False)
    manifest.publish([(K, frame(manifest))], synced=False)
    assert dict(manifest.freeze()) == {G: a}


def test_a_slot_that_is_taken_twice_is_named_when_a_map_is_loaded(manifest):
    assert manifest.load(Shards.of({G: pack_entry(5, 1), K: pack_entry(5, 2)}), [], 1) in (G, K)


def test_superseded_slots_of_a_loaded_map_wait_for_the_next_group(manifest):
    assert manifest.load(Shards.of({G: pack_entry(5, 1)}), [7], 3) is None
    assert manifest.slots.state(7) is S.RETIRED
    manifest.slots.confirm(3)
    assert manifest.slots.state(7) is S.FREE
