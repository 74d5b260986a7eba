"""Huge pages of the kernel's pool, which fio's ``mem=mmaphuge`` takes; ours are transparent ones."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

POOL = "/proc/sys/vm/nr_hugepages"
_KIB = 1024


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
    return (meminfo("HugePages_Free") - meminfo("HugePages_Rsvd")) * page_bytes()


@contextlib.contextmanager
def reserved(size: int) -> Generator[str, None, None]:
    """Have ``size`` bytes of huge pages meanwhile, as root; yields what was done, in words."""
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
