"""Computes rounds and seconds from the budget, and the setting from the command line."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Union

from uringblob_bench.adhoc import AdHoc
from uringblob_bench.bench import Pace
from uringblob_bench.load import Params
from uringblob_bench.measures import Measure
from uringblob_bench.media import DIRECTORY, MEMORY, MEMORY_FILE_BYTES
from uringblob_bench.options import (
    FULL_BUDGET_S,
    FULL_FILE_BYTES,
    QUICK_BUDGET_S,
    QUICK_FILE_BYTES,
    media_of,
)
from uringblob_bench.sweeps import Sweep

Step = Union[Measure, Sweep, AdHoc]

#: Seconds that a turn takes besides its own length: opening, closing, a process for fio.
_OVERHEAD_S = 0.35
_SHORTEST_S, _LONGEST_S = 0.05, 1.0
#: A turn of a sweep is so much shorter: there are many, and no target hangs on one.
_SWEEP_SHARE = 0.4
FULL_BLOBS, QUICK_BLOBS = 2_000_000, 20_000


def params_of(args: argparse.Namespace, medium: str = DIRECTORY) -> Params:
    """Return the setting that the command line names, on one of the media."""
    default_size = QUICK_FILE_BYTES if args.quick else FULL_FILE_BYTES
    if medium == MEMORY:
        default_size = min(default_size, MEMORY_FILE_BYTES)
    return Params(
        page_size=args.page_size,
        file_bytes=args.file_size or default_size,
        registered=not args.no_register,
        huge=not args.no_huge,
        verify=not args.no_verify,
        loop=args.loop,
        wakeup=args.wakeup,
        sync=args.sync,
        one_core=args.one_core,
    )


def budget_of(args: argparse.Namespace) -> float:
    """Return the seconds after which no turn begins."""
    one = QUICK_BUDGET_S if args.quick else FULL_BUDGET_S
    return float(args.budget or one * len(media_of(args)))


def expected_seconds(steps: Sequence[Step], pace: Pace, media: int = 1) -> float:
    """Estimate the duration of these steps at this pace, without the deadline; measures run on each medium."""
    total = 0.0
    for step in steps:
        if isinstance(step, Sweep):
            total += step.turns * pace.sweep_rounds * (pace.sweep_seconds + _OVERHEAD_S)
        else:
            total += media * step.turns * pace.rounds * (pace.seconds + _OVERHEAD_S)
            total += 0 if pace.thin or isinstance(step, AdHoc) else media * step.fixed_s
    return total


def pace_of(args: argparse.Namespace, steps: Sequence[Step]) -> Pace:
    """Divide the budget among the turns."""
    budget = budget_of(args)
    rounds = args.rounds or (1 if args.quick else 5)
    sweep_rounds = 1 if args.quick else min(rounds, 3)
    media = len(media_of(args))
    measured = sum(step.turns for step in steps if not isinstance(step, Sweep)) * rounds * media
    swept = sum(step.turns for step in steps if isinstance(step, Sweep)) * sweep_rounds
    fixed = 0.0 if args.quick else media * sum(step.fixed_s for step in steps if isinstance(step, Measure))
    spare = budget - fixed - (measured + swept) * _OVERHEAD_S
    share = spare / max(measured + swept * _SWEEP_SHARE, 1)
    seconds = args.seconds or min(max(share, _SHORTEST_S), _LONGEST_S)
    return Pace(
        rounds=rounds,
        seconds=seconds,
        sweep_rounds=sweep_rounds,
        sweep_seconds=max(seconds * _SWEEP_SHARE, _SHORTEST_S),
        thin=args.quick,
        deadline=time.monotonic() + budget,
        blobs_max=QUICK_BLOBS if args.quick else FULL_BLOBS,
    )
