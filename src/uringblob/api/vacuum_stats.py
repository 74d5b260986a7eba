"""``VacuumStats``: what ``vacuum()`` gave back."""

from __future__ import annotations

import dataclasses
import math

from uringblob.errors import BlobStoreError
from uringblob.guid import BlobGuid


@dataclasses.dataclass(frozen=True)
class VacuumStats:
    """What one call of ``vacuum()`` did."""

    #: Frames that were moved to a lower place in the file.
    moved: int
    #: Bytes that the file system got back: those cut off the file, and those of punched holes.
    bytes_freed: int
    #: Whether it came to its end; false: ``max_time`` was over first, and another call goes on.
    done: bool
    #: Blobs whose frames were to be moved and are not what was written, or cannot be read; they stay.
    bad: tuple[tuple[BlobGuid, BlobStoreError], ...] = ()

    def __str__(self) -> str:
        text = f"{self.moved} frames moved, {self.bytes_freed} bytes given back"
        if self.bad:
            text += f", {len(self.bad)} bad frames left where they are"
        return text if self.done else f"{text}; not finished: run it again"


def checked_max_time(max_time: float | None) -> float:
    """Return ``max_time`` in seconds; infinity for ``None``.

    :raises ValueError: it is negative, or no number.
    """
    if max_time is None:
        return math.inf
    if not max_time >= 0:
        raise ValueError(f"max_time must be 0 seconds or more, or None, not {max_time!r}")
    return max_time
