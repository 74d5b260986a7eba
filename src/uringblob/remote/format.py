"""The objects of a store in a bucket, and their bytes; ``docs/remote-format.md`` is the specification.

Pure functions: no requests are made here.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import xxhash

from uringblob.errors import StoreCorrupt
from uringblob.units import check_page_size

VERSION: Final = 1
MAGIC: Final = b"URBREMOT"
CHANGES, EPOCH, MAP = range(3)

_HEADER = struct.Struct("<8sHHQQ8s16sQI")
_RECORD = struct.Struct("<B16s")
_FRAME = struct.Struct("<24sQB")
_FRAME_NAME = struct.Struct(">Q8sQ")
_DIGEST = struct.Struct("<Q")
_WRITTEN, _DELETED = 1, 2

#: Bytes of an epoch group; every group of changes is longer.
EPOCH_BYTES: Final = _HEADER.size + _DIGEST.size

HEAD: Final = "head"
CLOCK: Final = "clock"
LOG: Final = "log/"
FRAMES: Final = "frames/"
MAPS: Final = "map/"
LEASES: Final = "leases/"

#: Stands for a session where no group of changes was ever made.
NO_SESSION: Final = bytes(8)


class Entry(NamedTuple):
    """Where a blob's frame is, and what it must be."""

    frame: bytes  #: the object's name: epoch, session and counter
    checksum: int
    meta: bytes


#: What a group changes: ``None`` stands for a deleted blob.
Records = Mapping[bytes, "Entry | None"]


def log_key(seq: int) -> str:
    """Return the key of group ``seq``."""
    return f"{LOG}{seq:020}"


def map_key(seq: int, nonce: bytes) -> str:
    """Return the key of a map of group ``seq``."""
    return f"{MAPS}{seq:020}-{nonce.hex()}"


def number_in(key: str) -> int:
    """Return the number in a key under ``log/``, ``map/`` or ``frames/`` (there, the epoch); -1 if it has none."""
    digits = key.split("/", 1)[1][:20]
    return int(digits) if digits.isdecimal() else -1


def frame_name(epoch: int, session: bytes, count: int) -> bytes:
    """Return the name of a frame: no other writer, and no other frame of this one, has it."""
    return _FRAME_NAME.pack(epoch, session, count)


def frame_key(name: bytes) -> str:
    """Return the key of the frame of this name."""
    epoch, session, count = _FRAME_NAME.unpack(name)
    return f"{FRAMES}{epoch:020}/{session.hex()}-{count:016x}"


@dataclasses.dataclass(frozen=True)
class Header:
    """What a group or a map says of itself."""

    kind: int
    seq: int
    epoch: int
    session: bytes  #: of its writer; of a map: of the writer of the last group of changes in it
    nonce: bytes
    before: int = 0  #: the digest of the group before it; of a map: of the last group in it


def pieces(header: Header, records: Iterable[tuple[bytes, Entry | None]], count: int) -> Iterator[bytes]:
    """Yield the bytes of an object, all but its digest: the header, then each record."""
    yield _HEADER.pack(
        *(MAGIC, VERSION, header.kind, header.seq, header.epoch),
        *(header.session, header.nonce, header.before, count),
    )
    for guid, entry in records:
        if entry is None:
            yield _RECORD.pack(_DELETED, guid)
        else:
            frame, checksum, meta = entry
            yield _RECORD.pack(_WRITTEN, guid) + _FRAME.pack(frame, checksum, len(meta)) + meta


def sealed(body: bytes | bytearray) -> bytes:
    """Return ``body`` with its digest at its end."""
    return bytes(body) + _DIGEST.pack(xxhash.xxh3_64_intdigest(body))


def encode(header: Header, records: Records) -> bytes:
    """Return the bytes of a group."""
    return sealed(b"".join(pieces(header, records.items(), len(records))))


def digest_of(body: bytes) -> int:
    """Return the digest at the end of a whole object."""
    digest: int = _DIGEST.unpack_from(body, len(body) - _DIGEST.size)[0]
    return digest


def decode_header(body: bytes, where: str) -> tuple[Header, int]:
    """Check an object's digest; return its header and its number of records.

    :raises StoreCorrupt: it is none, is damaged, or is of a later version; ``where`` names it.
    """
    whole = len(body) >= EPOCH_BYTES and body[: len(MAGIC)] == MAGIC
    if not whole or xxhash.xxh3_64_intdigest(memoryview(body)[: -_DIGEST.size]) != digest_of(body):
        raise StoreCorrupt(
            f"{where}: its {len(body)} bytes are not a group of a store, or damaged: restore it"
        )
    _, version, kind, seq, epoch, session, nonce, before, count = _HEADER.unpack_from(body)
    if version != VERSION:
        raise StoreCorrupt(f"{where}: it has version {version}, and this release reads {VERSION}: upgrade it")
    return Header(kind, seq, epoch, session, nonce, before), count


def decode_records(body: bytes, count: int, where: str) -> Iterator[tuple[bytes, Entry | None]]:
    """Yield the records of an object whose digest is right."""
    at, end = _HEADER.size, len(body) - _DIGEST.size
    try:
        for _ in range(count):
            kind, guid = _RECORD.unpack_from(body, at)
            at += _RECORD.size
            entry = None
            if kind == _WRITTEN:
                frame, checksum, length = _FRAME.unpack_from(body, at)
                at += _FRAME.size
                entry, at = Entry(frame, checksum, body[at : at + length]), at + length
            elif kind != _DELETED:
                raise StoreCorrupt(
                    f"{where}: no release writes a record of kind {kind}: restore it", offset=at
                )
            yield guid, entry
    except struct.error as error:
        raise StoreCorrupt(f"{where}: a record at byte {at} is cut off: restore it", offset=at) from error
    if at != end:
        raise StoreCorrupt(f"{where}: it has {end - at} bytes after its last record: restore it", offset=at)


@dataclasses.dataclass(frozen=True)
class Head:
    """The object that openers read first."""

    store: str  #: 32 random hexadecimal digits
    page_size: int
    seq: int = 0  #: of the newest map; 0: there is none yet, and the store begins empty
    epoch: int = 0
    digest: int = 0  #: of group ``seq``
    map: str = ""  #: its key
    horizon: int = 0  #: what died up to this group may be collected
    nonce: str = ""  #: makes equal bytes mean the same attempt

    def encode(self) -> bytes:
        """Return its bytes."""
        return json.dumps({"format": VERSION, **dataclasses.asdict(self)}).encode()


def decode_head(body: bytes, where: str) -> Head:
    """Return the head in ``body``.

    :raises StoreCorrupt: it is none, or is of a later version.
    """
    try:
        fields = json.loads(body)
        version = fields.pop("format")
        known = {field.name for field in dataclasses.fields(Head)}
        head = Head(**{name: value for name, value in fields.items() if name in known})
        check_page_size(head.page_size)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreCorrupt(
            f"{where}: it is not the head of a store ({error}): give another prefix"
        ) from error
    if version != VERSION:
        raise StoreCorrupt(
            f"{where}: the store has format {version}, and this release reads {VERSION}: upgrade it"
        )
    return head


def encode_lease(seq: int, ttl_s: float) -> bytes:
    """Return the bytes of a lease on all that was there at group ``seq``."""
    return json.dumps({"seq": seq, "ttl_s": ttl_s}).encode()


def decode_lease(body: bytes) -> tuple[int, float]:
    """Return number and duration of a lease; of one that cannot be read 0 and a day: it may be a later version's."""
    try:
        fields = json.loads(body)
        return int(fields["seq"]), float(fields["ttl_s"])
    except (ValueError, TypeError, KeyError):
        return 0, 86400.0
