"""Whether this file has direct I/O, proved by a trial.

``statx`` reports the alignment that direct I/O needs (kernel 6.1 and newer, most file systems), but that
is no proof: overlays pass the question on, network file systems accept the flag and refuse the write.  So
a real aligned write is made to a nameless file in the store's directory, and a real read of the store
itself.  ``fcntl`` sets the flag on the store's descriptor, so that the file is opened once.  (Checked on
Linux 6.18, ext4 and tmpfs.)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import tempfile
from typing import NamedTuple

from uringblob import _native
from uringblob.errors import errno_name
from uringblob.units import BUF_ALIGN

#: Refusals of the trial write although O_DIRECT works: no room, or no right to make a file here.
#: Then the trial read decides alone.
_NO_TRIAL = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EMFILE}
)


def _o_direct() -> int:
    return getattr(os, "O_DIRECT", 0)


class DirectIO(NamedTuple):
    """The decision: ``on`` or not, the alignment of memory in bytes, and why."""

    on: bool
    memory_align: int
    reason: str


class DirectRefused(Exception):
    """A step on the way to direct I/O failed; ``errno`` is 0 where there was none."""

    def __init__(self, reason: str, errno: int = 0) -> None:
        super().__init__(reason)
        self.errno = errno


def enable_direct(fd: int, path: str, *, read_only: bool) -> DirectIO:
    """Set O_DIRECT on ``fd``, the open file at ``path``, if a trial proves that it works.

    If not, the descriptor is as before, ``on`` is false and ``reason`` names what was refused.
    Leaves no file behind.
    """
    try:
        return require_direct(fd, path, read_only=read_only)
    except DirectRefused as refused:
        return DirectIO(on=False, memory_align=1, reason=str(refused))


def require_direct(fd: int, path: str, *, read_only: bool) -> DirectIO:
    """As :func:`enable_direct`, but raises :class:`DirectRefused` if it does not work."""
    if not _o_direct():
        raise DirectRefused("this system has no O_DIRECT")
    memory_align = _asked_alignment(fd)
    if not read_only:
        _try_write(os.path.dirname(os.path.realpath(path)))
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    _set_direct(fd)
    try:
        _try_read(fd)
    except BaseException:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
        raise
    return DirectIO(on=True, memory_align=memory_align, reason="")


def disable_direct(fd: int) -> None:
    """Make sure that ``fd`` uses the page cache."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & _o_direct():
        fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~_o_direct())


def _asked_alignment(fd: int) -> int:
    """Return the memory alignment that the file system requires, in bytes."""
    if _native.ffi is None or _native.lib is None:
        return BUF_ALIGN
    memory = _native.ffi.new("uint32_t *")
    offset = _native.ffi.new("uint32_t *")
    if _native.lib.ub_dioalign(fd, memory, offset) < 0:
        return BUF_ALIGN  # an older kernel, or a file system that does not report it
    if memory[0] == 0 or offset[0] == 0:
        raise DirectRefused("the file system says that it has no direct I/O for this file")
    if memory[0] > BUF_ALIGN or offset[0] > BUF_ALIGN:
        raise DirectRefused(
            f"direct I/O needs memory aligned to {memory[0]} and offsets to {offset[0]} bytes here"
        )
    return int(memory[0])


def _try_write(directory: str) -> None:
    """Write one block directly to a nameless file in ``directory``."""
    try:
        trial = _open_nameless(directory)
    except OSError as error:
        if error.errno in _NO_TRIAL:
            return
        raise _refused("opening a trial file", error) from error
    try:
        _set_direct(trial)
        with contextlib.closing(_aligned_block()) as block:
            put = os.pwrite(trial, block, 0)
    except OSError as error:
        if error.errno not in _NO_TRIAL:
            raise _refused("a direct write", error) from error
    else:
        if put != BUF_ALIGN:
            raise DirectRefused(f"a direct write of {BUF_ALIGN} bytes wrote {put}")
    finally:
        os.close(trial)


def _aligned_block() -> mmap.mmap:
    try:
        return mmap.mmap(-1, BUF_ALIGN)
    except OSError as error:  # unrelated to direct I/O
        raise MemoryError(f"no memory for a trial of direct I/O: {error.strerror}") from error


def _open_nameless(directory: str) -> int:
    flags = getattr(os, "O_TMPFILE", 0)
    if flags:
        # Not every file system has it; mkstemp reports any other error.
        with contextlib.suppress(OSError):
            return os.open(directory, flags | os.O_RDWR | os.O_CLOEXEC, 0o600)
    trial, name = tempfile.mkstemp(prefix=".uringblob-", dir=directory)
    os.unlink(name)
    return trial


def _try_read(fd: int) -> None:
    """Read the file's first block directly (an empty file yields 0 bytes, which is fine)."""
    with contextlib.closing(_aligned_block()) as block, memoryview(block) as view:
        try:
            os.preadv(fd, [view], 0)
        except OSError as error:
            if error.errno == errno.EBADF:
                return  # a descriptor opened for writing only cannot be tried
            raise _refused("a direct read", error) from error


def _set_direct(fd: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | _o_direct())
    except OSError as error:
        raise _refused("setting O_DIRECT", error) from error


def _refused(step: str, error: OSError) -> DirectRefused:
    code = error.errno or 0
    return DirectRefused(f"{step} was refused: {errno_name(code)}", code)
