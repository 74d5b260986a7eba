"""Which file lies where: the archive's table of contents, itself kept in frames.

All files of an archive lie one behind the other in a row of bytes, which is cut into frames.
So a file is a start and a length, it may begin in the middle of one frame and end in another,
and many small files share a frame.

Everything is found from one well-known guid::

    ROOT_GUID ─► root frame: archive id, numbers of frames, length and SHA-256 of the catalogue
                    └─► catalogue frames (JSON): every entry with its mode, start and size
                           └─► data frames: the row of bytes

The guids of data and catalogue frames follow from the archive id and their number.
A new archive has a new id and is written beside the old one; committing its root frame and
deleting the old frames in one atomic step is what replaces the one by the other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
import uuid
from collections.abc import Iterator, Sequence

from archiving.tree import FILE, Entry
from uringblob import AsyncBlobStore, BlobGuid

ROOT_GUID = BlobGuid(uuid.uuid5(uuid.NAMESPACE_URL, "uringblob:examples/archive"))
MAGIC = b"UBARCH01"
#: magic, archive id, data frames, catalogue frames, catalogue bytes, SHA-256 of the catalogue.
ROOT_FORMAT = struct.Struct("<8s16sQQQ32s")


class ArchiveError(Exception):
    """The store holds no archive, or an incomplete one."""


@dataclasses.dataclass(frozen=True)
class Root:
    """The root frame's contents."""

    archive_id: uuid.UUID
    data_frames: int
    catalogue_frames: int
    catalogue_bytes: int
    digest: bytes

    def data_guid(self, index: int) -> BlobGuid:
        """Return the guid of the data frame number ``index``."""
        return BlobGuid(uuid.uuid5(self.archive_id, f"data/{index}"))

    def catalogue_guid(self, index: int) -> BlobGuid:
        """Return the guid of the catalogue frame number ``index``."""
        return BlobGuid(uuid.uuid5(self.archive_id, f"catalogue/{index}"))

    def guids(self) -> list[BlobGuid]:
        """Return the guids of all frames except the root."""
        data = [self.data_guid(index) for index in range(self.data_frames)]
        return data + [self.catalogue_guid(index) for index in range(self.catalogue_frames)]

    def encode(self, page_size: int) -> bytes:
        """Return the root frame."""
        fields = (self.data_frames, self.catalogue_frames, self.catalogue_bytes, self.digest)
        return ROOT_FORMAT.pack(MAGIC, self.archive_id.bytes, *fields).ljust(page_size, b"\0")


@dataclasses.dataclass(frozen=True)
class Piece:
    """A range of one file in one frame, in bytes."""

    entry: Entry
    file_offset: int
    frame_offset: int
    size: int


def with_starts(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries with each file's offset in the row of bytes."""
    placed = []
    position = 0
    for entry in entries:
        start = position if entry.kind == FILE else -1
        placed.append(dataclasses.replace(entry, start=start))
        position += entry.size
    return placed


def frame_pieces(entries: Sequence[Entry], page_size: int) -> list[list[Piece]]:
    """Return, for each data frame, the ranges of files that it holds."""
    frames: list[list[Piece]] = []
    for entry in entries:
        for frame, piece in _pieces_of(entry, page_size):
            while len(frames) <= frame:
                frames.append([])
            frames[frame].append(piece)
    return frames


def _pieces_of(entry: Entry, page_size: int) -> Iterator[tuple[int, Piece]]:
    done = 0
    while done < entry.size:
        frame, offset = divmod(entry.start + done, page_size)
        size = min(page_size - offset, entry.size - done)
        yield frame, Piece(entry, done, offset, size)
        done += size


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """Return the catalogue as JSON; names that are not UTF-8 survive as lone surrogates."""
    return json.dumps([dataclasses.astuple(entry) for entry in entries]).encode("ascii")


def decode_entries(catalogue: bytes) -> list[Entry]:
    """Return the entries of a catalogue.

    :raises ArchiveError: an entry would lie outside the directory that is restored into.
    """
    entries = [Entry(*fields) for fields in json.loads(catalogue)]
    for entry in entries:
        if os.path.isabs(entry.path) or ".." in entry.path.split(os.sep):
            raise ArchiveError(f"the archive names {entry.path!r}, outside its own tree")
    return entries


async def load_root(store: AsyncBlobStore) -> Root | None:
    """Return the root of the archive in ``store``; ``None`` if there is none.

    :raises ArchiveError: something else lies under the well-known guid.
    """
    if not await store.has_blob(ROOT_GUID):
        return None
    with store.alloc_blob_buf_uninit() as buf:
        await store.read_blob(ROOT_GUID, buf)
        magic, archive_id, data, catalogue, size, digest = ROOT_FORMAT.unpack_from(buf.view)
    if magic != MAGIC:
        raise ArchiveError(f"blob {ROOT_GUID} is not an archive's root")
    return Root(uuid.UUID(bytes=archive_id), data, catalogue, size, digest)


async def load_entries(store: AsyncBlobStore, root: Root) -> list[Entry]:
    """Return every entry of the archive.

    :raises ArchiveError: the catalogue is not the one the root frame was written with.
    """
    catalogue = bytearray()
    with store.alloc_blob_buf_uninit() as buf:
        for index in range(root.catalogue_frames):
            await store.read_blob(root.catalogue_guid(index), buf)
            catalogue += buf.view
    del catalogue[root.catalogue_bytes :]
    if hashlib.sha256(catalogue).digest() != root.digest:
        raise ArchiveError("the catalogue does not match the root frame")
    return decode_entries(bytes(catalogue))
