"""Huge pages of the kernel's pool, which fio's ``mem=mmaphuge`` takes; ours are transparent ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator

POOL = "/proc/sys/vm/nr_hugepages"
_KIB = 1024
_SIGN_BIT = 1 << 63
#: How long to wait for pages that a process had pinned through its ring, after its end.
_SETTLE_S = 5.0
_POLL_S = 0.01


def meminfo(name: str) -> int:
    """Return a number of ``/proc/meminfo``, 0 where there is none."""
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0])
    return 0


def page_bytes() -> int:
    """Return the size of a huge page of the pool."""
    return meminfo("Hugepagesize") * _KIB


def free_bytes() -> int:
    """Return how much of the pool may still be taken."""
    reserved_pages = meminfo("HugePages_Rsvd")
    # For a moment after a process with a ring has ended, the kernel's unsigned counter is below zero.
    if reserved_pages >= _SIGN_BIT:
        reserved_pages = 0
    return (meminfo("HugePages_Free") - reserved_pages) * page_bytes()


def will_be_free(size: int, pause: Callable[[float], object] = time.sleep) -> bool:
    """Return whether ``size`` bytes of the pool are free, now or in a moment.

    The kernel unpins a ring's memory some time after its process has ended.  Of two turns of fio in close
    succession the second one ran on small pages: 2,200 frames a second instead of 5,500.
    """
    deadline = time.monotonic() + _SETTLE_S
    while free_bytes() < size:
        if meminfo("HugePages_Total") * page_bytes() < size or time.monotonic() > deadline:
            return False
        pause(_POLL_S)
    return True


@contextlib.contextmanager
def reserved(size: int) -> Generator[str, None, None]:
    """Raise the pool by ``size`` bytes of huge pages within the block, as root; yields what was done, in words."""
    if free_bytes() >= size:
        yield f"{free_bytes()} bytes of huge pages were there"
        return
    pages = -(-size // max(page_bytes(), 1))
    try:
        before = _pool()
        _set_pool(before + pages)
        added = _pool() - before
    except (OSError, ValueError) as error:
        yield f"no huge pages for fio (mem=mmap instead): {error}"
        return
    try:
        yield f"raised {POOL} by {added} from {before} for this run; {free_bytes()} bytes are free"
    finally:
        # Not back to what it was: another run may have raised it meanwhile.
        _set_pool(max(_pool() - added, 0))


def _pool() -> int:
    with open(POOL, encoding="ascii") as file:
        return int(file.read())


def _set_pool(pages: int) -> None:
    with open(POOL, "w", encoding="ascii") as file:
        file.write(str(pages))
