"""The checksum of a frame: XXH3-64, about 45 µs for 512 KiB from memory, with the GIL released.

Made in C where the extension was built with ``xxhash.h``, else by the Python package ``xxhash``: the same
bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import xxhash

from uringblob import _native
from uringblob.buffers.iobuf import IoBuffer, address_of

#: A call through cffi takes 1 µs more than one of ``xxhash``: as much as C's prefetching saves on 64 KiB.
_C_BYTES_MIN: Final = 131072

_ffi = _native.ffi
_lib = _native.lib if _native.lib is not None and _native.lib.ub_has_xxh3() else None


def frame_checksum(frame: memoryview | bytes | bytearray) -> int:
    """Return the XXH3-64 of a frame's bytes: what ``store.checksum(guid)`` returns once it is written."""
    if _lib is None or _ffi is None or len(frame) < _C_BYTES_MIN:
        return xxhash.xxh3_64_intdigest(frame)
    memory = _ffi.from_buffer("char[]", frame)
    return _lib.ub_xxh3(address_of(memory), len(memory))


def frame_checksums(frames: Sequence[IoBuffer]) -> list[int]:
    """Return the checksum of each frame; C shares many of them among threads (``ub_checksum_helpers``)."""
    if _lib is None or _ffi is None:
        return [frame_checksum(frame.view) for frame in frames]
    wanted = _ffi.new("struct ub_frame[]", [(frame.address, frame.size, 0) for frame in frames])
    _lib.ub_checksum_frames(wanted, len(frames))
    return [frame.checksum for frame in wanted]


#: The same, incrementally: ``update(part)``, then ``intdigest()``.
FrameHasher = xxhash.xxh3_64
