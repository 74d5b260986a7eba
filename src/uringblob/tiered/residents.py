"""Which frames are local, and which of them is evicted next: CLOCK, and the limit.  Pure."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable

from uringblob.errors import BlobStoreIOError


class Residents:
    """The names whose frames the local store has, as a clock.

    The order of the ``dict`` is the circle, its beginning the hand.  A frame that was used since the hand
    last passed it is passed once more; otherwise it is evicted, if it may be.

    :param frames_max: the limit; ``None``: there is none, and nothing is evicted.
    """

    def __init__(self, frames_max: int | None) -> None:
        self.frames_max = frames_max
        #: Each name, and whether it was used since the hand passed it.
        self.used: dict[bytes, bool] = {}
        #: Frames that changes under way may add.
        self.reserved = 0

    def __len__(self) -> int:
        return len(self.used)

    def add(self, guids: Iterable[bytes]) -> None:
        """Note frames that are local now; they are used the first time when they are read."""
        for guid in guids:
            self.used.setdefault(guid, False)

    def remove(self, guids: Iterable[bytes]) -> None:
        """Note frames that are not local any more."""
        for guid in guids:
            self.used.pop(guid, None)

    def excess(self, more: int) -> int:
        """Return how many frames have to go before ``more`` come."""
        if self.frames_max is None:
            return 0
        return max(0, len(self.used) + self.reserved + more - self.frames_max)

    def check_fits(self, more: int, page_size: int) -> None:
        """Raise what :meth:`no_room` returns if ``more`` frames at once are beyond the limit."""
        if self.frames_max is not None and more > self.frames_max:
            raise self.no_room(f"one change adds {more} frames", page_size)

    def no_room(self, why: str, page_size: int) -> BlobStoreIOError:
        """Return the error of a change for which there is no room."""
        limit = (self.frames_max or 0) * page_size
        return BlobStoreIOError(
            errno.ENOSPC,
            f"the tier has no room in max_local_bytes={limit}: {why}: raise it, or try again later",
        )

    def victims(self, count: int, may_go: Callable[[bytes], bool]) -> list[bytes]:
        """Move the hand until ``count`` victims are found, or it has passed every frame twice."""
        found: list[bytes] = []
        for _ in range(2 * len(self.used)):
            if len(found) == count or not self.used:
                break
            guid = next(iter(self.used))
            used = self.used.pop(guid)
            if not used and may_go(guid):
                found.append(guid)
            else:
                self.used[guid] = False
        self.used.update(dict.fromkeys(found, False))  # until they are gone
        return found
