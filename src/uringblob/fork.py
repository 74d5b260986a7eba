"""The at-fork registry: what a forked child does with the stores that it inherits.

The child's copies of ring and file keep the parent's lock alive, so they are closed at once,
without ``LOCK_UN``, which would unlock the parent's file, and without a call to the event loop,
whose epoll set is shared with the parent.  Use of such a store is a ``RuntimeError``.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """An object with descriptors that a forked child closes.

    A store also has its ``path``, and ``left_behind``: it is open, and its event loop is closed.
    """

    def abandon(self) -> None:
        """Close this process's copies; write nothing, unlock nothing, take no lock."""


_inherited: weakref.WeakSet[Inherited] = weakref.WeakSet()


def remember(each: Inherited) -> None:
    """Abandon ``each`` in every child forked from now on."""
    _inherited.add(each)


def forget(each: Inherited) -> None:
    """Undo :func:`remember`: it is closed."""
    _inherited.discard(each)


def left_behind(path: str) -> bool:
    """Whether an open store of this process whose event loop is closed has the file at ``path``."""
    stores = (each for each in list(_inherited) if getattr(each, "left_behind", False))
    return any(getattr(store, "path", "") == path for store in stores)


def _in_child() -> None:
    for each in list(_inherited):
        each.abandon()
    _inherited.clear()


os.register_at_fork(after_in_child=_in_child)
