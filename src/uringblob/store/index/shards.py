"""A map from guids, in parts, so that no operation takes time that grows with the whole map.

A dict that grows is copied in one step: 10 ms with 87,000 entries, 146 ms with 1,400,000 (CPython
3.11); and a walk over it allows no change meanwhile.  So the entries are spread over :data:`PARTS`
dicts by the CRC of their guids.  The price is 90 ns a lookup.  Few changes of one group are a plain
dict (:func:`mapping_for`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar, Union
from zlib import crc32

V = TypeVar("V")

#: With two million entries a part has 3,900 of them.
PARTS = 512
#: The last bits of a guid's CRC are its part, in every process the same.
MASK = PARTS - 1
#: A plain dict of so many entries still grows in half a millisecond.
FEW = 4096


class Shards(Generic[V]):
    """A dict in :data:`PARTS` parts.  Any thread may call :meth:`get`."""

    __slots__ = ("count", "parts")

    def __init__(self) -> None:
        self.parts: list[dict[bytes, V]] = [{} for _ in range(PARTS)]
        self.count = 0  #: entries

    @classmethod
    def of(cls, entries: dict[bytes, V]) -> Shards[V]:
        """Return the same entries in parts."""
        made = cls()
        made.update(entries.items())
        return made

    def __len__(self) -> int:
        return self.count

    def __contains__(self, guid: Any) -> bool:
        return guid in self.parts[crc32(guid) & MASK]

    def get(self, guid: bytes) -> V | None:
        """Return the value of ``guid``, or ``None``."""
        return self.parts[crc32(guid) & MASK].get(guid)

    def __setitem__(self, guid: bytes, value: V) -> None:
        part = self.parts[crc32(guid) & MASK]
        before = len(part)
        part[guid] = value
        self.count += len(part) - before

    def __delitem__(self, guid: bytes) -> None:
        del self.parts[crc32(guid) & MASK][guid]
        self.count -= 1

    def discard(self, guid: bytes) -> None:
        """Remove ``guid`` if it is there."""
        if guid in self:
            del self[guid]

    def clear(self) -> None:
        """Remove all entries."""
        for part in self.parts:
            part.clear()
        self.count = 0

    def update(self, entries: Iterable[tuple[bytes, V]]) -> None:
        """Add many entries.  A store of two million blobs is opened through this loop."""
        parts, count = self.parts, self.count
        for guid, value in entries:
            part = parts[crc32(guid) & MASK]
            count -= len(part)
            part[guid] = value
            count += len(part)
        self.count = count

    # Empty parts are passed over at 5 µs for all: the simulated runs open thousands of small stores.

    def items(self) -> Iterator[tuple[bytes, V]]:
        """Iterate over all entries; a part may change its length only once the iterator has left it."""
        return itertools.chain.from_iterable(part.items() for part in filter(None, self.parts))

    def values(self) -> Iterator[V]:
        """Iterate over all values, as :meth:`items` does."""
        return itertools.chain.from_iterable(part.values() for part in filter(None, self.parts))

    def __iter__(self) -> Iterator[bytes]:
        return itertools.chain.from_iterable(filter(None, self.parts))


#: A map as large as one call's arguments, or one group.
Mapped = Union[dict[bytes, V], Shards[V]]


def mapping_for(count: int) -> Mapped[V]:
    """Return an empty map for up to ``count`` entries."""
    return {} if count <= FEW else Shards()
