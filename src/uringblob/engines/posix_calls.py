"""Positional calls as numbers: bytes moved or ``-errno``, whatever this system lacks.

``preadv`` and ``pwritev`` are missing before macOS 11, ``fdatasync`` on macOS, and fsync there
leaves the data in the drive's cache, so macOS needs ``F_FULLFSYNC``.  What is there is looked
up when an engine is opened, not when this module is imported.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

#: What a file system answers that knows nothing of F_FULLFSYNC (network mounts, for example).
_NO_FULLFSYNC = frozenset({errno.ENOTSUP, errno.EINVAL, errno.ENOTTY})

#: What posix_fallocate answers where blocks cannot be reserved.  (With O_DIRECT glibc's
#: emulation, which writes single bytes, ends in EINVAL.)
_NO_FALLOCATE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV})

Vectored = Callable[[int, Sequence[memoryview], int], int]


class PosixCalls(NamedTuple):
    """The calls to use here; each may raise ``OSError``."""

    readv: Vectored
    writev: Vectored
    sync: Callable[[int], None]


def pick_calls() -> PosixCalls:
    """Return the best calls that this system has now."""
    return PosixCalls(
        readv=getattr(os, "preadv", None) or _read_each,
        writev=getattr(os, "pwritev", None) or _write_each,
        sync=_pick_sync(),
    )


def _pick_sync() -> Callable[[int], None]:
    if sys.platform == "darwin" and hasattr(fcntl, "F_FULLFSYNC"):
        return _full_sync
    fdatasync: Callable[[int], None] | None = getattr(os, "fdatasync", None)
    return fdatasync or os.fsync


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
                return done  # what was written counts; the rest will be refused again
            raise
        done += put
        if put < len(view):
            break
    return done


def number_of(call: Callable[..., int], *args: Any) -> int:
    """Make the call; what the system refused is ``-errno``."""
    try:
        return call(*args)
    except OSError as error:
        return -(error.errno or errno.EIO)


def read_now(calls: PosixCalls, fd: int, offset: int, view: memoryview) -> int:
    """Fill ``view`` in the calling thread; bytes read or ``-errno``."""
    try:
        return calls.readv(fd, (view,), offset)
    except OSError as error:
        return -(error.errno or errno.EIO)


def size_of_file(fd: int) -> int:
    """Return the file's length in bytes, or ``-errno``: a file system that has died says nothing."""
    try:
        return os.fstat(fd).st_size
    except OSError as error:
        return -(error.errno or errno.EIO)


def grow_file(fd: int, size: int) -> None:
    """Make the file ``size`` bytes long, with real blocks where the file system can.

    A file that is long enough is left alone.

    :raises OSError: refused; the file is as long as before.
    """
    before = os.fstat(fd).st_size
    if before >= size:
        return
    try:
        _allocate(fd, before, size)
    except BaseException:
        # ext4 leaves the file longer after a fallocate that failed.
        os.ftruncate(fd, before)
        raise


def _allocate(fd: int, before: int, size: int) -> None:
    allocate = getattr(os, "posix_fallocate", None)
    if allocate is not None:
        try:
            allocate(fd, before, size - before)
            return
        except OSError as error:
            if error.errno not in _NO_FALLOCATE:
                raise
    os.ftruncate(fd, size)
