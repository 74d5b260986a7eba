"""Whether what an opener reads is what the medium holds, or may be a cache's (rules 12 and 14).

After a failed flush a cache goes on to show what the medium lost.  So an opener believes its reads
where one of these holds:

* **The reads are direct, and a flush has returned.**  Direct I/O passes over the page cache, and what
  the device itself had cached is flushed.  That the descriptor has ``O_DIRECT`` proves nothing: ext4
  with ``data=journal``, btrfs (compressed and inline extents), ZFS before 2.3, FUSE and NFS take the
  flag and read through a cache of theirs.  What tells them apart is a read of one byte at offset 1: a
  device moves whole sectors, so a direct read of it is EINVAL, and only a cache can answer it.
  (Linux 6.18: ext4, xfs and overlays on them refuse; ext4 with ``data=journal``, btrfs and tmpfs answer.)
* **The cache is the medium**, as in tmpfs.
* **The file system cannot be written**, so nothing in its cache was ever lost.  One that is *mounted*
  read-only does not count: ext4 becomes read-only because a write failed, and keeps the lost pages.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from pathlib import Path

#: The page cache is all there is of them; a flush is nothing.
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
#: They have no way to write.
_NEVER_WRITTEN = frozenset({"squashfs", "erofs", "iso9660", "cramfs", "romfs"})

#: ``ioctl``: the inode's flags (``chattr``), as in ``linux/fs.h``; the number has the size of a C long.
_FS_IOC_GETFLAGS = 0x8008_6601
_FS_NOCOW_FL = 0x0080_0000


def why_cached(fd: int, *, direct_io: bool, flushed: bool) -> str:
    """Return why what ``fd`` reads may be a cache's and not the medium's, or "".

    :param direct_io: ``fd`` has O_DIRECT.
    :param flushed: a flush of ``fd`` has returned 0 since it was locked.
    """
    if direct_io and flushed and _reads_past_caches(fd):
        return ""
    kind = _file_system(fd)
    if kind in _IN_MEMORY or kind in _NEVER_WRITTEN:
        return ""
    if not direct_io:
        return "it was read through the page cache"
    return (
        "the file system serves direct reads from a cache" if flushed else "the file system refused to flush"
    )


def _reads_past_caches(fd: int) -> bool:
    try:
        os.pread(fd, 1, 1)
    except OSError as error:
        return error.errno == errno.EINVAL
    # btrfs answers from its cache what is not aligned, and what lies compressed or inline; the latter
    # cannot be in a file that is overwritten in place.
    return _is_overwritten_in_place(fd)


def _is_overwritten_in_place(fd: int) -> bool:
    flags = bytearray(8)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags)
    except OSError:
        return False
    return _file_system(fd) == "btrfs" and bool(int.from_bytes(flags[:4], "little") & _FS_NOCOW_FL)


def _file_system(fd: int) -> str:
    """Return the type of the file system that ``fd`` lies on, or ""; device numbers do not tell (btrfs)."""
    with contextlib.suppress(OSError):
        mount = re.search(r"^mnt_id:\s*(\d+)$", Path(f"/proc/self/fdinfo/{fd}").read_text(), re.MULTILINE)
        for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
            left, _, right = line.partition(" - ")
            if mount and left.split(" ", 1)[0] == mount[1]:
                return right.split(" ", 1)[0]
    return ""
