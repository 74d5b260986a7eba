"""Whether overwriting a file needs new space, and how to prevent that for a new file.

A store overwrites allocated blocks: reused slots, the log's zeroed blocks, the superblocks.  On most file
systems that needs no space.  It does

* on a copy-on-write file system (btrfs, zfs, bcachefs, nilfs2): each write goes to a new block.  btrfs
  overwrites a file made with ``FS_NOCOW_FL``, which must be set before its first byte;
* for blocks that a file shares with a copy (``cp --reflink``) or a snapshot: once for each of them.

There a full disk, or a quota, can refuse a write to space that the store has allocated long ago.
"""

from __future__ import annotations

import array
import fcntl
import struct
import sys
from pathlib import Path
from typing import Final

#: ``_IOR('f', 1, long)`` and ``_IOW('f', 2, long)``; where the numbers differ, they are refused.
_LONG: Final = struct.calcsize("l") << 16 | ord("f") << 8
_GETFLAGS: Final = 2 << 30 | _LONG | 1
_SETFLAGS: Final = 1 << 30 | _LONG | 2
_COMPRESSED: Final = 0x4
_NO_COW: Final = 0x800000

#: ``struct fiemap`` and ``struct fiemap_extent``.
_FIEMAP: Final = 0xC020660B
_REQUEST: Final = struct.Struct("=QQLLLL")
_EXTENT: Final = struct.Struct("=QQQQQLLLL")
_EXTENTS_ASKED: Final = 256
_SHARED: Final = 0x2000

NEVER_OVERWRITE: Final = frozenset({"btrfs", "zfs", "bcachefs", "nilfs2"})
CAN_SHARE: Final = frozenset({"btrfs", "xfs", "bcachefs", "ocfs2"})


def make_no_cow(fd: int) -> None:
    """Have ``fd``, an empty file, overwritten in place; does nothing where the file system cannot.

    Compression, inherited from the directory, would prevent that, so it is cleared, too.
    """
    if sys.platform != "linux":
        return
    try:
        flags = _flags(fd)
        if flags & _COMPRESSED:  # btrfs refuses to change both at once
            fcntl.ioctl(fd, _SETFLAGS, array.array("l", [flags & ~_COMPRESSED]))
        if not flags & _NO_COW:
            fcntl.ioctl(fd, _SETFLAGS, array.array("l", [flags & ~_COMPRESSED | _NO_COW]))
    except OSError:
        return  # unknown there, or refused: why_copied reports it


def _flags(fd: int) -> int:
    answer = array.array("l", [0])
    fcntl.ioctl(fd, _GETFLAGS, answer, True)
    return answer[0] & 0xFFFFFFFF


def why_copied(fd: int, proc: Path = Path("/proc/self")) -> str:
    """Return why overwriting ``fd`` may need new space, or ``""``.

    Looks at the first 256 extents only, for the sake of large files.
    """
    if sys.platform != "linux":
        return ""
    kind = file_system(fd, proc)
    if kind in NEVER_OVERWRITE and not is_no_cow(fd):
        return f"{kind} copies each block that is overwritten, and this file is not no-COW"
    if kind in CAN_SHARE and _shares_blocks(fd):
        return "the file shares blocks with a copy or a snapshot of it, so overwriting copies them"
    return ""


def file_system(fd: int, proc: Path = Path("/proc/self")) -> str:
    """Return the type of the file system of ``fd``; ``""`` where /proc does not show it."""
    try:
        info = (proc / "fdinfo" / str(fd)).read_text("ascii", "replace")
        mount = next(line.split()[1] for line in info.splitlines() if line.startswith("mnt_id:"))
        for line in (proc / "mountinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith(f"{mount} "):
                return line.partition(" - ")[2].split()[0]
    except (OSError, StopIteration):
        return ""
    return ""


def is_no_cow(fd: int) -> bool:
    """Whether ``fd`` is overwritten in place on a file system that otherwise copies."""
    try:
        return bool(_flags(fd) & _NO_COW)
    except OSError:
        return False  # a file system without such flags


def _shares_blocks(fd: int) -> bool:
    asked = bytearray(_REQUEST.size + _EXTENTS_ASKED * _EXTENT.size)
    _REQUEST.pack_into(asked, 0, 0, (1 << 64) - 1, 0, 0, _EXTENTS_ASKED, 0)
    try:
        fcntl.ioctl(fd, _FIEMAP, asked, True)
    except OSError:
        return False  # a file system without FIEMAP
    count = _REQUEST.unpack_from(asked)[3]
    places = range(_REQUEST.size, _REQUEST.size + count * _EXTENT.size, _EXTENT.size)
    return any(_EXTENT.unpack_from(asked, at)[5] & _SHARED for at in places)
