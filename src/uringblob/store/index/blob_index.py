"""Which slot holds which blob: what readers see, what is durable, and what lies between.  Pure.

* ``durable``: what the durable groups in the log say (:mod:`uringblob.store.index.durable_map`).
* ``pending``: what ``write_blob`` and ``delete_blob`` did and no durable group holds.  Readers look
  here first.
* A durable group becomes visible in one step (:meth:`BlobIndex.show_group`): its changes are a third
  layer until each of them is in the other two.

Only :meth:`BlobIndex.load` takes time that grows with the number of blobs; work on many guids can be done
a few at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator
from zlib import crc32

from uringblob.store.format import CHECKSUM_BITS, entry_slot
from uringblob.store.index.changes import Change, Changing, Pending, list_or_not
from uringblob.store.index.durable_map import DurableMap
from uringblob.store.index.moments import Moment, Moments
from uringblob.store.index.shards import MASK, PARTS, Mapped, Shards
from uringblob.store.index.slot_states import SlotState
from uringblob.store.index.slots import SlotTable

_PENDING = SlotState.PENDING
_LIVE = SlotState.LIVE


class BlobIndex(DurableMap):
    """The map from guid to slot, over a :class:`SlotTable`."""

    def __init__(self, slots: SlotTable) -> None:
        super().__init__(slots)
        self._pending: Shards[Pending] = Shards()
        self._in_flight: Container[bytes] = ()  # the guids of the group being written or applied
        self._applying: Mapped[Change] | None = None  # a durable group that is not in the layers yet
        self.moments = Moments()
        self.seq = 0  #: of the last durable group that is visible
        self._live = 0  # visible blobs

    # --- questions -----------------------------------------------------------------------

    def find(self, guid: bytes) -> int | None:
        """Return the packed entry that a read beginning now sees, or ``None``."""
        at = crc32(guid) & MASK
        pending = self._pending.parts[at].get(guid)
        applying = self._applying
        if applying is not None:
            return self._find_with(guid, pending, applying.get(guid))
        if pending is not None:
            return pending.entry
        # find_durable(), written out for the common case: every read begins here.
        return self._base.parts[at].get(guid) if self._delta is None else self.find_durable(guid)

    def _find_with(self, guid: bytes, pending: Pending | None, change: Change | None) -> int | None:
        if change is not None and (
            pending is None or pending is change.pending or pending is change.replaces
        ):
            return change.entry
        return self.find_durable(guid) if pending is None else pending.entry

    def find_below(self, guid: bytes) -> int | None:
        """Return what :meth:`find` does, but for a group that is being applied; in any thread."""
        pending = self._pending.get(guid)
        return self.find_durable(guid) if pending is None else pending.entry

    def exists_in_any_layer(self, guid: bytes) -> bool:
        """Whether any layer has ``guid``; if none has, a deletion has nothing to make durable.

        An unflushed deletion hides a blob that a crash now would bring back.
        """
        return guid in self._pending or guid in self._in_flight or self.find_durable(guid) is not None

    def __len__(self) -> int:
        return self._live

    @property
    def pending_count(self) -> int:
        """Visible changes that are not durable yet."""
        return len(self._pending)

    def guids(self) -> list[bytes]:
        """Return the guids of all visible blobs, in one step."""
        return self.names(0, PARTS, None)

    @property
    def applying(self) -> bool:
        """Whether a group is visible and not in the layers yet; names and new moments need its end."""
        return self._applying is not None

    def names(self, first: int, stop: int, moment: Moment | None) -> list[bytes]:
        """Return the visible guids of the parts from ``first`` to ``stop``, as they were at ``moment``."""
        if (moment is None or not moment.entries) and not self._pending and self._delta is None:
            return list(itertools.chain.from_iterable(self._base.parts[first:stop]))
        names: list[bytes] = []
        for part in range(first, stop):
            guids = dict.fromkeys(self._base.parts[part])
            if self._delta is not None:
                for guid, entry in self._delta.parts[part].items():
                    list_or_not(guids, guid, listed=entry is not None)
            for guid, pending in self._pending.parts[part].items():
                list_or_not(guids, guid, listed=pending.entry is not None)
            if moment is not None:
                for guid, entry in moment.entries.parts[part].items():
                    list_or_not(guids, guid, listed=entry is not None)
            names.extend(guids)
        return names

    # --- visible changes -----------------------------------------------------------------

    def publish(self, entries: Iterable[tuple[bytes, int]], *, synced: bool) -> None:
        """Make wholly written frames visible, and retire unlogged frames that they replace."""
        pending, slots = self._pending, self.slots
        for guid, entry in entries:
            if self.moments.open:
                self.moments.remember(guid, self.find_below(guid))
            slots.move(entry >> CHECKSUM_BITS, _PENDING)
            old = pending.get(guid)
            pending[guid] = Pending(entry, synced=synced)
            if old is None:
                self._live += self.find_durable(guid) is None
            elif old.entry is None:
                self._live += 1
            elif not old.grouped:
                self._retire_unlogged(old)

    def publish_deletion(self, guid: bytes) -> None:
        """Make ``guid`` invisible if it is visible."""
        if self.find(guid) is None:
            return
        if self.moments.open:
            self.moments.remember(guid, self.find_below(guid))
        pending = self._pending.get(guid)
        # Not find(): a change that is being applied is counted when it is in the layers.
        counted = self.find_durable(guid) if pending is None else pending.entry
        self._live -= counted is not None
        in_flight = guid in self._in_flight
        if pending is not None and not in_flight and self.find_durable(guid) is None:
            # Never logged, and not in flight either: there is nothing to make durable.
            del self._pending[guid]
            self._retire_unlogged(pending)
        else:
            self._pending[guid] = Pending(None, synced=True)
            if pending is not None and not pending.grouped:
                self._retire_unlogged(pending)

    def _retire_unlogged(self, pending: Pending) -> None:
        if pending.entry is not None:
            self.slots.retire(entry_slot(pending.entry), 0)

    # --- groups --------------------------------------------------------------------------

    def is_shown(self, guid: bytes, entry: int) -> bool:
        """Whether an open snapshot shows ``entry`` of ``guid``: its slot stays in use if the blob is moved."""
        return any(moment.holds and moment.find(guid) == entry for moment in self.moments.open)

    def pending_changes(self) -> Iterator[tuple[bytes, Change]]:
        """Yield every pending change as a group carries it; changes may be made meanwhile."""
        for part in filter(None, self._pending.parts):
            for guid, pending in list(part.items()):
                # A newer change may have replaced it since the part was copied.
                if not pending.grouped and part.get(guid) is pending:
                    yield guid, Change(pending.entry, pending=pending)

    def commit_changes(
        self, entries: Iterable[tuple[bytes, int]], deletes: Iterable[bytes]
    ) -> Iterator[tuple[bytes, Change]]:
        """Yield a commit's changes; deletions of what no layer has are left out."""
        for guid, entry in entries:
            yield guid, Change(entry)
        for guid in deletes:
            if self.exists_in_any_layer(guid):
                yield guid, Change(None)

    def begin_group(self, changes: Mapped[Change]) -> None:
        """Begin a group with ``changes``; :meth:`join_group` may add to them."""
        self._in_flight = changes
        for guid, change in changes.items():
            self._mark(guid, change)

    def join_group(self, changes: Mapped[Change], guid: bytes, change: Change) -> Change | None:
        """Add ``change`` to the group that was begun; return the change that it supersedes.

        A commit supersedes a flush, because the pending change was made before the commit ends.  So the
        changes of commits join first, and those of a flush only where no commit's has.  A moved frame is
        superseded itself where anything has changed its blob.
        """
        superseded_change = changes.get(guid)
        if change.moves is not None and (
            superseded_change is not None
            or guid in self._pending
            or self.find_durable(guid) is not change.moves  # an equal one may have other metadata
        ):
            return change
        if superseded_change is not None and change.pending is not None:
            return None
        changes[guid] = change
        self._mark(guid, change)
        return superseded_change

    def find_in_group(self, guid: bytes, change: Change | None, successor: Change | None) -> int | None:
        """Return what is visible with ``change`` of a forming group: when ``successor`` joined, or now."""
        pending = self._pending.get(guid) if successor is None else successor.replaces
        return self._find_with(guid, pending, change)

    def _mark(self, guid: bytes, change: Change) -> None:
        if change.pending is not None:
            change.pending.grouped = True
        else:
            change.replaces = self._pending.get(guid)

    def finish_group(self, changes: Mapped[Change], seq: int) -> None:
        """Apply the durable group ``seq`` in one step."""
        live = [entry >> CHECKSUM_BITS for change in changes.values() if (entry := change.entry) is not None]
        self.slots.move_each(live, _LIVE)
        if self.slots.births is not None:
            self.slots.births.update(dict.fromkeys(live, seq))
        self._applying = changes  # visible from here on
        self.seq, base, superseded = seq, self._base, list[int]()
        plain = self._delta is None and not self._pending.count and not self.moments.open
        for guid, change in changes.items():
            if not plain:
                self.apply_change(guid, change, seq)
                continue
            # The same, where there is neither a delta nor a pending change, nor a moment.
            entry, part = change.entry, base.parts[crc32(guid) & MASK]
            old = part.get(guid)
            if entry is None:
                base.discard(guid)
                self._live -= old is not None
            elif old is None:
                part[guid] = entry
                base.count += 1
                self._live += 1
            else:
                part[guid] = entry
            if old is not None:
                superseded.append(old >> CHECKSUM_BITS)
        self.slots.retire_each(superseded, seq)
        self._in_flight = ()
        self._applying = None

    def begin_commits(
        self, changes: dict[bytes, Change], superseded: list[Change], commits: Iterable[Changing]
    ) -> None:
        """Begin a group of commits only: their changes to ``changes``, what they supersede to ``superseded``."""
        self._in_flight = changes
        pending = self._pending if self._pending.count else None
        for commit in commits:
            entries: Iterable[tuple[bytes, int | None]] = commit.entries
            if commit.deletes:
                doomed = filter(self.exists_in_any_layer, commit.deletes)
                entries = itertools.chain(entries, zip(doomed, itertools.repeat(None)))
            for guid, entry in entries:
                if guid in changes:
                    superseded.append(changes[guid])
                changes[guid] = Change(entry, None, None if pending is None else pending.get(guid))

    def mark_slot_live(self, change: Change) -> None:
        """Mark the slot that ``change`` names as live: its group is durable.  Before :meth:`show_group`."""
        if change.entry is not None:
            self.slots.move(entry_slot(change.entry), _LIVE)

    def show_group(self, changes: Mapped[Change]) -> None:
        """Make a durable group visible in one step, when its slots are live.

        Call :meth:`apply_change` with each change, in any number of steps while nothing is listed and no
        moment begins, and then :meth:`end_group`.  Other changes may be made meanwhile.
        """
        self._applying = changes

    def apply_change(self, guid: bytes, change: Change, seq: int) -> None:
        """Put a change of the shown group into the layers."""
        current, old, entry = self._pending.get(guid), self.find_durable(guid), change.entry
        before = old if current is None else current.entry
        if self.moments.open and before != entry:
            self.moments.remember(guid, before)
        if entry is not None and self.slots.births is not None:
            self.slots.births[entry_slot(entry)] = seq
        self._store_durable(guid, entry, old, seq)
        if current is not None:
            entry = self._end_pending(guid, change, current)
        self._live += (entry is not None) - (before is not None)

    def end_group(self) -> None:
        """End the group, when all of its changes were applied, or all aborted."""
        self._in_flight = ()
        self._applying = None

    def _end_pending(self, guid: bytes, change: Change, current: Pending) -> int | None:
        """Remove the pending change that ``change`` ends; return what is visible then."""
        if current is change.replaces and not current.grouped:
            self._retire_unlogged(current)
        elif current is not change.pending:
            return current.entry
        del self._pending[guid]
        return change.entry

    def abort_change(self, guid: bytes, change: Change) -> None:
        """Detach ``change`` from its group, which was given up; its pending change joins a later one.

        If a newer change has replaced the pending one, its frame is retired.  :meth:`end_group` comes after
        the last change.
        """
        pending = change.pending
        if pending is not None:
            pending.grouped = False
            if self._pending.get(guid) is not pending:
                self._retire_unlogged(pending)

    def free_superseded(self, change: Change) -> None:
        """Free the frame of a change that another in its group superseded: no record names it."""
        if change.entry is not None:
            self.slots.move(entry_slot(change.entry), SlotState.FREE)

    # --- opening -------------------------------------------------------------------------

    def load(self, entries: Shards[int], retired: Iterable[int], fence: int) -> bytes | None:
        """Take over the map that recovery found; ``retired`` slots wait for group ``fence``.

        Returns the guid of an entry whose slot is taken or impossible, or ``None``.
        """
        marked = self.slots.mark_all_used(map(entry_slot, entries.values()), _LIVE)
        if marked < len(entries):
            return next(itertools.islice(entries, marked, None))
        self.slots.count_metas(entries.values())
        for slot in retired:
            if self.slots.mark_used(slot, _LIVE):
                self.slots.retire(slot, fence)
        self._base = entries
        self._live = len(entries)
        self.seq = fence
        return None
