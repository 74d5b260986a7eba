"""What a store knows of one blob without reading it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class BlobStat:
    """What ``stat_blob`` returns: plain data of one moment."""

    #: Bytes of the frame: the store's frame size.
    size: int
    #: The XXH3-64 of the frame, as ``checksum()`` returns it.
    checksum: int
    #: The metadata that was written with the frame; empty if there was none.
    meta: bytes
