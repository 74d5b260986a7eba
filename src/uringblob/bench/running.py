"""A run from its first line to its last: each measure in turn; one that fails is said so, the rest goes on."""

from __future__ import annotations

import argparse
import functools
import os
import time
import traceback
from collections.abc import Callable, Sequence

from uringblob.bench.bench import Bench, OutOfTime, Pace
from uringblob.bench.environment import environment
from uringblob.bench.finding import Finding
from uringblob.bench.hugepages import reserved
from uringblob.bench.load import MIB, Params
from uringblob.bench.measures import MEASURES, Measure
from uringblob.bench.options import FULL_BUDGET_S, QUICK_BUDGET_S
from uringblob.bench.place import Place
from uringblob.bench.report.journal import Journal, Outcome
from uringblob.bench.report.terminal import Terminal

#: Of the kernel's pool, for fio: its deepest job at the largest frame, twice.
_HUGE_BYTES = 160 * MIB
#: Seconds that a turn takes besides its own length: opening, closing, a process for fio.
_TURN_OVERHEAD_S = 0.45
_TURN_SHORTEST_S, _TURN_LONGEST_S = 0.1, 1.5


def params_of(args: argparse.Namespace) -> Params:
    """Return the setting asked for."""
    default_size = 128 * MIB if args.quick else 1024 * MIB
    return Params(
        page_size=args.page_size,
        file_bytes=args.file_size or default_size,
        registered=not args.no_register,
        huge=not args.no_huge,
        verify=not args.no_verify,
        loop=args.loop,
    )


def pace_of(args: argparse.Namespace, steps: Sequence[Measure]) -> Pace:
    """Share the budget among the turns."""
    budget = args.budget or (QUICK_BUDGET_S if args.quick else FULL_BUDGET_S)
    rounds = args.rounds or (3 if args.quick else 5)
    turns = sum(step.turns for step in steps) * rounds
    share = (budget - sum(step.fixed_s for step in steps)) / max(turns, 1) - _TURN_OVERHEAD_S
    seconds = args.seconds or min(max(share, _TURN_SHORTEST_S), _TURN_LONGEST_S)
    return Pace(
        rounds=rounds,
        seconds=seconds,
        deadline=time.monotonic() + budget,
        blobs_max=20_000 if args.quick else 2_000_000,
    )


def chosen(args: argparse.Namespace) -> list[Measure]:
    """Return what is to be run, in order.

    :raises ValueError: there is no such measure.
    """
    wanted = args.measures or list(MEASURES)
    strange = [number for number in wanted if number not in MEASURES]
    if strange:
        raise ValueError(f"no measure {strange}: there are {list(MEASURES)}")
    return [MEASURES[number] for number in wanted]


def run_all(args: argparse.Namespace) -> bool:
    """Run what ``args`` ask for; true if all of it ran."""
    terminal = Terminal()
    if args.list:
        for measure in MEASURES.values():
            terminal.console.print(f"{measure.number:3} {measure.name:20} {measure.title}", highlight=False)
        return True
    steps = chosen(args)
    params, pace = params_of(args), pace_of(args, steps)
    with Place(args.directory) as place, reserved(_HUGE_BYTES) as hugepages:
        journal = Journal(
            environment(place.directory, hugepages), {**vars(args), "turn_seconds": pace.seconds}
        )
        with terminal.progress(len(steps)) as (told, next_step):
            bench = Bench(place, params, pace, told)
            for step in steps:
                next_step(step.title)
                outcome = run_step(step.name, step.title, functools.partial(step.run, bench), step.number)
                journal.outcomes.append(outcome)
                terminal.outcome(outcome)
        journal.cases = bench.cases
    for case in journal.cases.values():
        terminal.case(case)
    terminal.table(journal.outcomes)
    leave(args, journal, terminal)
    return journal.whole


def run_step(
    name: str, title: str, work: Callable[[], Sequence[Finding]], number: int | None = None
) -> Outcome:
    """Run one measure; an exception becomes part of its outcome."""
    outcome = Outcome(name, title, number)
    started = time.monotonic()
    try:
        outcome.findings = list(work())
    except OutOfTime as error:
        outcome.failure = str(error)
    except Exception as error:  # noqa: BLE001 - a peer may raise anything; the other measures go on
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(last.filename)}:{last.lineno}"
        outcome.failure = f"{type(error).__name__}: {error} ({where})"
    outcome.seconds = time.monotonic() - started
    return outcome


def leave(args: argparse.Namespace, journal: Journal, terminal: Terminal) -> None:
    """Write the files that were asked for."""
    if args.json:
        journal.write(args.json)
        terminal.console.print(f"results in {args.json}", highlight=False)
