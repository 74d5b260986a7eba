"""Whether reads show what the medium holds, or may be a cache's (docs/maintainers/format.md, rules 12 and 14).

After a failed flush a cache still shows what the medium lost.  Which reads are trusted, and why, is a table
in that page's section on readers after a crash.  ``O_DIRECT`` on the descriptor proves nothing: some file
systems accept it and read through a cache.  A read of one byte at offset 1 distinguishes them: a device
moves whole sectors, so a direct read is EINVAL, and only a cache can serve it (Linux 6.18).
"""

from __future__ import annotations

import errno
import os

from uringblob.engines.copy_on_write import file_system, is_no_cow

#: The page cache is all there is; a flush does nothing.
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
#: They have no way to write.
_NEVER_WRITTEN = frozenset({"squashfs", "erofs", "iso9660", "cramfs", "romfs"})


def why_cached(fd: int, *, direct_io: bool, flushed: bool) -> str:
    """Return why reads of ``fd`` may be a cache's and not the medium's, or "".

    :param direct_io: ``fd`` has O_DIRECT.
    :param flushed: a flush of ``fd`` has returned 0 since it was locked.
    """
    if direct_io and flushed and _bypasses_caches(fd):
        return ""
    if file_system(fd) in _IN_MEMORY | _NEVER_WRITTEN:
        return ""
    if not direct_io:
        return "it was read through the page cache"
    return (
        "the file system serves direct reads from a cache" if flushed else "the file system refused to flush"
    )


def _bypasses_caches(fd: int) -> bool:
    try:
        os.pread(fd, 1, 1)
    except OSError as error:
        return error.errno == errno.EINVAL
    # btrfs answers from its cache what is not aligned, and what lies compressed or inline; the latter
    # cannot be in a file that is overwritten in place.
    return file_system(fd) == "btrfs" and is_no_cow(fd)
