"""The directory under test: everybody's files, made once, removed at the end."""

from __future__ import annotations

import os
import shutil
import tempfile

from uringblob.frames import Frame
from uringblob.slab import Slab

_BLOCK = 4 << 20


class Place:
    """A fresh directory inside the one the user named; a context manager that removes it."""

    def __init__(self, parent: str) -> None:
        os.makedirs(parent, exist_ok=True)
        self.directory = tempfile.mkdtemp(prefix="uringblob-bench-", dir=parent)

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_exc: object) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, name: str) -> str:
        """Return where ``name`` lies, or will lie."""
        return os.path.join(self.directory, name)

    def raw_file(self, size: int) -> str:
        """Return a file of ``size`` bytes, all of them written, shared by those that bring no format."""
        path = self.path(f"raw-{size}")
        if not os.path.exists(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                _fill(descriptor, size)
            finally:
                os.close(descriptor)
        return path

    def free_bytes(self) -> int:
        """Bytes that may still be written here."""
        status = os.statvfs(self.directory)
        return status.f_bavail * status.f_frsize


def direct_flag(path: str) -> int:
    """Return ``O_DIRECT`` if the file at ``path`` can be read with it, else 0."""
    flag: int = getattr(os, "O_DIRECT", 0)
    try:
        os.close(os.open(path, os.O_RDONLY | flag))
    except OSError:
        return 0
    return flag


def noise(size: int) -> bytes:
    """Return ``size`` bytes that no device can make small."""
    return os.urandom(min(size, _BLOCK)) * max(1, size // _BLOCK)


def aligned_frames(page_size: int, count: int) -> list[Frame]:
    """Return frames of noise, page-aligned and side by side, on huge pages where there are some."""
    slab = Slab(page_size, count)
    content = noise(page_size)
    frames = [slab.frame(index) for index in range(count)]
    for frame in frames:
        frame.view[:] = content
    return frames


def _fill(descriptor: int, size: int) -> None:
    block = bytearray(noise(_BLOCK))
    for offset in range(0, size, _BLOCK):
        block[:8] = offset.to_bytes(8, "little")
        os.pwrite(descriptor, memoryview(block)[: min(_BLOCK, size - offset)], offset)
    os.fsync(descriptor)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
