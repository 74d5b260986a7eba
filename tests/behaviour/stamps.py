"""Frames that say in every 4 KiB block which guid, which write and which block they are.

A block is its stamp repeated, so a torn block shows as well as a torn frame.
"""

from __future__ import annotations

import struct

from uringblob import BUF_ALIGN, BlobGuid

STAMP = struct.Struct("<16sQII")
REPEATS = BUF_ALIGN // STAMP.size


def stamped(guid, sequence, size):
    """Return the frame of ``size`` bytes that write number ``sequence`` gives to ``guid``."""
    mark = sequence * 2654435761 & 0xFFFFFFFF
    return b"".join(STAMP.pack(guid, sequence, block, mark) * REPEATS for block in range(size // BUF_ALIGN))


def sequence_of(guid, frame):
    """Return which write a whole frame of ``guid`` is; raise if it is torn, or another blob's."""
    data = bytes(frame)
    name, sequence, block, _ = STAMP.unpack_from(data)
    if data != stamped(guid, sequence, len(data)):
        seen = [STAMP.unpack_from(data, at) for at in range(0, len(data), BUF_ALIGN)]
        raise AssertionError(f"blob {BlobGuid(guid)} is torn or another's: its blocks say {seen}")
    return sequence


def blank(size):
    """Return room for a frame, filled with what no stamp is."""
    return bytearray(b"\xee") * size
