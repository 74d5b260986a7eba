"""The name of a blob: sixteen bytes, all values legal."""

from __future__ import annotations

import functools
import gc
import os
import uuid
from collections.abc import Sequence
from typing import Union

GUID_SIZE = 16


class BlobGuid(bytes):
    """A blob's key: ``bytes`` of exactly 16 bytes (the all-zero one is legal too).

    Equal to, and hashing like, the plain ``bytes`` of the same value.
    """

    __slots__ = ()

    def __new__(cls, value: GuidLike) -> BlobGuid:
        """Make a guid of 16 bytes or of a ``uuid.UUID``.

        :raises ValueError: a wrong length.
        :raises TypeError: anything that is neither ``bytes`` nor ``uuid.UUID``.
        """
        return super().__new__(cls, guid_bytes(value))

    @classmethod
    def random(cls) -> BlobGuid:
        """Return a fresh random (version 4) guid."""
        return cls(uuid.UUID(bytes=os.urandom(GUID_SIZE), version=4))

    @property
    def uuid(self) -> uuid.UUID:
        """The same sixteen bytes as a ``uuid.UUID``."""
        return uuid.UUID(bytes=bytes(self))

    def __str__(self) -> str:
        return str(self.uuid)

    def __repr__(self) -> str:
        return f"BlobGuid({str(self)!r})"


#: Makes a guid of bytes that are known to be sixteen: a quarter of the time of ``BlobGuid(value)``.
_OF_SIXTEEN = functools.partial(bytes.__new__, BlobGuid)


#: So many make the collector walk over them at once.
_MANY = 512


def known_guids(values: Sequence[bytes]) -> list[BlobGuid]:
    """Return guids for ``values``, of which each is known to be sixteen bytes: nothing is checked.

    CPython counts each as something that may be part of a cycle.  Of a hundred thousand its collector
    made one walk of 15 ms and many short ones, and nothing in them can be garbage.  So it rests
    meanwhile, and then takes them for old, without a look (as it does with what is young beside them).
    """
    if len(values) < _MANY or not gc.isenabled():
        return list(map(_OF_SIXTEEN, values))
    try:
        gc.disable()
        # One step of the interpreter's: no other thread runs meanwhile, and no signal handler.
        made = list(map(_OF_SIXTEEN, values))
    finally:
        gc.enable()
    if not gc.get_freeze_count():  # who froze something wants it to stay so
        gc.freeze()
        gc.unfreeze()
    return made


#: What every method that takes a guid takes.
GuidLike = Union[BlobGuid, bytes, uuid.UUID]


def guid_bytes(value: GuidLike) -> bytes:
    """Return the sixteen plain bytes that ``value`` stands for.

    :raises ValueError: ``bytes`` of a wrong length.
    :raises TypeError: anything that is neither ``bytes`` nor ``uuid.UUID``.
    """
    if isinstance(value, bytes):
        if len(value) != GUID_SIZE:
            raise ValueError(f"a guid has {GUID_SIZE} bytes, not {len(value)}")
        return value
    if isinstance(value, uuid.UUID):
        return value.bytes
    raise TypeError(f"a guid is {GUID_SIZE} bytes or a uuid.UUID, not {type(value).__name__}")
