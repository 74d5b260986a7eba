"""Deletions that are not uploaded yet, as blobs of the local store; which are there, and which have done their work."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from uringblob.buffers.views import Write
from uringblob.tiered.records import tombstone_frames, tombstone_name


class Tombstones:
    """The tombstones of the local store.  Each names blobs that a delete took away."""

    def __init__(self) -> None:
        #: For each blob the numbers of those that name it, also of changes under way.
        self.by_guid: dict[bytes, tuple[int, ...]] = {}
        #: Those that are visible, and what they name.
        self.there: dict[int, list[bytes]] = {}
        #: Those of them whose deletions are uploaded.
        self.obsolete: set[int] = set()
        self._numbers = itertools.count(1)

    def adopt(self, found: Mapping[int, list[bytes]]) -> None:
        """Begin with those that an earlier process has left."""
        for number, guids in found.items():
            self._name(number, guids)
        self.there.update(found)
        self._numbers = itertools.count(1 + max(found, default=0))

    def new(self, guids: Sequence[bytes], page_size: int) -> tuple[dict[int, list[bytes]], list[Write]]:
        """Return new ones that name ``guids``, and the writes that make them."""
        made: dict[int, list[bytes]] = {}
        writes: list[Write] = []
        for part, frame in tombstone_frames(guids, page_size):
            number = next(self._numbers)
            made[number] = part
            writes.append((tombstone_name(number), frame))
            self._name(number, part)
        return made, writes

    def settle(self, number: int, guids: list[bytes], *, there: bool) -> None:
        """Note whether the change that made one has put it there."""
        if there:
            self.there[number] = guids
        else:
            self._forget(number, guids)

    def uploaded(self, numbers: Iterable[int]) -> None:
        """Note that the remote store lacks what these name, or has what was written since."""
        self.obsolete.update(number for number in numbers if number in self.there)

    def removed(self, numbers: Iterable[int]) -> None:
        """Note obsolete ones that are not there any more."""
        for number in numbers:
            self.obsolete.discard(number)
            self._forget(number, self.there.pop(number))

    def _name(self, number: int, guids: Iterable[bytes]) -> None:
        for guid in guids:
            self.by_guid[guid] = (*self.by_guid.get(guid, ()), number)

    def _forget(self, number: int, guids: Iterable[bytes]) -> None:
        for guid in guids:
            others = tuple(other for other in self.by_guid[guid] if other != number)
            if others:
                self.by_guid[guid] = others
            else:
                del self.by_guid[guid]
