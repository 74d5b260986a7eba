"""Copy the blobs of a directory of holt 0.7 to 0.9 into a store::

    from uringblob import FileBlobStore
    from uringblob.holt import import_holt

    with FileBlobStore.open("frames.blobs") as store:
        report = import_holt("/srv/holt", store)

The directory is only read: ``manifest.bin`` maps guids to slots, ``manifest.log`` has the changes since, and
slot ``n`` of ``blobs.dat`` is the frame at byte ``524288 n``.  All numbers are little-endian.  holt keeps no
checksums of its frames, so what was damaged there is copied as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.errors import BlobCorrupt, BlobStoreError, PageSizeMismatch, StoreCorrupt
from uringblob.guid import BlobGuid
from uringblob.sync.file_store import FileBlobStore
from uringblob.units import PAGE_SIZE

__all__ = ["HoltReport", "import_holt"]

_FILES = ("manifest.bin", "manifest.log", "blobs.dat")
_HEADER = struct.Struct("<8sHI2sQ")
_ENTRY = struct.Struct("<16sQ")
_RECORD = struct.Struct("<4sIB")
_CRC = struct.Struct("<I")
_MAGIC, _VERSION, _RECORD_MAGIC = b"ARTSNMNF", 6, b"MLG1"
_SET, _DELETE = 1, 2
_BODY_SIZES = {_SET: _ENTRY.size, _DELETE: 16}
_BATCH_FRAMES = 32


@dataclasses.dataclass(frozen=True)
class HoltReport:
    """What became of each blob.

    ``skipped`` were in the store already, with the same bytes.  ``bad`` were not imported: their frame is not in
    ``blobs.dat`` or cannot be read, the store has other bytes under their guid, which stay, or they could not be
    read back.  ``torn_bytes`` of an incomplete last record of ``manifest.log`` were left out, as holt does.
    """

    imported: int
    skipped: int
    bad: tuple[tuple[BlobGuid, Exception], ...]
    torn_bytes: int

    @property
    def ok(self) -> bool:
        """Whether the store now has every blob."""
        return not self.bad


def import_holt(
    directory: str, store: FileBlobStore, progress: Callable[[int, int], object] | None = None
) -> HoltReport:
    """Copy every blob of ``directory`` into ``store``, durably, and read the store back.

    At most 32 frames are in memory, and in one commit.  Called again, it goes on: blobs that the store has with
    the same bytes are not written.  Nothing that the store has is replaced.

    :param progress: called as ``progress(done, total)`` after each blob.
    :raises StoreCorrupt: the manifest or its log is damaged or of another version; nothing was imported.
    :raises FileNotFoundError: ``manifest.bin`` or ``blobs.dat`` is missing.
    :raises PageSizeMismatch: the store's frames are not holt's.
    :raises BlobStoreError: the directory changed meanwhile.
    """
    if store.page_size != PAGE_SIZE:
        raise PageSizeMismatch(f"{store.path} has frames of {store.page_size} bytes, holt's have {PAGE_SIZE}")
    before = _stamps(directory)
    slots, torn_bytes = read_manifest(directory)
    with open(os.path.join(directory, "blobs.dat"), "rb", buffering=0) as blobs:
        copying = _Copying(blobs, store)
        for done, (guid, slot) in enumerate(sorted(slots.items(), key=lambda blob: blob[1]), 1):
            copying.copy(BlobGuid(guid), slot)
            if progress is not None:
                progress(done, len(slots))
        copying.commit()
    if _stamps(directory) != before:
        raise BlobStoreError(
            f"{directory} changed while it was read: stop the program that uses it, then import again"
        )
    ours = {bytes(guid) for guid, _ in copying.bad}
    unreadable = [(guid, error) for guid, error in store.verify().bad if guid in slots and guid not in ours]
    return HoltReport(copying.imported, copying.skipped, (*copying.bad, *unreadable), torn_bytes)


def _stamps(directory: str) -> list[tuple[int, int, int] | None]:
    stamps: list[tuple[int, int, int] | None] = []
    for name in _FILES:
        found = None
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(os.path.join(directory, name))
            found = status.st_ino, status.st_size, status.st_mtime_ns
        stamps.append(found)
    return stamps


class _Copying:
    """Frames on their way from ``blobs.dat`` into the store, one batch at a time."""

    def __init__(self, blobs: BinaryIO, store: FileBlobStore) -> None:
        self._blobs = blobs
        self._size = os.fstat(blobs.fileno()).st_size
        self._store = store
        self._batch: list[tuple[BlobGuid, AlignedBlobBuf]] = []
        self.imported = self.skipped = 0
        self.bad: list[tuple[BlobGuid, Exception]] = []

    def copy(self, guid: BlobGuid, slot: int) -> None:
        """Copy one blob, or note why not."""
        buf = self._store.alloc_blob_buf_uninit()
        try:
            self._read(guid, slot, buf.view)
            wanted = not self._is_there(guid, buf)
        except (BlobStoreError, OSError) as error:
            self.bad.append((guid, error))
            wanted = False
        if not wanted:
            buf.release()
            return
        self._batch.append((guid, buf))
        if len(self._batch) == _BATCH_FRAMES:
            self.commit()

    def _is_there(self, guid: BlobGuid, buf: AlignedBlobBuf) -> bool:
        if not self._store.has_blob(guid):
            return False
        if self._store.checksum(guid) != frame_checksum(buf.view):
            raise BlobStoreError(
                f"{self._store.path} has other bytes as blob {guid}, which stay: import into a new store, or "
                "delete that blob first"
            )
        self.skipped += 1
        return True

    def _read(self, guid: BlobGuid, slot: int, room: memoryview) -> None:
        offset, done = slot * PAGE_SIZE, 0
        if offset + PAGE_SIZE > self._size:
            raise BlobCorrupt(
                f"{self._blobs.name}: blob {guid} is in slot {slot} (offset {offset}), and the file ends at "
                f"{self._size}: restore it from a copy"
            )
        while done < PAGE_SIZE:
            moved = os.preadv(self._blobs.fileno(), [room[done:]], offset + done)
            if not moved:
                raise BlobCorrupt(f"{self._blobs.name}: cut while blob {guid} was read (offset {offset})")
            done += moved

    def commit(self) -> None:
        """Make the batch durable."""
        self._store.commit(self._batch)
        self.imported += len(self._batch)
        for _, buf in self._batch:
            buf.release()
        self._batch.clear()


# --- the manifest --------------------------------------------------------------------------------


def read_manifest(directory: str) -> tuple[dict[bytes, int], int]:
    """Return the slot of every blob, and the length of a torn tail of the log.

    :raises StoreCorrupt: it is damaged, or of another version.
    """
    slots = _read_snapshot(os.path.join(directory, "manifest.bin"))
    torn_bytes = 0
    with contextlib.suppress(FileNotFoundError):  # no change since the snapshot
        path = os.path.join(directory, "manifest.log")
        with open(path, "rb") as log:
            torn_bytes = _replay(log, path, os.fstat(log.fileno()).st_size, slots)
    owners: dict[int, bytes] = {}
    for guid, slot in slots.items():
        other = owners.setdefault(slot, guid)
        if other is not guid:
            raise StoreCorrupt(
                f"{directory}: blobs {BlobGuid(other)} and {BlobGuid(guid)} have the same slot, {slot}, so the manifest "
                "is damaged: restore the directory from a copy"
            )
    return slots, torn_bytes


def _read_snapshot(path: str) -> dict[bytes, int]:
    with open(path, "rb") as file:
        raw = file.read()
    if len(raw) < _HEADER.size or raw[:8] != _MAGIC:
        raise _corrupt(path, 0, f"it does not begin as a manifest of holt does, with {_MAGIC.decode()}")
    _, version, count, padding, _ = _HEADER.unpack_from(raw)
    if version != _VERSION:
        raise _corrupt(
            path, 8, f"its version is {version}, and only {_VERSION} (holt 0.7 to 0.9) can be imported"
        )
    if padding != bytes(2):
        raise _corrupt(path, 14, "two bytes of its header should be zero")
    if len(raw) != _HEADER.size + count * _ENTRY.size:
        raise _corrupt(
            path,
            10,
            f"{count} entries take {_HEADER.size + count * _ENTRY.size} bytes, and it has {len(raw)}",
        )
    slots = dict(_ENTRY.iter_unpack(raw[_HEADER.size :]))
    if len(slots) != count:
        raise _corrupt(path, _HEADER.size, "it names a blob twice")
    return slots


def _replay(log: BinaryIO, path: str, size: int, slots: dict[bytes, int]) -> int:
    """Apply the log's records; return the length of an incomplete last one."""
    offset = 0
    for kind, body, length in _records(log, path):
        if kind == _SET:
            guid, slot = _ENTRY.unpack(body)
            slots[guid] = slot
        else:
            slots.pop(body, None)
        offset += length
    return size - offset


def _records(log: BinaryIO, path: str) -> Iterator[tuple[int, bytes, int]]:
    """Yield type, body and length of every complete record.

    The length of a body follows from its type, so a damaged length does not pass for a torn tail.
    """
    offset = 0
    while head := log.read(_RECORD.size):
        if head[:4] != _RECORD_MAGIC[: len(head)]:
            raise _corrupt(path, offset, f"a record should begin here, with {_RECORD_MAGIC.decode()}")
        if len(head) < _RECORD.size:
            return
        _, body_size, kind = _RECORD.unpack(head)
        if kind not in _BODY_SIZES:
            raise _corrupt(
                path, offset, f"the record here is of type {kind}, which holt 0.7 to 0.9 do not write"
            )
        if body_size != _BODY_SIZES[kind]:
            raise _corrupt(
                path, offset, f"the body of the record here has {body_size} bytes, not {_BODY_SIZES[kind]}"
            )
        rest = log.read(body_size + _CRC.size)
        if len(rest) < body_size + _CRC.size:
            return
        body, crc = rest[:body_size], _CRC.unpack(rest[body_size:])[0]
        if zlib.crc32(head + body) != crc:
            raise _corrupt(path, offset, "the CRC-32 of the record here does not match")
        yield kind, body, len(head) + len(rest)
        offset += len(head) + len(rest)


def _corrupt(path: str, offset: int, what: str) -> StoreCorrupt:
    text = f"{path}: {what} (offset {offset}): nothing was imported; restore the directory from a copy"
    return StoreCorrupt(text, offset)
