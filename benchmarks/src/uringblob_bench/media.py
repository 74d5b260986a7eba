"""The media that measures run on: the directory given, and a disk in memory that hides no software.

A disk of 300 µs and more hides what a program adds to it.  The second medium is ext4 on a loop device over
tmpfs: ``O_DIRECT`` works there, and a flush takes some 20 µs.  Making it needs root.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator

from uringblob_bench.hugepages import meminfo
from uringblob_bench.load import MIB

DIRECTORY, MEMORY = "directory", "memory"
MEDIA = (DIRECTORY, MEMORY)
#: The size of every file in memory, where the command line names none: it is the software that is measured.
MEMORY_FILE_BYTES = 256 * MIB
#: Room that all files need, in sizes of one file: every peer makes its own.
ROOM = 12

_PREFIX = "uringblob-bench-memory-"
_TMPFS, _IMAGE, _DISK, _LOCK = "tmpfs", "tmpfs/image", "disk", "lock"
#: Besides the files: ext4 itself, its journal, the logs of large stores.
_SPARE_BYTES = 1024 * MIB
_TIMEOUT_S = 60
#: The kernel releases the files of a ring up to 40 ms after its end.
_BUSY_S, _POLL_S = 2.0, 0.02


class NoMedium(OSError):
    """The disk in memory cannot be made here; the message has the reason, in one line."""


@contextlib.contextmanager
def memory_disk(file_bytes: int, parent: str | None = None) -> Generator[str, None, None]:
    """Mount a disk in memory; yields its directory, and unmounts it at the end.

    It is made below ``parent`` (default: the directory for temporary files), and what runs that were
    killed left there is removed first.

    :raises NoMedium: not root, no program, no memory, or the kernel refuses.
    """
    if os.geteuid():
        raise NoMedium("a loop device over tmpfs needs root")
    parent = parent or tempfile.gettempdir()
    remove_leftovers(parent)
    size = ROOM * file_bytes + _SPARE_BYTES
    available = meminfo("MemAvailable") * 1024
    if size > available // 2:
        raise NoMedium(f"{size / MIB:,.0f} MiB of {available / MIB:,.0f} MiB of free memory are too much")
    base = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
    with open(os.path.join(base, _LOCK), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield _mounted(base, size)
        finally:
            _unmount(base)


def remove_leftovers(parent: str) -> None:
    """Unmount this user's disks below ``parent`` whose run has ended: nobody holds their lock."""
    for path in glob.glob(os.path.join(glob.escape(parent), f"{_PREFIX}*", _LOCK)):
        if os.lstat(path).st_uid != os.geteuid():
            continue
        with contextlib.suppress(OSError), open(path, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _unmount(os.path.dirname(path))


def _mounted(base: str, size: int) -> str:
    tmpfs, image, disk = (os.path.join(base, name) for name in (_TMPFS, _IMAGE, _DISK))
    os.mkdir(tmpfs)
    os.mkdir(disk)
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={size},huge=within_size", "uringblob-bench", tmpfs)
    except NoMedium:  # a kernel without huge pages in tmpfs
        _run("mount", "-t", "tmpfs", "-o", f"size={size}", "uringblob-bench", tmpfs)
    with open(image, "xb") as file:
        file.truncate(size)
    # All of its tables now: else the kernel writes them during the measures.
    eager = "lazy_itable_init=0,lazy_journal_init=0"
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", eager, image)
    _run("mount", "-o", "loop", image, disk)
    return disk


def _unmount(base: str) -> None:
    for name in (_DISK, _TMPFS):
        path = os.path.join(base, name)
        deadline = time.monotonic() + _BUSY_S
        while os.path.ismount(path):
            lazily = ["-l"] if time.monotonic() > deadline else []
            with contextlib.suppress(NoMedium):
                _run("umount", *lazily, path)
                continue
            if lazily:
                return  # what cannot be unmounted must not be removed
            time.sleep(_POLL_S)
    shutil.rmtree(base, ignore_errors=True)


def _run(*command: str) -> None:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoMedium(f"{command[0]}: {error}") from None
    if ran.returncode:
        reason = " ".join((ran.stderr or ran.stdout).split())
        raise NoMedium(f"{command[0]} ended with {ran.returncode}: {reason}")
