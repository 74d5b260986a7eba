"""Take from this Python what some system does not have.  Import it before ``uringblob``."""

from __future__ import annotations

import mmap
import os
import sys

#: Not on macOS, or not everywhere else that is POSIX.
OS_NAMES = """
    fdatasync preadv pwritev preadv2 pwritev2 O_DIRECT O_TMPFILE posix_fallocate posix_fadvise
    POSIX_FADV_DONTNEED
""".split()
MMAP_NAMES = ["MADV_HUGEPAGE", "MADV_NOHUGEPAGE", "MADV_DONTNEED"]


def strip():
    """Pretend to be a Mac without a compiler: no extension, hence no statx and no io_uring."""
    assert not any(name.split(".")[0] == "uringblob" for name in sys.modules)
    os.environ["URINGBLOB_NO_EXT"] = "1"
    # Not only hidden by its own switch: it cannot be imported at all.
    sys.modules["uringblob._native._uringblob"] = None
    for module, names in [(os, OS_NAMES), (mmap, MMAP_NAMES)]:
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    # Last: asyncio asks for it when it is imported, and this *is* still Linux below.
    import asyncio  # noqa: F401

    sys.platform = "darwin"
