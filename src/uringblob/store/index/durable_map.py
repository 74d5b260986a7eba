"""The durable layer of the index: guid to packed entry (slot and checksum), as the log's groups say.  Pure.

Log snapshots are taken of this layer only, so they never hold an unflushed change.  While one is written, the
layer is *frozen*: its changes go to a ``delta`` beside it.  So it can be iterated in steps, and nothing is
copied (2,000,000 entries take about 290 MB on CPython 3.11).
"""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

from uringblob.store.format import CHECKSUM_BITS, entry_meta, entry_slot, meta_cells
from uringblob.store.index.shards import MASK, Shards
from uringblob.store.index.slots import SlotTable


class DurableMap:
    """What survives a crash now, over a :class:`SlotTable`."""

    def __init__(self, slots: SlotTable) -> None:
        self.slots = slots
        self._base: Shards[int] = Shards()
        self._delta: Shards[int | None] | None = None
        self.delta_meta_cells = 0  #: at most so many cells of the log has the delta's metadata
        self._thawing = False

    def find_durable(self, guid: bytes) -> int | None:
        """Return the packed entry that survives a crash now, or ``None``."""
        delta = self._delta  # read once: another thread may replace it
        if delta is not None:
            found = delta.parts[crc32(guid) & MASK].get(guid, -1)
            if found != -1:
                return found
        return self._base.get(guid)

    def durable_between(self, part: int, low: int, high: int) -> Iterator[tuple[bytes, int]]:
        """Yield the durable entries of ``part`` whose slots are from ``low`` to below ``high``."""
        layers = [self._base.parts[part]]
        if self._delta is not None:
            delta = self._delta.parts[part]
            layers.append({guid: entry for guid, entry in delta.items() if entry is not None})
        first, stop = low << CHECKSUM_BITS, high << CHECKSUM_BITS
        for layer in layers:
            yield from [(guid, entry) for guid, entry in layer.items() if first <= entry < stop]

    # --- changes of durable groups ---------------------------------------------------------

    def _store_durable(self, guid: bytes, entry: int | None, old: int | None, seq: int) -> None:
        if self._delta is not None and not self._thawing:
            self._delta[guid] = entry
            self.delta_meta_cells += 0 if entry is None else meta_cells(entry_meta(entry))
        else:
            self._store_in_base(guid, entry)
            if self._delta is not None:
                self._delta.discard(guid)
        if old is not None:
            self.slots.retire(entry_slot(old), seq)

    def _store_in_base(self, guid: bytes, entry: int | None) -> None:
        if entry is None:
            self._base.discard(guid)
        else:
            self._base[guid] = entry

    # --- snapshots of the log ---------------------------------------------------------------

    def freeze(self) -> Iterator[tuple[bytes, int]]:
        """Freeze the durable layer; return an iterator over it that stays valid until :meth:`thaw`."""
        if self._delta is not None:
            raise AssertionError("the durable map is frozen already")
        self._delta = Shards()
        self.delta_meta_cells = 0
        return self._base.items()

    def durable_count(self) -> int:
        """Return how many entries a snapshot holds that begins now."""
        return len(self._base)

    def delta(self) -> Shards[int | None]:
        """Return what became durable since :meth:`freeze`: an entry, or ``None`` for deleted."""
        return Shards() if self._delta is None else self._delta

    def thaw(self) -> None:
        """Let the durable layer change again; :meth:`fold` merges the delta into it."""
        self._thawing = bool(self._delta)
        if not self._delta:
            self._delta = None

    def fold(self, count: int) -> bool:
        """Merge up to ``count`` changes of the delta into the thawed layer; return whether there are more."""
        delta = self._delta
        if delta is None or not self._thawing:
            return False
        for part in delta.parts:
            while part and count:
                # The last key, because a dict finds its first one more slowly the more are gone.  Stored
                # before it is deleted: reading threads must find it in one of the two.
                guid = next(reversed(part))
                self._store_in_base(guid, part[guid])
                del delta[guid]
                count -= 1
        if delta:
            return True
        self._delta, self._thawing = None, False
        return False

    # --- a reader that moves on ------------------------------------------------------------

    def differing(self, part: int, entries: dict[bytes, int]) -> Iterator[tuple[bytes, int | None]]:
        """Yield what makes a part of the durable map, which is not frozen, the same as ``entries``."""
        mine = self._base.parts[part]
        for guid, entry in entries.items():
            if mine.get(guid) != entry:
                yield guid, entry
        for guid in mine:
            if guid not in entries:
                yield guid, None
