"""The smoke test: a real store in the directory, with each engine.

A store has a name, so it needs a directory of its own, which a killed doctor leaves behind.  The doctor
holds a lock (flock(2)) on it while it works, so one without a lock was left behind.  On a network file
system a lock may not be visible to other machines, so only a directory that is an hour old is removed;
a whole run takes seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from typing import Final

from uringblob.cli.doctor.facts import CheckResult, Level
from uringblob.errors import BlobStoreError, EngineUnavailable, encodable, errno_name
from uringblob.guid import BlobGuid
from uringblob.logs import logger
from uringblob.sync.file_store import FileBlobStore

PREFIX: Final = ".uringblob-doctor-"
STALE_AFTER_S: Final = 3600.0
#: The name that ``mkdtemp`` makes of the prefix, and the files that creating and using a store makes there.
_NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")
_CONTENTS = re.compile(r"trial\.blobs|\.[0-9a-f]{16}\.uringblob\.new|\.uringblob-[a-z0-9_]{8}")
_PAGE_SIZE: Final = 4096


def check_store(engine: str, directory: str) -> CheckResult:
    """Make a store with this engine, commit a frame, open it again, and read the frame."""
    field = "uring" if engine == "io_uring" else "pread"
    try:
        with _smoke_test_directory(directory) as place, _quiet():
            text = _commit_and_read(os.path.join(place, "trial.blobs"), engine)
    except EngineUnavailable as error:
        facts = {"uring_store": error.errno or -1, "uring_stage": error.stage, "uring_text": str(error)}
        return CheckResult(f"no: refused at {error.stage}", Level.BAD, facts)
    except (BlobStoreError, OSError) as error:
        number = getattr(error, "errno", None) or -1
        # The directory's name instead of that of the temporary store.
        why = f"{encodable(directory)}: {errno_name(number)}" if number > 0 else str(error)
        return CheckResult(f"no: {why}", Level.BAD, {f"{field}_store": number, f"{field}_text": why})
    return CheckResult(text, facts={f"{field}_store": 0})


def _commit_and_read(path: str, engine: str) -> str:
    guid, frame, back = BlobGuid.random(), os.urandom(_PAGE_SIZE), bytearray(_PAGE_SIZE)
    with FileBlobStore.open(path, engine=engine, page_size=_PAGE_SIZE) as store:
        store.commit([(guid, frame)])
    with FileBlobStore.open(path, engine=engine, create=False) as store:
        store.read_blob(guid, back)
        stats = store.stats()
    if back != frame:
        raise BlobStoreError("the frame read is not the frame written")
    return f"committed, reopened and read; {'O_DIRECT' if stats.direct_io else 'through the page cache'}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Disable the log ``uringblob``: its warnings would repeat the diagnosis."""
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was


@contextlib.contextmanager
def _smoke_test_directory(parent: str) -> Iterator[str]:
    """Make a locked directory in ``parent``; before it, remove stale ones.

    :raises OSError: it cannot be made.
    """
    remove_stale(parent)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent) as place, _opened(place) as fd:
        # Until here it is unlocked, and too young to be removed.
        # Where the file system has no locks, remove_stale fails to lock and removes nothing.
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield place


def remove_stale(parent: str) -> None:
    """Remove the directories that killed doctors of this user left in ``parent``; ignore errors."""
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            if _NAME.fullmatch(name):
                with contextlib.suppress(OSError):
                    _remove_if_stale(os.path.join(parent, name))


def _remove_if_stale(path: str) -> None:
    with _opened(path) as fd:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or time.time() - status.st_mtime < STALE_AFTER_S:
            return
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its doctor still runs
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
