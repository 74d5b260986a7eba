"""The directory of the trial store, and what a doctor that was killed left of one.

A store has a name, so its trial needs one.  The doctor holds a lock (flock(2)) on the directory while
it works: one that nobody holds was left behind.  Not every lock reaches another machine on a network
file system, so only one that is an hour old is removed; a whole run takes seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator

PREFIX = ".uringblob-doctor-"
#: What ``mkdtemp`` makes of the prefix, and what a store's creation and trial put there.
_NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")
_CONTENTS = re.compile(r"trial\.blobs|\.[0-9a-f]{16}\.uringblob\.new|\.uringblob-[a-z0-9_]{8}")
STALE_AFTER_S = 3600.0


@contextlib.contextmanager
def trial_directory(parent: str) -> Iterator[str]:
    """Make a locked directory in ``parent``, remove it after the block, and stale ones before it.

    :raises OSError: it cannot be made.
    """
    remove_stale(parent)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent) as place, _opened(place) as fd:
        # Nobody has removed it until here: it is too young.
        # Where there are no locks, nobody can take one, and nothing is removed.
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield place


def remove_stale(parent: str) -> None:
    """Remove what dead doctors of this user left in ``parent``; what cannot be, stays."""
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            if _NAME.fullmatch(name):
                with contextlib.suppress(OSError):
                    _remove_if_stale(os.path.join(parent, name))


def _remove_if_stale(path: str) -> None:
    with _opened(path) as fd:
        facts = os.fstat(fd)
        if facts.st_uid != os.geteuid() or time.time() - facts.st_mtime < STALE_AFTER_S:
            return
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its doctor lives
        names = os.listdir(fd)
        if all(map(_CONTENTS.fullmatch, names)):
            for name in names:
                os.unlink(name, dir_fd=fd)
            os.rmdir(path)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
