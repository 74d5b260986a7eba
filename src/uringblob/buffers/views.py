"""Checks of arguments: what a caller may pass where guids and frames are expected, and a frame's bytes.

Also for stores of your own: :func:`readable_view` and :func:`writable_view` make the checks that the
trait demands, before any I/O.
"""

from __future__ import annotations

import operator
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Union

from uringblob.buffers.leases import AlignedBlobBuf, frame_of, not_a_buffer
from uringblob.guid import BlobGuid, GuidLike, guid_bytes
from uringblob.units import BUF_ALIGN, META_BYTES_MAX

if TYPE_CHECKING:
    from typing_extensions import Buffer
else:
    Buffer = Any  # the name exists in collections.abc from 3.12 on; here it is only for type checkers

CHECKSUM_MAX = (1 << 64) - 1
#: ``if_checksum`` of a commit without such a condition.
NO_CHECKSUMS: Mapping[GuidLike, int] = MappingProxyType({})
#: Checksums by guids of any kind, or of one: a mapping's keys are no wider than they are declared.
Checksums = Union[
    Mapping[GuidLike, int], Mapping[BlobGuid, int], Mapping[bytes, int], Mapping[uuid.UUID, int]
]

#: A leased frame, or any C-contiguous object with the buffer protocol.
BlobBuffer = Union[AlignedBlobBuf, Buffer]

#: One write of a batch: guid and buffer, and the blob's metadata if it has some.
Write = Union[tuple[GuidLike, BlobBuffer], tuple[GuidLike, BlobBuffer, bytes]]


def readable_view(src: BlobBuffer, size: int) -> memoryview:
    """Return the ``size`` bytes of ``src`` as a flat ``memoryview`` of format ``B``.

    Use it as a context manager, so that an error's traceback does not keep the frame leased.

    :raises ValueError: ``src`` has another length, is not C-contiguous, or was released.
    :raises TypeError: ``src`` does not support the buffer protocol.
    """
    return frame_of(src, size, writable=False, pool=None).view


def writable_view(dst: BlobBuffer, size: int) -> memoryview:
    """Do what :func:`readable_view` does, for memory to be filled; read-only memory is a ``ValueError``."""
    return frame_of(dst, size, writable=True, pool=None).view


def check_readable(src: BlobBuffer, size: int) -> None:
    """Raise what :func:`readable_view` would raise."""
    readable_view(src, size).release()


def check_writable(dst: BlobBuffer, size: int) -> None:
    """Raise what :func:`writable_view` would raise."""
    writable_view(dst, size).release()


def checked_writes(
    writes: Iterable[Write], page_size: int, metas: dict[bytes, bytes] | None = None
) -> dict[bytes, BlobBuffer]:
    """Check every guid and length of a batch, and return its last write for each guid.

    ``metas`` is filled with the metadata of those that have some; without it, metadata is a ``ValueError``:
    the store keeps none.  Nothing has been applied when this raises.
    """
    latest: dict[bytes, BlobBuffer] = {}
    for write in writes:
        guid, src, meta = (*as_pair(write), b"") if metas is None else as_write(write)
        key = guid_bytes(guid)
        check_readable(src, page_size)
        latest[key] = src
        if metas is not None:
            metas.pop(key, None)
            if meta:
                metas[key] = meta
    return latest


def as_write(write: Write) -> tuple[GuidLike, BlobBuffer, bytes]:
    """Return guid, buffer and metadata of a batch's member.

    :raises TypeError: it is no tuple, or the metadata is no ``bytes``.
    :raises ValueError: it is a tuple of another length, or the metadata is too long.
    """
    if isinstance(write, tuple) and len(write) == 3:
        guid, src, meta = write
        return guid, src, checked_meta(meta)
    return (*as_pair(write), b"")


def checked_meta(meta: bytes) -> bytes:
    """Return a blob's metadata as ``bytes`` of its own.

    :raises TypeError: it is no ``bytes``, ``bytearray`` or ``memoryview``.
    :raises ValueError: it is longer than :data:`META_BYTES_MAX`.
    """
    given: object = meta
    if not isinstance(given, (bytes, bytearray, memoryview)):
        hint = ": encode it first" if isinstance(given, str) else ""
        raise TypeError(f"a blob's metadata is bytes, not {type(given).__name__}{hint}")
    copied = bytes(given)
    if len(copied) > META_BYTES_MAX:
        raise ValueError(f"a blob's metadata has at most {META_BYTES_MAX} bytes, not {len(copied)}")
    return copied


def as_pair(pair: Write) -> tuple[GuidLike, BlobBuffer]:
    """Return guid and buffer of a batch's member that has no metadata.

    :raises TypeError: it is no tuple: the batch is a ``dict`` and not its items, or one pair alone.
    :raises ValueError: it is a tuple of another length.
    """
    try:
        guid, buffer, *rest = pair
        if rest:
            raise ValueError
    except (TypeError, ValueError):
        raise _no_pair(pair) from None
    return guid, buffer


def _no_pair(given: object) -> Exception:
    text = "a batch is made of pairs (guid, buffer), or (guid, buffer, meta) where it is written, and "
    if isinstance(given, tuple):
        return ValueError(f"{text}a tuple of {len(given)} is none")
    kind = type(given).__name__
    return TypeError(f"{text}this {kind} is none: give the items() of a dict, and a single pair in a list")


def check_no_single_guid(guids: Iterable[GuidLike], name: str = "deletes") -> None:
    """Check that the argument ``name`` is not a single guid, whose bytes one by one are no guids.

    :raises TypeError: it is.
    """
    if isinstance(guids, (bytes, str, uuid.UUID)):
        raise TypeError(f"{name} holds guids, and this is a single one: write {name}=[guid]")


def guid_list(guids: Iterable[GuidLike], name: str = "deletes") -> list[GuidLike]:
    """Return the argument ``name``, which holds guids, as a list.

    :raises TypeError: it is a single guid.
    """
    check_no_single_guid(guids, name)
    return list(guids)


def checked_commit(
    writes: Iterable[Write],
    deletes: Iterable[GuidLike],
    page_size: int,
    metas: dict[bytes, bytes] | None = None,
) -> tuple[dict[bytes, BlobBuffer], list[bytes]]:
    """Check a commit's arguments as :func:`checked_writes` does, and its deletes with them.

    :raises ValueError: also for a guid that is both written and deleted.
    """
    latest = checked_writes(writes, page_size, metas)
    return latest, checked_deletes(deletes, latest)


def checked_deletes(deletes: Iterable[GuidLike], written: Container[bytes]) -> list[bytes]:
    """Check a commit's deletes against what it writes; return each guid once.

    :raises ValueError: a guid is both written and deleted.
    """
    doomed = list(dict.fromkeys(map(guid_bytes, guid_list(deletes))))
    for guid in doomed:
        if guid in written:
            raise ValueError(f"commit() both writes and deletes blob {BlobGuid(guid)}: drop one of the two")
    return doomed


def checked_conditions(
    if_absent: Iterable[GuidLike], if_checksum: Checksums
) -> Iterator[tuple[bytes, int | None]]:
    """Check a commit's conditions one by one; yield each guid, and its checksum, or ``None`` for no blob.

    :raises TypeError: a guid or a checksum is none, or ``if_checksum`` is no mapping.
    :raises ValueError: a guid or a checksum that cannot be.
    """
    for guid in guid_list(if_absent, "if_absent"):
        yield guid_bytes(guid), None
    given: object = if_checksum
    if not isinstance(given, Mapping):
        kind = type(given).__name__
        raise TypeError(f"if_checksum maps guids to checksums, and this {kind} is no mapping")
    for guid, checksum in if_checksum.items():
        key, number = guid_bytes(guid), operator.index(checksum)
        if not 0 <= number <= CHECKSUM_MAX:
            raise ValueError(f"{number} is no checksum of blob {BlobGuid(key)}: they go from 0 to 2**64 - 1")
        yield key, number


def check_range(offset: int, size: int, page_size: int) -> None:
    """Check that ``size`` bytes from ``offset`` on are whole blocks inside a frame.

    :raises ValueError: they are not.
    :raises TypeError: ``offset`` is not an int.
    """
    offset = operator.index(offset)
    aligned = offset % BUF_ALIGN == 0 and size % BUF_ALIGN == 0
    if not aligned or offset < 0 or offset + size > page_size:
        raise ValueError(
            f"offset {offset} and length {size} must be multiples of {BUF_ALIGN} "
            f"inside the frame of {page_size} bytes"
        )


def size_of(dst: BlobBuffer) -> int:
    """Return how many bytes ``dst`` has.

    :raises TypeError: it does not support the buffer protocol.
    """
    if isinstance(dst, AlignedBlobBuf):
        return len(dst)
    try:
        view = memoryview(dst)
    except TypeError:
        raise not_a_buffer(dst) from None
    with view:
        return view.nbytes
