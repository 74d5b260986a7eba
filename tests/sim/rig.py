"""The crash rig, under one name: workloads, the judge, power cuts, requests that fail.

A failure's last line replays it: ``replay: seed=... life=... image=...``.
"""

from __future__ import annotations

from sim.faulty import FAULTS, KINDS, NO_ROOM, Failing, life_with_fault, life_with_faults, open_with_fault
from sim.judging import Judge, contents, recover, relapse, rotten
from sim.lives import (
    PAGE,
    Life,
    Moment,
    forget,
    frame,
    guid,
    lend,
    lent,
    lives,
    meta_of,
    read_all,
    small_log,
    used_image,
)
from sim.power_cuts import options_of, torture

__all__ = [
    "FAULTS",
    "KINDS",
    "NO_ROOM",
    "PAGE",
    "Failing",
    "Judge",
    "Life",
    "Moment",
    "contents",
    "forget",
    "frame",
    "guid",
    "lend",
    "lent",
    "life_with_fault",
    "life_with_faults",
    "lives",
    "meta_of",
    "open_with_fault",
    "options_of",
    "read_all",
    "recover",
    "relapse",
    "rotten",
    "small_log",
    "torture",
    "used_image",
]
