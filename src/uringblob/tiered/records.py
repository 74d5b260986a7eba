"""What a tier keeps in its stores beside the user's blobs: reserved names, tombstones, and the tie.

``docs/maintainers/tiered.md`` says what each is for, and what is lost without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from uringblob.guid import GUID_SIZE, BlobGuid, GuidLike, guid_bytes

#: Names that begin so are the tier's own, in both stores.
RESERVED = b"\xffub.tier"
#: Of the local store: the tie's record.  Of a remote one whose groups name no writer: the tie of the tier that
#: wrote last.
TIE = RESERVED + bytes(GUID_SIZE - len(RESERVED))
TIE_SIZE = 16
#: Stands for a remote store that nobody has written to, or no tier.
NO_TIE = bytes(TIE_SIZE)
_COUNT_SIZE = 8


def user_guid(guid: GuidLike) -> bytes:
    """Return the guid as bytes.

    :raises ValueError: it is one of the tier's own names.
    """
    key = guid_bytes(guid)
    if key.startswith(RESERVED):
        raise ValueError(
            f"{BlobGuid(key)} is a name that tiers keep for themselves: "
            f"take one that does not begin with {RESERVED.hex()}"
        )
    return key


def is_reserved(guid: bytes) -> bool:
    """Whether the name is one of the tier's own."""
    return guid.startswith(RESERVED)


def tombstone_name(number: int) -> bytes:
    """Return the name of the tombstone with this number, from 1 on."""
    return RESERVED + number.to_bytes(GUID_SIZE - len(RESERVED), "big")


def tombstone_number(name: bytes) -> int:
    """Return the number of the tombstone of this name; 0 for :data:`TIE`."""
    return int.from_bytes(name[len(RESERVED) :], "big")


def tombstone_frames(guids: Sequence[bytes], page_size: int) -> Iterator[tuple[list[bytes], bytes]]:
    """Yield frames that name all of ``guids``, each with those that it names."""
    at_once = (page_size - _COUNT_SIZE) // GUID_SIZE
    for start in range(0, len(guids), at_once):
        part = list(guids[start : start + at_once])
        yield part, (len(part).to_bytes(_COUNT_SIZE, "big") + b"".join(part)).ljust(page_size, b"\0")


def guids_of_tombstone(frame: bytes | bytearray | memoryview) -> list[bytes]:
    """Return the guids that a tombstone's frame names."""
    count = int.from_bytes(frame[:_COUNT_SIZE], "big")
    ends = range(_COUNT_SIZE, _COUNT_SIZE + count * GUID_SIZE, GUID_SIZE)
    return [bytes(frame[start : start + GUID_SIZE]) for start in ends]


@dataclasses.dataclass(frozen=True)
class TieRecord:
    """The local store's half of the tie, kept as the metadata of :data:`TIE`.

    ``found`` is what the remote store had when this one was attached, ``own`` what it has after this one's
    first upload.  The remote store has one of the two as long as nobody else writes to it.
    """

    found: bytes
    own: bytes
    #: Everything is in the remote store: it was closed so, with the local group of this number.
    clean: bool = False
    seq: int = 0

    def is_clean(self, seq: int) -> bool:
        """Whether it was closed clean, and nothing has changed the local store since, whose last group is ``seq``."""
        return self.clean and self.seq == seq

    def matches(self, tie: bytes) -> bool:
        """Whether nobody else has written to a remote store that bears ``tie``."""
        return tie in (self.found, self.own)

    def packed(self) -> bytes:
        """Return the metadata that says this."""
        return self.found + self.own + bytes([self.clean]) + self.seq.to_bytes(_COUNT_SIZE, "big")

    @classmethod
    def unpacked(cls, meta: bytes) -> TieRecord:
        """Return what the metadata says."""
        ties, rest = meta[: 2 * TIE_SIZE], meta[2 * TIE_SIZE :]
        return cls(ties[:TIE_SIZE], ties[TIE_SIZE:], rest[0] == 1, int.from_bytes(rest[1:], "big"))
