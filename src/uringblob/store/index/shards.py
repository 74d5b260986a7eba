"""A map from guid to something else that never makes anybody wait for the whole of it.

A dict that grows is copied in one piece: with 87,000 entries that takes 10 ms, with 1,400,000 it
takes 146 (CPython 3.11), and a walk over it must not be interrupted by a change.  So the entries
are spread over :data:`PARTS` dicts, each of which grows, and is walked, by itself; a guid lies in
one of them for good.  The price is 90 ns for each look.

A group's changes are a plain dict while they are few (:func:`mapping_for`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar, Union
from zlib import crc32

V = TypeVar("V")

#: With two million entries a part has 3,900 of them.
PARTS = 512
#: The last bits of a guid's CRC say which part it lies in, in every process the same.
MASK = PARTS - 1
#: A plain dict of so many entries still grows in half a millisecond.
FEW = 4096


class Shards(Generic[V]):
    """What the store needs of a dict, in :data:`PARTS` parts.  Any thread may ask :meth:`get`."""

    __slots__ = ("_count", "parts")

    def __init__(self) -> None:
        self.parts: list[dict[bytes, V]] = [{} for _ in range(PARTS)]
        self._count = 0

    @classmethod
    def of(cls, entries: dict[bytes, V]) -> Shards[V]:
        """Return the same entries in parts."""
        made = cls()
        made.update(entries.items())
        return made

    def __len__(self) -> int:
        return self._count

    def __contains__(self, guid: Any) -> bool:
        return guid in self.parts[crc32(guid) & MASK]

    def get(self, guid: bytes) -> V | None:
        """Return what ``guid`` stands for, or ``None``."""
        return self.parts[crc32(guid) & MASK].get(guid)

    def __setitem__(self, guid: bytes, value: V) -> None:
        part = self.parts[crc32(guid) & MASK]
        before = len(part)
        part[guid] = value
        self._count += len(part) - before

    def __delitem__(self, guid: bytes) -> None:
        del self.parts[crc32(guid) & MASK][guid]
        self._count -= 1

    def discard(self, guid: bytes) -> None:
        """Forget ``guid`` if it is there."""
        if guid in self:
            del self[guid]

    def update(self, entries: Iterable[tuple[bytes, V]]) -> None:
        """Take over many entries: a store of two million blobs is opened through this loop."""
        parts, count = self.parts, self._count
        for guid, value in entries:
            part = parts[crc32(guid) & MASK]
            count -= len(part)
            part[guid] = value
            count += len(part)
        self._count = count

    def items(self) -> Iterator[tuple[bytes, V]]:
        """Walk over everything; no part may change its length before the walk has left it."""
        return itertools.chain.from_iterable(part.items() for part in self.parts)

    def values(self) -> Iterator[V]:
        """Walk over all values, as :meth:`items` does."""
        return itertools.chain.from_iterable(part.values() for part in self.parts)

    def __iter__(self) -> Iterator[bytes]:
        return itertools.chain.from_iterable(self.parts)


#: What has the length of one call's arguments, or of one group.
Mapped = Union[dict[bytes, V], Shards[V]]


def mapping_for(count: int) -> Mapped[V]:
    """Return an empty map that may come to hold ``count`` entries."""
    return {} if count <= FEW else Shards()
