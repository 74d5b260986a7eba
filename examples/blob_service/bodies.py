"""A body of any length in a frame of one length: the body, zeros, and a footer with the length.

The footer is at the frame's end, so that a body is received and sent from the frame's
beginning, and one block of 4096 bytes gives its length.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator

_FOOTER = struct.Struct("<8sQ")
_MAGIC = b"blobsrv1"

#: What HEAD reads of a frame: its last block.
TAIL_SIZE = 4096


class BodyTooLarge(Exception):
    """The body does not fit into a frame."""


class NotABody(Exception):
    """The frame was not written by this service."""


def body_size_max(page_size: int) -> int:
    """Return how many bytes fit into a frame beside the footer."""
    return page_size - _FOOTER.size


async def receive(chunks: AsyncIterator[bytes], frame: memoryview) -> int:
    """Copy a body into a frame of zeros, as it arrives, and return its length.

    :raises BodyTooLarge: it went on behind the last byte that fits.
    """
    size = 0
    size_max = body_size_max(len(frame))
    async for chunk in chunks:
        if size + len(chunk) > size_max:
            raise BodyTooLarge
        frame[size : size + len(chunk)] = chunk
        size += len(chunk)
    _FOOTER.pack_into(frame, size_max, _MAGIC, size)
    return size


def size_in(tail: memoryview, page_size: int) -> int:
    """Return the body's length, from the frame's last bytes.

    :raises NotABody: they do not.
    """
    magic, size = _FOOTER.unpack_from(tail, len(tail) - _FOOTER.size)
    if magic != _MAGIC or size > body_size_max(page_size):
        raise NotABody
    return int(size)
