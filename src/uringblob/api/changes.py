"""What a reader's ``follow()`` yields."""

from __future__ import annotations

import dataclasses

from uringblob.guid import BlobGuid


@dataclasses.dataclass(frozen=True)
class Changes:
    """What one step forward changed: plain data."""

    #: The number of the last durable group in it.
    seq: int
    #: Blobs that are new, or have another frame or metadata.
    written: tuple[BlobGuid, ...]
    #: Blobs that are gone.
    deleted: tuple[BlobGuid, ...]
