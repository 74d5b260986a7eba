"""The directory under test: everybody's files, made once, removed at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable

from uringblob.slab import IoBuffer, Slab

_BLOCK = 4 << 20


class WorkDir:
    """A fresh directory inside the one the user named; a context manager that removes it."""

    def __init__(self, parent: str) -> None:
        self.directory = tempfile.mkdtemp(prefix="uringblob-bench-", dir=parent)

    def __enter__(self) -> WorkDir:
        return self

    def __exit__(self, *_exc: object) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, name: str) -> str:
        """Return where ``name`` lies, or will lie."""
        return os.path.join(self.directory, name)

    def once(self, name: str, make: Callable[[str], object]) -> str:
        """Return the path of ``name``, which ``make(path)`` has made, whole, this time or before.

        Of a ``make`` that raised nothing is taken for whole by whoever asks next.
        """
        path = self.path(name)
        if not os.path.exists(path):
            half = f"{path}.half"
            shutil.rmtree(half, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(half)
            make(half)
            os.rename(half, path)
        return path

    def raw_file(self, size: int) -> str:
        """Return a file of ``size`` bytes, all of them written, shared by those that bring no format."""
        return self.once(f"raw-{size}", lambda path: _make_raw(path, size))

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


def aligned_frames(page_size: int, count: int) -> list[IoBuffer]:
    """Return frames of noise, page-aligned and side by side, on huge pages where there are some."""
    slab = Slab(page_size, count)
    content = noise(page_size)
    frames = [slab.frame(index) for index in range(count)]
    for frame in frames:
        frame.view[:] = content
    return frames


def _make_raw(path: str, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _fill(descriptor, size)
    finally:
        os.close(descriptor)


def _fill(descriptor: int, size: int) -> None:
    block = bytearray(noise(_BLOCK))
    for offset in range(0, size, _BLOCK):
        block[:8] = offset.to_bytes(8, "little")
        os.pwrite(descriptor, memoryview(block)[: min(_BLOCK, size - offset)], offset)
    os.fsync(descriptor)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
