"""Bugs planted in child processes, by name: see ``children.PLANTED``."""

from __future__ import annotations

from sim.planted import no_fsync_before_acknowledging

__all__ = ["no_fsync_before_acknowledging"]
