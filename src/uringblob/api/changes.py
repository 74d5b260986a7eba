"""What a reader's ``follow()`` yields."""

from __future__ import annotations

import dataclasses

from uringblob.guid import BlobGuid


@dataclasses.dataclass(frozen=True)
class Changes:
    """What became different between two states of a store, both durable: plain data."""

    #: The number of the last durable group in the newer state.
    seq: int
    #: Blobs that were written since, and are there.
    written: tuple[BlobGuid, ...]
    #: Blobs that were deleted since, and are not there.
    deleted: tuple[BlobGuid, ...]
