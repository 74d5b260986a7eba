"""A file that is written whole or not at all: an interrupt or a full disk leaves what was there before.

Where the file system has files without a name (O_TMPFILE), not even a SIGKILL leaves anything beside
the target.  linkat(2) gives such a file its name but cannot replace another: an existing target is
replaced by a second step, a rename from a name that exists only between these two system calls.
(Checked on Linux 6.18, ext4 and tmpfs.)
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def atomic_write(path: str) -> Iterator[BinaryIO]:
    """Open ``path`` for writing; the bytes take its name when the block ends without an exception.

    Until then they are in a file without a name, or, where the file system has none, in a temporary
    file beside it, which an exception (``KeyboardInterrupt`` too) removes.  An existing file keeps its
    permissions, and a symbolic link still points to it.
    A pipe or a device cannot be replaced: it is written directly.
    """
    target = os.path.realpath(path)
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG | _default_permissions()
    if not stat.S_ISREG(mode):
        with open(path, "wb") as file:
            yield file
        return
    permissions = stat.S_IMODE(mode)
    descriptor = _open_nameless(os.path.dirname(target))
    if descriptor is None:
        with _replacing(target, permissions) as file:
            yield file
        return
    with open(descriptor, "w+b") as file:
        os.fchmod(descriptor, permissions)
        yield file
        file.flush()
        try:
            _link_or_replace(descriptor, target)
        except OSError:
            # This file system has nameless files, but cannot link them: copy the bytes instead.
            with _replacing(target, permissions) as copy:
                file.seek(0)
                shutil.copyfileobj(file, copy)


def _open_nameless(directory: str) -> int | None:
    """Return a descriptor, or None where no nameless file can be made, or be linked through /proc."""
    flag = getattr(os, "O_TMPFILE", 0)
    if not flag or not os.path.isdir("/proc/self/fd"):
        return None
    # Where this fails for another reason, making a named file fails, too.
    with contextlib.suppress(OSError):
        return os.open(directory, flag | os.O_RDWR | os.O_CLOEXEC, 0o600)
    return None


def _link_or_replace(descriptor: int, target: str) -> None:
    # Another process may have made the target meanwhile; the last writer wins, as with a rename.
    with contextlib.suppress(FileExistsError):
        _link(descriptor, target)
        return
    temporary = os.path.join(os.path.dirname(target), f".uringblob-{secrets.token_hex(4)}")
    with _unlink_on_error(temporary):
        _link(descriptor, temporary)
        os.replace(temporary, target)


def _link(descriptor: int, name: str) -> None:
    # With a directory given, CPython calls linkat(2), which can follow the link in /proc to the file;
    # link(2) would not.  The paths are absolute, so the directory itself is not used.
    os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=descriptor, follow_symlinks=True)


@contextlib.contextmanager
def _replacing(target: str, permissions: int) -> Iterator[BinaryIO]:
    descriptor, temporary = tempfile.mkstemp(prefix=".uringblob-", dir=os.path.dirname(target))
    with _unlink_on_error(temporary):
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, permissions)
            yield file
        os.replace(temporary, target)


@contextlib.contextmanager
def _unlink_on_error(temporary: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # Missing if an interrupt came just after the rename.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _default_permissions() -> int:
    """Return what ``open`` gives a new file; ``mkstemp`` gives less."""
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask
