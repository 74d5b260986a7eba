"""A store of your own: five methods, and everything else follows from them.

This one keeps each blob in a file of its own in a directory, followed by the frame's checksum.
It is plain, slow, and honest: a frame is replaced by a rename, so that a reader or a crash sees the
old one or the new one, and ``flush`` makes the renames durable.

Run it: ``python examples/custom_store.py``.  It runs the conformance suite on every sentence of the
trait's contract, and prints the answers.

What it does not have: an atomic ``commit`` (the inherited one says so), a lock against other
processes, and speed.  A store that can do better overrides more.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import threading

from uringblob import BlobCorrupt, BlobGuid, BlobNotFound, BlobStore
from uringblob.checksums import frame_checksum
from uringblob.guid import GuidLike, guid_bytes
from uringblob.testing import check_blob_store
from uringblob.views import BlobBuffer, readable_view, writable_view

_CHECKSUM = struct.Struct("<Q")


class DirectoryBlobStore(BlobStore):
    """Every blob is a file of ``directory``, which exists.  For any number of threads."""

    def __init__(self, directory: str, page_size: int = 4096) -> None:
        self._directory = directory
        self._page_size = page_size

    @property
    def page_size(self) -> int:
        """The frame size in bytes."""
        return self._page_size

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        """See :meth:`BlobStore.read_blob`."""
        key = BlobGuid(guid_bytes(guid))
        with writable_view(dst, self._page_size) as view:
            try:
                with open(self._path(key), "rb") as file:
                    frame = file.read()
            except FileNotFoundError:
                raise BlobNotFound(key, f"no blob {key} in {self._directory}") from None
            if len(frame) != self._page_size + _CHECKSUM.size:
                raise BlobCorrupt(f"{self._path(key)} has {len(frame)} bytes", key)
            if frame_checksum(frame[: self._page_size]) != _CHECKSUM.unpack_from(frame, self._page_size)[0]:
                raise BlobCorrupt(f"{self._path(key)}: its checksum does not match", key)
            view[:] = frame[: self._page_size]

    def write_blob(self, guid: GuidLike, src: BlobBuffer, meta: bytes = b"") -> None:
        """See :meth:`BlobStore.write_blob`."""
        if meta:
            raise ValueError("this store keeps no metadata")
        key = BlobGuid(guid_bytes(guid))
        temporary = os.path.join(self._directory, f"new {key} {threading.get_ident()}")
        with readable_view(src, self._page_size) as view:
            try:
                with open(temporary, "wb") as file:
                    file.write(view)
                    file.write(_CHECKSUM.pack(frame_checksum(view)))
                    file.flush()
                    os.fsync(file.fileno())  # before the rename, or a crash may show an empty file
                os.replace(temporary, self._path(key))
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise

    def delete_blob(self, guid: GuidLike) -> None:
        """See :meth:`BlobStore.delete_blob`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(BlobGuid(guid_bytes(guid))))

    def list_blobs(self) -> list[BlobGuid]:
        """See :meth:`BlobStore.list_blobs`; a file that a crash left incomplete is no blob."""
        names = os.listdir(self._directory)
        return [BlobGuid(bytes.fromhex(name)) for name in names if not name.startswith("new ")]

    def flush(self) -> None:
        """See :meth:`BlobStore.flush`: the renames and deletes become durable with the directory."""
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _path(self, guid: BlobGuid) -> str:
        return os.path.join(self._directory, guid.hex())


def main() -> None:
    """Run the conformance suite on it."""
    with tempfile.TemporaryDirectory(prefix="uringblob-custom-", dir="/var/tmp") as directory:
        places: list[str] = []

        def make_store() -> DirectoryBlobStore:
            places.append(tempfile.mkdtemp(dir=directory))
            return DirectoryBlobStore(places[-1])

        report = check_blob_store(make_store, reopen=lambda: DirectoryBlobStore(places[-1]))
    print(report)
    print(f"{len(report.passed)} checks passed")


if __name__ == "__main__":
    main()
