"""What a forked child does with the stores it inherited: let go of them, touch nothing shared.

The child's copies of ring and file keep the parent's lock alive, so they are closed at once,
without ``LOCK_UN`` (that would unlock the parent's file) and without a word to the event loop
(its epoll set is shared with the parent).  Using such a store is a ``RuntimeError``.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """What can let go of its descriptors in a forked child."""

    @property
    def path(self) -> str:
        """The store file."""
        ...

    @property
    def left_behind(self) -> bool:
        """Whether it is open and its event loop is closed."""
        ...

    def abandon(self) -> None:
        """Close this process's copies; write nothing, unlock nothing, take no lock."""


_open_stores: weakref.WeakSet[Inherited] = weakref.WeakSet()


def remember(store: Inherited) -> None:
    """Let go of ``store`` in every child forked from now on."""
    _open_stores.add(store)


def forget(store: Inherited) -> None:
    """``store`` is closed: children have nothing to let go of."""
    _open_stores.discard(store)


def left_behind(path: str) -> bool:
    """Whether an open store of this process, whose loop is closed, holds the file at ``path``."""
    return any(store.path == path and store.left_behind for store in list(_open_stores))


def _in_child() -> None:
    for store in list(_open_stores):
        store.abandon()
    _open_stores.clear()


os.register_at_fork(after_in_child=_in_child)
