"""Positional calls, with substitutes for those that this system lacks.

``preadv`` and ``pwritev`` are missing before macOS 11, ``fdatasync`` on macOS, and fsync there leaves
the data in the drive's cache, so macOS needs ``F_FULLFSYNC``.  The calls are chosen when an engine is
opened, not when this module is imported.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

#: Errnos of a file system without F_FULLFSYNC (a network mount, for example).
_NO_FULLFSYNC = frozenset({errno.ENOTSUP, errno.EINVAL, errno.ENOTTY})

#: Errnos of fallocate where blocks cannot be reserved.  (With O_DIRECT glibc's emulation of
#: posix_fallocate, which writes single bytes, ends in EINVAL.)
NO_FALLOCATE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV})

#: ``FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE``.
PUNCH_HOLE = 0x03
#: ``FS_IOC_UNRESVSP64`` does the same without a call that the os module lacks, and its ``struct space_resv``.
_UNRESVSP = 0x4030582B
_SPACE_RESV = struct.Struct("=hhxxxxqqiI16x")

#: Answers of lseek where it knows of no holes.
_NO_SEEK_DATA = frozenset({-errno.EINVAL, -errno.ENOTSUP, -errno.ENOSYS})

Vectored = Callable[[int, Sequence[memoryview], int], int]


class PosixCalls(NamedTuple):
    """The calls to use here; each may raise ``OSError``."""

    readv: Vectored
    writev: Vectored
    sync: Callable[[int], None]


def pick_calls() -> PosixCalls:
    """Return the best calls that this system has now."""
    sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
    if sys.platform == "darwin" and hasattr(fcntl, "F_FULLFSYNC"):
        sync = _full_sync
    return PosixCalls(
        readv=getattr(os, "preadv", None) or _read_each,
        writev=getattr(os, "pwritev", None) or _write_each,
        sync=sync,
    )


def _full_sync(fd: int) -> None:
    try:
        fcntl.fcntl(fd, getattr(fcntl, "F_FULLFSYNC"))  # noqa: B009 - typeshed has it for macOS only
    except OSError as error:
        if error.errno not in _NO_FULLFSYNC:
            raise
        os.fsync(fd)


def _read_each(fd: int, views: Sequence[memoryview], offset: int) -> int:
    done = 0
    for view in views:
        data = os.pread(fd, len(view), offset + done)
        view[: len(data)] = data
        done += len(data)
        if len(data) < len(view):
            break
    return done


def _write_each(fd: int, views: Sequence[memoryview], offset: int) -> int:
    done = 0
    for view in views:
        try:
            put = os.pwrite(fd, view, offset + done)
        except OSError:
            if done:
                return done  # the bytes written count; the rest will be refused again
            raise
        done += put
        if put < len(view):
            break
    return done


def number_of(call: Callable[..., int], *args: Any) -> int:
    """Return the call's result, or ``-errno`` for the ``OSError`` of a system call.

    One without an errno passes through: a signal handler raised it, such as a ``TimeoutError``.
    """
    try:
        return call(*args)
    except OSError as error:
        if error.errno is None:
            raise
        return -error.errno


def sync_file(calls: PosixCalls, fd: int) -> int:
    """fdatasync; return 0."""
    calls.sync(fd)
    return 0


def size_of_file(fd: int) -> int:
    """Return the file's length in bytes, or ``-errno``: a file system that has died reports none."""
    return number_of(_size, fd)


def _size(fd: int) -> int:
    return os.fstat(fd).st_size


def next_data(fd: int, offset: int) -> int:
    """Return the first offset, from ``offset`` on, that is in no hole, or ``-errno``; ENXIO: there is none.

    Where the system knows of no holes, nothing is in one.
    """
    answer = number_of(os.lseek, fd, offset, getattr(os, "SEEK_DATA", -1))
    return offset if answer in _NO_SEEK_DATA else answer


def grow_file(fd: int, size: int) -> None:
    """Make the file ``size`` bytes long, with real blocks where the file system can.

    A file that is long enough is left alone.

    :raises OSError: refused; the file is as long as before.
    """
    before = _size(fd)
    if before < size:
        rc = finish_growth(fd, before, size, number_of(_allocate, fd, before, size))
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc))


def cut_file(fd: int, size: int) -> int:
    """Cut the file down to ``size`` bytes; return 0."""
    os.ftruncate(fd, size)
    return 0


def punch_file(fd: int, offset: int, size: int) -> int:
    """Give the blocks of a part of the file back; return 0.

    :raises OSError: refused; one of :data:`NO_FALLOCATE` where this system or file system cannot.
    """
    if sys.platform != "linux":
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    try:
        fcntl.ioctl(fd, _UNRESVSP, _SPACE_RESV.pack(0, os.SEEK_SET, offset, size, 0, 0))
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)) from error
    return 0


def allocate_in_file(fd: int, offset: int, size: int) -> int:
    """Allocate blocks for a part of the file, if the file system can; return 0, or ``-errno``."""
    return can_do_without(number_of(_allocate, fd, offset, offset + size))


def can_do_without(rc: int) -> int:
    """Return the result of fallocate, or 0 if it says that there is no such thing here."""
    return 0 if -rc in NO_FALLOCATE else rc


def _allocate(fd: int, before: int, size: int) -> int:
    if not hasattr(os, "posix_fallocate"):
        return -errno.EOPNOTSUPP
    os.posix_fallocate(fd, before, size - before)
    return 0


def finish_growth(fd: int, before: int, size: int, rc: int) -> int:
    """Finish growing from ``before`` to ``size`` bytes, for which fallocate returned ``rc``.

    Returns 0, or ``-errno``; then the file is as long as before.
    """
    try:
        if -rc in NO_FALLOCATE:
            os.ftruncate(fd, size)
            return 0
        if rc < 0 and _size(fd) > before:
            os.ftruncate(fd, before)  # ext4 leaves the file longer
    except OSError as error:
        if error.errno is None:
            raise  # as in number_of()
        return -error.errno
    return rc
