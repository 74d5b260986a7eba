"""A file that is there whole or not at all: an interrupt or a full disk leaves what was there before."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from io import FileIO


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[FileIO]:
    """Open ``path`` for unbuffered writing; it takes its name only when the block ends without an exception.

    Until then the bytes go to a temporary file beside it, which an exception (``KeyboardInterrupt``
    too) removes.  An existing file keeps its permissions, and a symbolic link goes on pointing to it.
    What is no regular file, a pipe or a device, cannot be replaced: it is written as the bytes come.
    """
    target = os.path.realpath(path)
    mode = _mode(target)
    if mode is not None and not stat.S_ISREG(mode):
        with open(path, "wb", buffering=0) as file:
            yield file
        return
    descriptor, temporary = tempfile.mkstemp(prefix=".uringblob-", dir=os.path.dirname(target))
    try:
        with open(descriptor, "wb", buffering=0) as file:
            os.fchmod(descriptor, _usual_mode() if mode is None else stat.S_IMODE(mode))
            yield file
        os.replace(temporary, target)
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
