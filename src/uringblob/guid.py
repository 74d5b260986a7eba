"""The name of a blob: sixteen bytes, all values legal."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import uuid
from collections.abc import Sequence
from typing import Union

from uringblob.untracked import untracked

__all__ = ["BlobGuid", "GuidLike", "guid_bytes", "is_guid_text", "known_guids"]

GUID_SIZE = 16

#: ``uuid.UUID`` takes more (hyphens anywhere, ``0x``, ``_`` between digits), so a typing error would be a guid.
_TEXT = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def is_guid_text(text: str) -> bool:
    """Whether ``text`` is 32 hex digits, or 8-4-4-4-12 of them."""
    return _TEXT.fullmatch(text) is not None


@untracked
class BlobGuid(bytes):
    """A blob's key: ``bytes`` of exactly 16 bytes (the all-zero one is legal too).

    Equal to, and hashing like, the plain ``bytes`` of the same value.
    """

    __slots__ = ()

    def __new__(cls, value: GuidLike | str) -> BlobGuid:
        """Make a guid from 16 bytes, a ``uuid.UUID``, or text: 32 hex digits, or 8-4-4-4-12 of them.

        :raises ValueError: a wrong length, or another text.
        :raises TypeError: anything else.
        """
        if isinstance(value, str):
            if not is_guid_text(value):
                raise ValueError(
                    f"{value!r} is no guid: give {2 * GUID_SIZE} hex digits, or 8-4-4-4-12 of them, "
                    "or make one of any name with BlobGuid.of(name)"
                )
            value = bytes.fromhex(value.replace("-", ""))
        return bytes.__new__(cls, guid_bytes(value))

    @classmethod
    def random(cls) -> BlobGuid:
        """Return a fresh random (version 4) guid."""
        return cls(uuid.UUID(bytes=os.urandom(GUID_SIZE), version=4))

    @classmethod
    def of(cls, text: str) -> BlobGuid:
        """Return the guid for a name of any length, the same one always and everywhere.

        It is the first 16 bytes of the SHA-256 of the text's UTF-8 bytes, so names that differ in
        case or in Unicode normalisation have different guids.  A path from :func:`os.listdir` whose
        bytes are no UTF-8 is hashed as these bytes.  In a shell:
        ``printf %s NAME | sha256sum | cut -c-32``.

        >>> str(BlobGuid.of("frames/0001.raw"))
        'f29eea62-d0f6-01b0-dfb4-1981a30b6cad'

        :raises TypeError: not a ``str``.
        """
        if not isinstance(text, str):
            raise TypeError(f"BlobGuid.of() hashes a str, not {type(text).__name__}: decode bytes first")
        return cls(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:GUID_SIZE])

    @property
    def uuid(self) -> uuid.UUID:
        """The same sixteen bytes as a ``uuid.UUID``."""
        return uuid.UUID(bytes=bytes(self))

    def __str__(self) -> str:
        return str(self.uuid)

    def __repr__(self) -> str:
        return f"BlobGuid({str(self)!r})"


#: Makes a guid without a check, in a quarter of the time of ``BlobGuid(value)``.
_OF_SIXTEEN = functools.partial(bytes.__new__, BlobGuid)


def known_guids(values: Sequence[bytes]) -> list[BlobGuid]:
    """Return guids for ``values``, each of which is known to be sixteen bytes: nothing is checked."""
    return list(map(_OF_SIXTEEN, values))


#: The type of every guid argument.
GuidLike = Union[BlobGuid, bytes, uuid.UUID]


def guid_bytes(value: GuidLike) -> bytes:
    """Return the sixteen bytes of ``value``.

    :raises ValueError: ``bytes`` of a wrong length.
    :raises TypeError: anything that is neither ``bytes`` nor ``uuid.UUID``.
    """
    if isinstance(value, bytes):
        if len(value) != GUID_SIZE:
            raise ValueError(f"a guid has {GUID_SIZE} bytes, not {len(value)}")
        return value
    if isinstance(value, uuid.UUID):
        return value.bytes
    raise _wrong_type(value)


def _wrong_type(value: object) -> TypeError:
    hint = ""
    if isinstance(value, str):
        hint = ": use BlobGuid(text) for one in hex, BlobGuid.of(name) for any name"
    elif isinstance(value, int):  # an item of a single guid
        hint = ": where several are wanted, give a list of them"
    return TypeError(f"a guid is {GUID_SIZE} bytes or a uuid.UUID, not {type(value).__name__}{hint}")
