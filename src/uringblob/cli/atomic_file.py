"""A file that is there whole or not at all: an interrupt or a full disk leaves what was there before.

Where the file system has files without a name (O_TMPFILE), not even a SIGKILL leaves anything beside
the target.  linkat(2) gives such a file its name and cannot replace another's: an existing target is
replaced by a second step, a rename from a name that is there between these two system calls only.
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
from io import FileIO


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[FileIO]:
    """Open ``path`` for unbuffered writing; it takes its name only when the block ends without an exception.

    Until then the bytes go to a file without a name, or, where the file system has none, to a
    temporary file beside it, which an exception (``KeyboardInterrupt`` too) removes.  An existing
    file keeps its permissions, and a symbolic link goes on pointing to it.
    What is no regular file, a pipe or a device, cannot be replaced: it is written as the bytes come.
    """
    target = os.path.realpath(path)
    mode = _mode(target)
    if mode is not None and not stat.S_ISREG(mode):
        with open(path, "wb", buffering=0) as file:
            yield file
        return
    permissions = _usual_mode() if mode is None else stat.S_IMODE(mode)
    directory = os.path.dirname(target)
    descriptor = _open_nameless(directory)
    if descriptor is None:
        with _named(target, permissions) as file:
            yield file
        return
    with open(descriptor, "w+b", buffering=0) as file:
        os.fchmod(descriptor, permissions)
        yield file
        try:
            _take_name(descriptor, target)
        except OSError:
            # Nameless files, but no links to them: seen nowhere yet, and not worth losing the frame.
            with _named(target, permissions) as copy:
                file.seek(0)
                shutil.copyfileobj(file, copy)


def _open_nameless(directory: str) -> int | None:
    """Return a descriptor, or None where a file without a name cannot be had, or not be named later."""
    flag = getattr(os, "O_TMPFILE", 0)
    if not flag or not os.path.isdir("/proc/self/fd"):
        return None
    # Not every file system has it; whatever else is wrong, the named way meets as well.
    with contextlib.suppress(OSError):
        return os.open(directory, flag | os.O_RDWR | os.O_CLOEXEC, 0o600)
    return None


def _take_name(descriptor: int, target: str) -> None:
    # Somebody else's file may have come in between; the last one wins, as with a rename.
    with contextlib.suppress(FileExistsError):
        _link(descriptor, target)
        return
    temporary = os.path.join(os.path.dirname(target), f".uringblob-{secrets.token_hex(4)}")
    with _removed_unless_done(temporary):
        _link(descriptor, temporary)
        os.replace(temporary, target)


def _link(descriptor: int, name: str) -> None:
    # With a directory given, CPython uses linkat(2), which can follow the link in /proc to the file;
    # plain link(2) would not.  The paths are absolute: the directory itself is never looked at.
    os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=descriptor, follow_symlinks=True)


@contextlib.contextmanager
def _named(target: str, permissions: int) -> Iterator[FileIO]:
    descriptor, temporary = tempfile.mkstemp(prefix=".uringblob-", dir=os.path.dirname(target))
    with _removed_unless_done(temporary):
        with open(descriptor, "wb", buffering=0) as file:
            os.fchmod(descriptor, permissions)
            yield file
        os.replace(temporary, target)


@contextlib.contextmanager
def _removed_unless_done(temporary: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # Gone when the interrupt came just after it took its name.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _mode(path: str) -> int | None:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _usual_mode() -> int:
    """What ``open`` would give a new file; ``mkstemp`` gives less."""
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask
