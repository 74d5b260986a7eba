"""A directory with the blobs of a store: each in a file named by its guid, and a manifest of their checksums.

It is written and read as a store (:meth:`BlobStore.backup`).  While an export is incomplete there is a file named
:data:`INCOMPLETE`; the manifest is durable before that is deleted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from typing import BinaryIO

from uringblob.api.backup import INCOMPLETE
from uringblob.api.blob_stat import BlobStat
from uringblob.api.sync_store import BlobStore
from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.views import BlobBuffer, readable_view, writable_view
from uringblob.cli.atomic_file import atomic_write
from uringblob.cli.copying import CopySource
from uringblob.cli.errors import EXIT_FAILED, EXIT_NO, EXIT_USAGE, CliError
from uringblob.cli.stdio import naming_file
from uringblob.errors import BlobCorrupt, BlobNotFound
from uringblob.guid import BlobGuid, GuidLike, guid_bytes, is_guid_text
from uringblob.units import MODE

MANIFEST = "manifest.json"
_FORMAT = "uringblob export 1"


class ExportDirectory(BlobStore):
    """A directory to export to: new, empty, or with an earlier export, complete or not."""

    def __init__(self, path: str, page_size: int) -> None:
        self._path = path
        self._page_size = page_size
        #: Of every blob that a backup wrote here, or found here: it asks for each one's.
        self._stats: dict[BlobGuid, BlobStat] = {}
        self._metas: dict[BlobGuid, bytes] = {}
        _make_directory(path)
        names = os.listdir(path)
        if names and MANIFEST not in names and str(INCOMPLETE) not in names:
            text = f"{path} is not empty, and no earlier export: name a new directory"
            raise CliError(text, EXIT_USAGE, path=path)
        if MANIFEST in names:
            _, stats = _read_manifest(path)
            self._metas = {guid: stat.meta for guid, stat in stats.items()}

    @property
    def page_size(self) -> int:
        return self._page_size

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        key = BlobGuid(guid_bytes(guid))
        file = self._file(key)
        try:
            with naming_file(file), open(file, "rb") as opened:
                frame = opened.read(self._page_size + 1)
        except FileNotFoundError:
            raise BlobNotFound(key, f"there is no file {file}") from None
        if len(frame) != self._page_size:
            raise BlobCorrupt(f"{file} is not as long as a frame, which has {self._page_size} bytes", key)
        with writable_view(dst, self._page_size) as view:
            view[:] = frame

    def write_blob(self, guid: GuidLike, src: BlobBuffer, meta: bytes = b"") -> None:
        key = BlobGuid(guid_bytes(guid))
        file = self._file(key)
        self._metas[key] = meta
        with readable_view(src, self._page_size) as view, naming_file(file), _create(file) as opened:
            opened.write(view)
            os.fsync(opened.fileno())

    def delete_blob(self, guid: GuidLike) -> None:
        key = BlobGuid(guid_bytes(guid))
        if key == INCOMPLETE:
            self._write_manifest()
        with contextlib.suppress(FileNotFoundError):  # the manifest named it, but its file was lost
            os.unlink(self._file(key))

    def list_blobs(self) -> list[BlobGuid]:
        return [BlobGuid(name) for name in os.listdir(self._path) if is_guid_text(name)]

    def has_blob(self, guid: GuidLike) -> bool:
        return os.path.exists(self._file(BlobGuid(guid_bytes(guid))))

    def stat_blob(self, guid: GuidLike) -> BlobStat:
        """Return the checksum of what the file holds now, and the metadata that the manifest has or will have."""
        key = BlobGuid(guid_bytes(guid))
        found = dataclasses.replace(super().stat_blob(key), meta=self._metas.get(key, b""))
        self._stats[key] = found
        return found

    def flush(self) -> None:
        """Make files that were made and deleted durable."""
        _sync_directory(self._path)

    def _write_manifest(self) -> None:
        stats = {guid: self._stats[guid] for guid in sorted(self.list_blobs()) if guid != INCOMPLETE}
        value = {
            "format": _FORMAT,
            "page_size": self._page_size,
            "xxh3_64": {str(guid): f"{stat.checksum:016x}" for guid, stat in stats.items()},
            "meta": {str(guid): stat.meta.hex() for guid, stat in stats.items() if stat.meta},
        }
        path = os.path.join(self._path, MANIFEST)
        with naming_file(path), atomic_write(path) as file:
            file.write(json.dumps(value, indent=0).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.flush()  # it is durable before the file that says "incomplete" goes

    def _file(self, guid: BlobGuid) -> str:
        return os.path.join(self._path, str(guid))

    def __repr__(self) -> str:
        return f"<export in {self._path!r}>"


class ImportDirectory(CopySource, ExportDirectory):
    """A complete export, to be read; what differs from its manifest is ``BlobCorrupt``."""

    def __init__(self, path: str, engine: str) -> None:
        if os.path.exists(os.path.join(path, str(INCOMPLETE))):
            text = f"{path} is an incomplete export: run 'uringblob export' again"
            raise CliError(text, EXIT_NO, path=path)
        page_size, self._stats = _read_manifest(path)
        super().__init__(page_size, engine)
        self._path = path

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        key = BlobGuid(guid_bytes(guid))
        try:
            super().read_blob(key, dst)
        except BlobNotFound as error:
            raise BlobCorrupt(f"{error}, which the manifest names: copy the export again", key) from None
        with readable_view(dst, self._page_size) as view:
            if frame_checksum(view) != self._stats[key].checksum:
                raise BlobCorrupt(f"{self._file(key)} differs from the manifest: copy the export again", key)

    def list_blobs(self) -> list[BlobGuid]:
        return list(self._stats)

    def has_blob(self, guid: GuidLike) -> bool:
        return BlobGuid(guid_bytes(guid)) in self._stats

    def stat_blob(self, guid: GuidLike) -> BlobStat:
        """Return what the manifest says."""
        return self._stats[BlobGuid(guid_bytes(guid))]

    def checksum(self, guid: GuidLike) -> int:
        return self.stat_blob(guid).checksum


def _read_manifest(path: str) -> tuple[int, dict[BlobGuid, BlobStat]]:
    """Return the frame size and the blobs of a complete export."""
    manifest = os.path.join(path, MANIFEST)
    with open(manifest, "rb") as file:
        data = file.read()
    try:
        value = json.loads(data)
        if value["format"] != _FORMAT:
            raise ValueError(f"its format is {value['format']!r}")
        size, metas = int(value["page_size"]), value.get("meta", {})
        return size, {
            BlobGuid(name): BlobStat(size, int(checksum, 16), bytes.fromhex(metas.get(name, "")))
            for name, checksum in value["xxh3_64"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"{manifest} is no manifest of an export ({error!r}): export again, into a new directory"
        raise CliError(text, EXIT_FAILED, path=manifest) from error


def _make_directory(path: str) -> None:
    """Make a directory for its owner alone, durably, if there is nothing."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    _sync_directory(os.path.dirname(os.path.abspath(path)))


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with naming_file(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(file: str) -> BinaryIO:
    return open(file, "wb", opener=lambda path, flags: os.open(path, flags, MODE))
