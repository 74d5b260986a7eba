"""What the remote store asks of an object store: a handful of requests on the keys under one prefix.

``docs/remote-format.md`` says what each request must promise, and what breaks where it does not.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Union, runtime_checkable

if TYPE_CHECKING:
    from uringblob.buffers.views import BlobBuffer

#: What is put: anything with the buffer protocol that is C-contiguous.
Buffer = Union[bytes, bytearray, memoryview, "BlobBuffer", Any]


class KeyMissing(Exception):
    """There is no object under this key."""


class KeyTaken(Exception):
    """``create`` was refused: there is an object under this key, which may be one's own after a lost answer."""


class KeyChanged(Exception):
    """``replace`` was refused: the object has another ETag, or is gone; it may be one's own doing."""


class BucketError(OSError):
    """Any other failure of a request: ``errno``, and a message with what to do.

    ``maybe_done`` is true where the request may have been carried out, or may still be.
    """

    def __init__(self, errno: int, message: str, *, maybe_done: bool = False) -> None:
        super().__init__(errno, message)
        self.maybe_done = maybe_done


@dataclasses.dataclass(frozen=True)
class Listed:
    """One object of a listing."""

    key: str
    size: int
    #: When it was made, by the bucket's clock; with a time zone.
    modified: dt.datetime


@runtime_checkable
class Bucket(Protocol):
    """Objects under one prefix of a bucket: what the remote store asks of an engine.

    Keys are relative to the prefix.  Each call belongs to the caller's event loop; any number may be
    in flight.  A buffer given belongs to the call until it ends.  A cancelled call may have been carried
    out, or may be later.
    """

    name: str  #: for messages: s3://bucket/prefix

    async def get(self, key: str) -> tuple[bytes | memoryview, str]:
        """Return the object's body, as flat bytes that never change, and ETag.  :raises KeyMissing: there is none."""
        ...

    async def put(self, key: str, body: Buffer) -> None:
        """Make or overwrite the object: for immutable content under a fresh name, and for leases."""
        ...

    async def create(self, key: str, body: Buffer) -> None:
        """Make the object if there is none.  :raises KeyTaken: there is one."""
        ...

    async def replace(self, key: str, body: Buffer, etag: str) -> str:
        """Replace the object that has this ETag; return the new ETag.  :raises KeyChanged: it has another."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete the objects; a missing key is no error."""
        ...

    def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """Iterate over the objects whose keys begin with ``prefix`` and are greater than ``after``, ascending."""
        ...

    async def aclose(self) -> None:
        """End the connections."""
        ...


@runtime_checkable
class FrameBucket(Protocol):
    """What a :class:`Bucket` may do besides: ``get`` of an object whose size is known, for less."""

    async def get_frame(self, key: str, size: int) -> bytes | memoryview:
        """Return the object's first ``size`` bytes, or all if it has fewer, as ``get`` does."""
        ...
