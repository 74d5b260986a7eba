"""A run: each measure and sweep in turn.  One that fails is recorded, and the rest go on."""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from uringblob_bench.adhoc import AdHoc
from uringblob_bench.bench import Bench, OutOfTime, Pace
from uringblob_bench.environment import environment, storage
from uringblob_bench.finding import Finding
from uringblob_bench.hugepages import reserved
from uringblob_bench.load import MIB
from uringblob_bench.measures import MEASURES, Measure
from uringblob_bench.media import DIRECTORY, MEMORY, ROOM, NoMedium, memory_disk
from uringblob_bench.options import media_of
from uringblob_bench.pace import Step, budget_of, expected_seconds, pace_of, params_of
from uringblob_bench.report.data import Results
from uringblob_bench.report.markdown import put_into, render, summary
from uringblob_bench.report.run_record import Outcome, RunRecord
from uringblob_bench.report.terminal import Terminal
from uringblob_bench.sweeps import QUICK as QUICK_SWEEPS
from uringblob_bench.sweeps import SWEEPS, Sweep
from uringblob_bench.workdir import WorkDir

#: Of the kernel's pool, for fio: its deepest job at the largest frame, twice.
_HUGE_BYTES = 160 * MIB
#: The page that a run leaves beside its results.
PAGE = "results.md"
#: Up to so many steps are named, more are counted.
_FEW = 3


def chosen(args: argparse.Namespace) -> list[Step]:
    """Return what is to be run, in order: measures first, they matter most.

    :raises ValueError: there is no such measure or sweep.
    """
    if args.workload:
        contenders = tuple(args.contenders)
        turns = len(contenders) * (len(args.tune.values) if args.tune else 1)
        return [AdHoc(args.workload, contenders, args.depth, args.batch, turns=turns, tune=args.tune)]
    if args.tune:
        raise ValueError("--tune compares values under one --workload: name that, too")
    all_of_it = args.measures is None and not args.sweeps
    numbers = list(MEASURES) if all_of_it else args.measures or []
    default = list(QUICK_SWEEPS if args.quick else SWEEPS)
    names = default if all_of_it and not args.no_sweeps else args.sweeps or []
    strange = [str(n) for n in numbers if n not in MEASURES] + [name for name in names if name not in SWEEPS]
    if strange:
        raise ValueError(
            f"no {', '.join(strange)}: there are measures {list(MEASURES)}, sweeps {list(SWEEPS)}"
        )
    return [*(MEASURES[number] for number in numbers), *(SWEEPS[name] for name in names)]


def run_all(args: argparse.Namespace) -> bool:
    """Run the command line's measures and sweeps; true if all of them ran."""
    terminal = Terminal()
    if args.list:
        list_steps(terminal)
        return True
    if args.render:
        publish(args, args.output or os.path.dirname(args.render) or ".", Results.read(args.render), terminal)
        return True
    if DIRECTORY in media_of(args):
        check_directory(args.directory)
    steps = chosen(args)
    _end_by_sigterm_as_by_ctrl_c()
    for directory in filter(None, (args.output, os.path.dirname(args.json or ""))):
        os.makedirs(directory, exist_ok=True)
    record = take_steps(args, steps, terminal)
    for case in record.cases.values():
        terminal.case(case)
    terminal.table(record.outcomes)
    terminal.warn_if_busy(record.cases.values())
    leave(args, record, terminal)
    return record.whole


def check_directory(path: str | None) -> None:
    """Refuse a missing directory: a mistyped one would be made, filled, and left behind.

    :raises ValueError: none was given, or there is none.
    """
    if path is None:
        raise ValueError("name the DIRECTORY whose disk is to be measured: a run writes gigabytes there")
    if not os.path.isdir(path):
        number = errno.ENOTDIR if os.path.exists(path) else errno.ENOENT
        raise ValueError(f"{path}: {os.strerror(number)}: name a directory that exists")


def announce(args: argparse.Namespace, steps: Sequence[Step], pace: Pace, terminal: Terminal) -> None:
    """Print what the run will do, and its duration, before it begins."""
    what = (
        ", ".join(step.title for step in steps) if len(steps) <= _FEW else f"{len(steps)} measures and sweeps"
    )
    media = media_of(args)
    size = params_of(args, media[0]).file_bytes
    where = " and in ".join(args.directory if medium == DIRECTORY else medium for medium in media)
    terminal.console.print(
        f"in {where}: {what}; about {in_minutes(expected_seconds(steps, pace, len(media)))}, at most "
        f"{in_minutes(budget_of(args))} and the step begun by then; files of {size / MIB:,.0f} MiB, up to {ROOM} "
        "of them, removed at the end (Ctrl-C does so, too)",
        highlight=False,
        markup=False,  # the directory's name may have brackets
    )


def in_minutes(seconds: float) -> str:
    """Return a duration in seconds or minutes."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def _end_by_sigterm_as_by_ctrl_c() -> None:
    """SIGTERM ends a run as Ctrl-C does: huge pages are given back and the files under test removed."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def take_steps(args: argparse.Namespace, steps: Sequence[Step], terminal: Terminal) -> RunRecord:
    """Take each step, also after one that failed; each measure on every medium, the sweeps on the first."""
    pace = pace_of(args, steps)
    announce(args, steps, pace, terminal)
    with contextlib.ExitStack() as stack:
        media: dict[str, Any] = {}
        benches = [
            Bench(workdir, params_of(args, medium), pace, medium=medium)
            for medium in media_of(args)
            if (workdir := _medium(args, medium, stack, media, terminal)) is not None
        ]
        if not benches:
            raise NoMedium(f"no disk in {MEMORY}: {media[MEMORY]}")
        first = benches[0]
        hugepages = stack.enter_context(reserved(_HUGE_BYTES))
        options = {
            key: value for key, value in vars(args).items() if isinstance(value, (int, float, str, list))
        }
        directory = os.path.basename(args.directory or "")
        settings = {**options, "directory": directory, "turn_seconds": pace.seconds}
        record = RunRecord(environment(first.workdir.directory, hugepages), settings)
        record.environment["media"] = media
        turns = [
            (step, bench) for step in steps for bench in (benches[:1] if isinstance(step, Sweep) else benches)
        ]
        with terminal.progress(len(turns)) as (progress, next_step):
            for step, bench in turns:
                next_step(f"{step.title}, {bench.medium}")
                bench.progress = progress
                outcome = take_step(step, bench)
                record.outcomes.append(outcome)
                terminal.outcome(outcome)
        record.environment["load_average_after"] = os.getloadavg()
        for bench in benches:
            record.cases.update(bench.cases)
    return record


def _medium(
    args: argparse.Namespace,
    medium: str,
    stack: contextlib.ExitStack,
    found: dict[str, Any],
    terminal: Terminal,
) -> WorkDir | None:
    """Make a work directory on a medium; where there is none, say so, and note the reason in ``found``."""
    size, directory = params_of(args, medium).file_bytes, args.directory
    if medium == MEMORY:
        try:
            directory = stack.enter_context(memory_disk(size))
        except NoMedium as error:
            found[medium] = f"left out: {error}"
            terminal.console.print(f"{medium}: {found[medium]}", highlight=False, markup=False)
            return None
    workdir = stack.enter_context(WorkDir(directory))
    found[medium] = {**storage(workdir.directory), "file_bytes": size}
    if workdir.free_bytes() < ROOM * size:
        terminal.console.print(
            f"only {workdir.free_bytes():,} bytes are free: peers may fail; try a smaller --file-size"
        )
    return workdir


def take_step(step: Step, bench: Bench) -> Outcome:
    """Run one measure or sweep; an exception becomes part of its outcome."""
    number = step.number if isinstance(step, Measure) else None
    outcome = Outcome(step.name, step.title, number, medium=bench.medium)
    work: Callable[[], Sequence[Finding] | None] = functools.partial(step.run, bench)
    started = time.monotonic()
    try:
        outcome.findings = list(work() or ())
    except OutOfTime as error:
        outcome.failure = str(error)
    except Exception as error:  # noqa: BLE001 - a peer may raise anything; the other measures go on
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(last.filename)}:{last.lineno}"
        outcome.failure = f"{type(error).__name__}: {error} ({where})"
    outcome.seconds = time.monotonic() - started
    return outcome


def list_steps(terminal: Terminal) -> None:
    """Print what there is."""
    for measure in MEASURES.values():
        terminal.console.print(f"measure {measure.number:2}  {measure.title}", highlight=False)
    for sweep in SWEEPS.values():
        terminal.console.print(f"sweep {sweep.name:15} {sweep.title}", highlight=False)


def leave(args: argparse.Namespace, record: RunRecord, terminal: Terminal) -> None:
    """Write the files that the command line names."""
    if args.json:
        record.write(args.json)
        terminal.console.print(f"results in {args.json}", highlight=False)
    if args.output:
        path = os.path.join(args.output, "results.json")
        record.write(path)
        publish(args, args.output, Results.read(path), terminal)


def publish(args: argparse.Namespace, directory: str, results: Results, terminal: Terminal) -> None:
    """Draw the plots and write the page ``results.md`` into ``directory``."""
    from uringblob_bench.report.plots import draw

    os.makedirs(directory, exist_ok=True)
    plots = draw(results, directory)
    with open(os.path.join(directory, PAGE), "w", encoding="utf-8") as file:
        file.write(render(results, plots))
    if args.readme and results.settings.get("quick"):
        terminal.console.print(f"{args.readme} is left alone: a quick run proves nothing", highlight=False)
    elif args.readme:
        folder = os.path.relpath(directory, os.path.dirname(args.readme) or ".")
        with open(args.readme, encoding="utf-8") as file:
            page = put_into(file.read(), summary(results, plots, folder))
        with open(args.readme, "w", encoding="utf-8") as file:
            file.write(page)
    terminal.console.print(f"{PAGE} and {len(plots)} plots in {directory}", highlight=False)
