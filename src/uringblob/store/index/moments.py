"""What was visible at one moment, kept while the index changes: for listings and for snapshots.  Pure.

A change is recorded in every open moment before it is made: the entry that was visible until then.  So a
question goes to the index first and to what was recorded second, in any thread: an answer of the index that
is newer than the moment is overruled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from uringblob.store.format import CHECKSUM_BITS
from uringblob.store.index.shards import Shards
from uringblob.store.index.slots import SlotTable


class Index(Protocol):
    """The index that a moment is of."""

    slots: SlotTable
    seq: int

    def find_below(self, guid: bytes) -> int | None:
        """Return the entry that is visible, but for a group that is being applied."""

    def __len__(self) -> int: ...


class Moment:
    """The entries that were visible when it began, as long as it is open.

    It never begins while a group is being applied, so no such group belongs to it.  ``holds``: the slots
    that it shows are not reused; a listing asks for names only.
    """

    __slots__ = ("_index", "count", "entries", "holds", "is_open", "seq", "slots")

    def __init__(self, index: Index, *, holds: bool) -> None:
        self._index = index
        self.slots = index.slots
        self.holds = holds
        self.seq = index.seq  #: the last durable group at or before it
        self.count = len(index)  #: visible blobs
        #: Each guid that changed since, with its entry until then.
        self.entries: Shards[int | None] = Shards()
        self.is_open = True

    def keep(self, guid: bytes, entry: int | None) -> None:
        """Record ``entry`` of ``guid``, which is about to change; what was recorded before is older, and stays."""
        if guid not in self.entries:
            if self.holds and entry is not None:
                self.slots.hold(entry >> CHECKSUM_BITS)  # first: what is recorded is held
            self.entries[guid] = entry

    def find(self, guid: bytes) -> int | None:
        """Return the packed entry of ``guid`` at this moment, or ``None``; in any thread.

        ``None``, too, once the moment is over: then its slots may be reused.
        """
        entry = self._index.find_below(guid)
        if guid in self.entries:
            entry = self.entries.get(guid)
        return entry if self.is_open else None

    def held_slots(self) -> Iterator[int]:
        """Iterate over the slots that it holds."""
        return (entry >> CHECKSUM_BITS for entry in self.entries.values() if entry is not None)


class Moments:
    """The open moments of one index."""

    def __init__(self) -> None:
        self.open: list[Moment] = []

    def begin(self, index: Index, *, holds: bool) -> Moment:
        """Begin a moment, which shows what is visible in ``index`` now until :meth:`end_moment`."""
        moment = Moment(index, holds=holds)
        self.open.append(moment)
        return moment

    def end_moment(self, moment: Moment) -> None:
        """End ``moment``; its slots are held until each of them is released."""
        moment.is_open = False
        self.open.remove(moment)

    def remember(self, guid: bytes, entry: int | None) -> None:
        """Record the visible ``entry`` of ``guid``, which is about to change."""
        for moment in self.open:
            moment.keep(guid, entry)

    @property
    def snapshots(self) -> int:
        """Moments that hold their slots."""
        return sum(moment.holds for moment in self.open.copy())
