"""Puts the order monitor between every store and its engine, and ears on the public calls.

There is one seam, and none of it is in the product: ``store.opening`` makes a :class:`Medium` of
the engine that it was given or has chosen, whichever it is; the one that stands here gives the
medium an :class:`ObservedEngine` instead.
"""

from __future__ import annotations

import contextlib
import mmap
import os

from monitor.acks import EARS, Promises
from monitor.observed import ObservedEngine
from monitor.order import OrderMonitor
from uringblob.store import opening
from uringblob.store.medium import Medium

#: What the monitors of this process have found and nobody has taken yet.
_lines: list[str] = []
_switched_off = 0


def take() -> list[str]:
    """Return what was found since the last call."""
    found = _lines[:]
    del _lines[: len(found)]
    return found


def pending() -> bool:
    """Whether anything was found that nobody has taken yet."""
    return bool(_lines)


@contextlib.contextmanager
def switched_off():
    """Stores that are opened now are not watched."""
    global _switched_off
    _switched_off += 1
    try:
        yield
    finally:
        _switched_off -= 1


def observed_medium(engine, path, loop) -> Medium:
    if _switched_off:
        return Medium(engine, path, loop)
    monitor = OrderMonitor(peek_of(engine), _lines.append, name=path)
    seen = ObservedEngine(engine, monitor)
    seen.promises = Promises(monitor)
    return Medium(seen, path, loop)


def peek_of(engine):
    """Return how to read the medium under ``engine`` without asking it."""
    disk = getattr(engine, "disk", None)
    if disk is not None:
        return disk.live.read

    def peek(offset: int, size: int) -> bytes:
        # Aligned, because the descriptor may be direct.
        with contextlib.closing(mmap.mmap(-1, size)) as room:
            got = os.preadv(engine._fd, [room], offset)
            return room[:got]

    return peek


def install() -> None:
    """For this process, from now on."""
    opening.Medium = observed_medium
    for owner, name, ear in EARS:
        setattr(owner, name, ear(getattr(owner, name)))
