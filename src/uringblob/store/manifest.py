"""Which slot holds which blob: what readers see, what is durable, and what lies between.

Pure: it decides and remembers, it never reads or writes.  Two layers answer every question:

* ``durable``: guid to packed entry (slot and checksum), exactly what the log's durable groups
  say.  A snapshot is taken of this layer only, so an unflushed mapping never becomes confirmed.
* ``pending``: what ``write_blob`` and ``delete_blob`` did and no durable group holds yet;
  it wins over the durable layer for readers.

The durable layer can be *frozen* while a snapshot of it is written: then changes go to a
``delta`` beside it, so that the frozen part may be iterated at leisure and nothing is copied
(2,000,000 entries are about 290 MB as a plain dict of ``bytes`` to int on CPython 3.11; a copy
of it would stall every reader).
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator

from uringblob.store.format import entry_slot
from uringblob.store.slots import SlotState, SlotTable

_PENDING = SlotState.PENDING
_LIVE = SlotState.LIVE


class Pending:
    """One visible change that no durable group holds: a new frame, or a deletion (``None``)."""

    __slots__ = ("entry", "grouped", "synced")

    def __init__(self, entry: int | None, *, synced: bool) -> None:
        self.entry = entry
        self.synced = synced  #: the frame's bytes are on the medium already
        self.grouped = False  #: a group in flight carries this change


class Change:
    """What one group does to one guid.

    ``pending`` is the pending change it makes durable (from ``flush``), ``replaces`` the pending
    change that it overrules (from ``commit``).
    """

    __slots__ = ("entry", "pending", "replaces")

    def __init__(
        self, entry: int | None, pending: Pending | None = None, replaces: Pending | None = None
    ) -> None:
        self.entry = entry
        self.pending = pending
        self.replaces = replaces


class Manifest:
    """The map from guid to slot, over a :class:`SlotTable`."""

    def __init__(self, slots: SlotTable) -> None:
        self.slots = slots
        self._base: dict[bytes, int] = {}
        self._delta: dict[bytes, int | None] | None = None
        self._pending: dict[bytes, Pending] = {}
        self._in_flight: Container[bytes] = ()  # the guids of the group being written
        self._live = 0  # visible blobs

    def __repr__(self) -> str:
        frozen = "" if self._delta is None else f" delta={len(self._delta)}"
        return f"<Manifest blobs={self._live} pending={len(self._pending)}{frozen} {self.slots!r}>"

    # --- questions -----------------------------------------------------------------------

    def find(self, guid: bytes) -> int | None:
        """Return the packed entry that a read beginning now sees, or ``None``."""
        pending = self._pending.get(guid)
        if pending is not None:
            return pending.entry
        # find_durable(), written out for the common case: every read begins here.
        return self._base.get(guid) if self._delta is None else self.find_durable(guid)

    def find_durable(self, guid: bytes) -> int | None:
        """Return the packed entry that survives a crash now, or ``None``."""
        delta = self._delta  # once: another thread may be asking
        if delta is not None:
            found = delta.get(guid, -1)
            if found != -1:
                return found
        return self._base.get(guid)

    def knows(self, guid: bytes) -> bool:
        """Whether any layer has ``guid``: if not, a deletion has nothing to make durable.

        A blob that is deleted and not flushed is invisible, and yet a crash now would bring it back.
        """
        return guid in self._pending or self.find_durable(guid) is not None

    def __len__(self) -> int:
        return self._live

    @property
    def has_pending(self) -> bool:
        """Whether anything visible is not durable yet."""
        return bool(self._pending)

    @property
    def pending_count(self) -> int:
        """How many visible changes are not durable yet."""
        return len(self._pending)

    def guids(self) -> list[bytes]:
        """Return the guids of all visible blobs."""
        if not self._pending and self._delta is None:
            return list(self._base)
        guids = dict.fromkeys(self._base)
        for layer in (self._delta or {}), {g: p.entry for g, p in self._pending.items()}:
            for guid, entry in layer.items():
                if entry is None:
                    guids.pop(guid, None)
                else:
                    guids[guid] = None
        return list(guids)

    # --- visible changes -----------------------------------------------------------------

    def publish(self, entries: Iterable[tuple[bytes, int]], *, synced: bool) -> None:
        """Make wholly written frames visible; the frames they replace are retired when they may.

        A whole batch in one loop: the device has nothing to do meanwhile.
        """
        pending, slots = self._pending, self.slots
        for guid, entry in entries:
            slots.move(entry_slot(entry), _PENDING)
            old = pending.get(guid)
            pending[guid] = Pending(entry, synced=synced)
            if old is None:
                self._live += self.find_durable(guid) is None
            elif old.entry is None:
                self._live += 1
            elif not old.grouped:
                self._retire_unlogged(old)

    def publish_deletion(self, guid: bytes) -> None:
        """Make ``guid`` invisible; nothing happens if it is not visible."""
        if self.find(guid) is None:
            return
        self._live -= 1
        pending = self._pending.get(guid)
        in_flight = guid in self._in_flight
        if pending is not None and not in_flight and self.find_durable(guid) is None:
            # Never logged, and no group in flight will: there is nothing left to make durable.
            # (The group in flight may carry an older frame of this guid than the pending one.)
            del self._pending[guid]
            self._retire_unlogged(pending)
        else:
            self._replace_pending(guid, Pending(None, synced=True))

    def _replace_pending(self, guid: bytes, new: Pending) -> None:
        old = self._pending.get(guid)
        self._pending[guid] = new
        if old is not None and not old.grouped:
            self._retire_unlogged(old)

    def _retire_unlogged(self, pending: Pending) -> None:
        if pending.entry is not None:
            self.slots.retire(entry_slot(pending.entry), 0)

    # --- groups --------------------------------------------------------------------------

    def pending_changes(self) -> dict[bytes, Change]:
        """Return every pending change as one group would carry it."""
        return {guid: Change(p.entry, pending=p) for guid, p in self._pending.items() if not p.grouped}

    def commit_changes(
        self, entries: Iterable[tuple[bytes, int]], deletes: Iterable[bytes]
    ) -> dict[bytes, Change]:
        """Return a commit's changes; deletions of what no layer knows are left out."""
        changes = {guid: Change(entry) for guid, entry in entries}
        for guid in deletes:
            if self.knows(guid):
                changes[guid] = Change(None)
        return changes

    def begin_group(self, changes: dict[bytes, Change]) -> None:
        """A group with ``changes`` is being written."""
        self._in_flight = changes
        for guid, change in changes.items():
            if change.pending is not None:
                change.pending.grouped = True
            else:
                change.replaces = self._pending.get(guid)

    def finish_group(self, changes: dict[bytes, Change], seq: int) -> None:
        """The group ``seq`` is durable: apply it all at once, and set its fences."""
        self._in_flight = ()
        for guid, change in changes.items():
            current, old, entry = self._pending.get(guid), self.find_durable(guid), change.entry
            before = old if current is None else current.entry
            # Durable first: a thread that asks in between must find the blob in one of the layers.
            self._store_durable(guid, entry, old, seq)
            if current is not None:
                self._settle_pending(guid, change, current)
                entry = self.find(guid)
            self._live += (entry is not None) - (before is not None)
        self.slots.confirm(seq - 1)

    def _settle_pending(self, guid: bytes, change: Change, current: Pending) -> None:
        if current is change.pending:
            del self._pending[guid]
        elif current is change.replaces and not current.grouped:
            del self._pending[guid]
            self._retire_unlogged(current)

    def _store_durable(self, guid: bytes, entry: int | None, old: int | None, seq: int) -> None:
        if entry is not None:
            self.slots.move(entry_slot(entry), _LIVE)
        if self._delta is not None:
            self._delta[guid] = entry
        elif entry is None:
            self._base.pop(guid, None)
        else:
            self._base[guid] = entry
        if old is not None:
            self.slots.retire(entry_slot(old), seq)

    def abort_group(self, changes: dict[bytes, Change]) -> None:
        """The group was wiped: its pending changes need another one, if they still stand."""
        self._in_flight = ()
        for guid, change in changes.items():
            pending = change.pending
            if pending is None:
                continue
            pending.grouped = False
            if self._pending.get(guid) is not pending:
                self._retire_unlogged(pending)

    def drop_unlogged(self, changes: Iterable[Change]) -> None:
        """Free the frames of changes that others in the same group overruled: no record names them."""
        for change in changes:
            if change.entry is not None:
                self.slots.move(entry_slot(change.entry), SlotState.FREE)

    # --- snapshots -----------------------------------------------------------------------

    def freeze(self) -> Iterator[tuple[bytes, int]]:
        """Freeze the durable map; return an iterator over it that stays valid until :meth:`thaw`."""
        if self._delta is not None:
            raise AssertionError("the durable map is frozen already")
        self._delta = {}
        return iter(self._base.items())

    def durable_count(self) -> int:
        """Return how many entries a snapshot begun now would hold."""
        return len(self._base)

    def delta(self) -> dict[bytes, int | None]:
        """Return what became durable since :meth:`freeze` (an entry, or ``None`` for deleted)."""
        return {} if self._delta is None else self._delta

    def thaw(self) -> None:
        """Fold the changes since :meth:`freeze` into the durable map."""
        delta = self.delta()
        for guid, entry in delta.items():
            if entry is None:
                self._base.pop(guid, None)
            else:
                self._base[guid] = entry
        self._delta = None

    # --- opening -------------------------------------------------------------------------

    def load(self, entries: dict[bytes, int], retired: Iterable[int], fence: int) -> bytes | None:
        """Take over the map that recovery found; ``retired`` slots wait for group ``fence``.

        Returns the guid of an entry whose slot is taken or impossible, or ``None`` if all is well.
        """
        claimed = self.slots.claim_all(map(entry_slot, entries.values()), SlotState.LIVE)
        if claimed < len(entries):
            return next(itertools.islice(entries, claimed, None))
        for slot in retired:
            if self.slots.claim(slot, SlotState.LIVE):
                self.slots.retire(slot, fence)
        self._base = entries
        self._live = len(entries)
        return None
