"""Huge pages or not: memory that is made inside ``small_pages`` lies on 4 KiB pages.

``prctl(PR_SET_THP_DISABLE)`` overrules the advice that a slab gives, for the whole process, when
memory is first touched; registering a buffer touches it.  (Linux 6.18.)
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Generator

_PR_SET_THP_DISABLE = 41


@contextlib.contextmanager
def small_pages(wanted: bool) -> Generator[None, None, None]:
    """Take transparent huge pages away meanwhile.

    :raises OSError: this system cannot.
    """
    if not wanted:
        yield
        return
    _forbid_huge_pages(True)
    try:
        yield
    finally:
        _forbid_huge_pages(False)


def _forbid_huge_pages(forbidden: bool) -> None:
    if not sys.platform.startswith("linux"):
        raise OSError("only Linux has PR_SET_THP_DISABLE")
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_THP_DISABLE, int(forbidden), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_THP_DISABLE)")
