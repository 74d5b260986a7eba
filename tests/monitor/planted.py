"""Bugs planted in child processes, by name: see ``children.PLANTED``."""

from __future__ import annotations

import contextlib

from sim import planted
from sim.planted_flat import acknowledged_when_its_writes_have_landed


@contextlib.contextmanager
def no_fsync_before_acknowledging():
    """No group is flushed, whether a coroutine writes it or callbacks do."""
    with planted.no_fsync_before_acknowledging(), acknowledged_when_its_writes_have_landed():
        yield
