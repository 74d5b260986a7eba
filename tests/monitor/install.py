"""Puts the order monitor between every store and its engine, and ears on the public calls.

There is one seam, and none of it is in the product: ``store.opening`` makes a :class:`FileIO` of
the engine that it was given or has chosen, whichever it is; the one that stands here gives the
medium an :class:`ObservedEngine` instead.
"""

from __future__ import annotations

import contextlib
import mmap
import os

from monitor import children
from monitor.acks import EARS, Promises
from monitor.observed import ObservedEngine
from monitor.order import OrderMonitor
from monitor.readers import readers_of
from uringblob.store.io.file_io import FileIO
from uringblob.store.opening import open as opening

#: What was found and nobody has taken yet.
_lines: list[str] = []
#: The process that takes it; in others (its forks, their children) it is told to that one.
_taker = 0
#: Children of this process, if it is the one that takes.
_children: children.Children | None = None
_switched_off = 0
#: Stores that were watched in this process.
stores = 0


def take() -> list[str]:
    """Return what was found since the last call, here and in the processes that were started here."""
    found = _lines[:]
    del _lines[: len(found)]
    return found + (_children.take() if _children is not None else [])


def pending() -> bool:
    """Whether anything was found in this process that nobody has taken yet."""
    return bool(_lines)


def known_children() -> children.Children:
    """Return what is known of the processes that were started here."""
    return _children


@contextlib.contextmanager
def switched_off():
    """Stores that are opened now are not watched, nor are those of children that are started now."""
    global _switched_off
    _switched_off += 1
    try:
        with children.switched_off():
            yield
    finally:
        _switched_off -= 1


def _report(line: str) -> None:
    if os.getpid() == _taker:
        _lines.append(line)
    else:
        children.tell_alarm(line)


def observed_medium(engine, path, loop) -> FileIO:
    global stores
    if _switched_off:
        return FileIO(engine, path, loop)
    if os.getpid() == _taker:
        stores += 1
    else:
        children.tell_store(path)
    monitor = OrderMonitor(peek_of(engine), _report, name=path, readers=readers_of(engine))
    seen = ObservedEngine(engine, monitor)
    seen.promises = Promises(monitor)
    return FileIO(seen, path, loop)


def peek_of(engine):
    """Return how to read the medium under ``engine`` without asking it."""
    disk = getattr(engine, "disk", None)
    if disk is not None:
        return disk.live.read

    def peek(offset: int, size: int) -> bytes:
        if not hasattr(os, "preadv"):
            return os.pread(engine._fd, size, offset)  # a system without it has no O_DIRECT either
        # Aligned, because the descriptor may be direct.
        with contextlib.closing(mmap.mmap(-1, size)) as room:
            got = os.preadv(engine._fd, [room], offset)
            return room[:got]

    return peek


def install() -> None:
    """Watch every store of this process from now on; its monitors' lines go where :func:`take` looks, or to
    the process that started this one.
    """
    if opening.FileIO is observed_medium:
        return
    opening.FileIO = observed_medium
    for owner, name, ear in EARS:
        setattr(owner, name, ear(getattr(owner, name)))


def install_here() -> None:
    """The same for the process that runs the tests: it takes what is found, and watches its children."""
    global _taker, _children
    install()
    _taker = os.getpid()
    _children = children.Children()
    _children.watch()
    children.insist(_report)


def uninstall() -> None:
    """The tests are over."""
    if _children is not None:
        _children.end()


if children.is_one():
    # Down here, because whoever imported this module may have been the first to import the package.
    install()
    children.plant()
