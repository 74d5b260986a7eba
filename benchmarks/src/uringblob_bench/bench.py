"""One run on one medium: its work directory, the length of its turns, and the cases that were run so far."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from uringblob_bench import finding
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Case, Entry, interleave
from uringblob_bench.load import Params
from uringblob_bench.media import DIRECTORY, MEMORY
from uringblob_bench.sample import Sample, Spread
from uringblob_bench.workdir import WorkDir

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Pace:
    """``rounds`` turns of ``seconds`` for every contender."""

    rounds: int
    seconds: float
    #: The same for each point of a sweep.
    sweep_rounds: int = 3
    sweep_seconds: float = 0.3
    #: Sweeps take only the ends and the middle of their range.
    thin: bool = False
    #: Of ``time.monotonic()``: a case that has not begun by then fails with :class:`OutOfTime`.
    deadline: float = float("inf")
    #: The largest number of blobs of the measures of scale.
    blobs_max: int = 2_000_000


class OutOfTime(Exception):
    """The budget is used up."""


class Bench:
    """What measures and sweeps use."""

    def __init__(
        self,
        workdir: WorkDir,
        params: Params,
        pace: Pace,
        progress: Callable[[str, str], None] = lambda _a, _b: None,
        medium: str = DIRECTORY,
    ) -> None:
        self.workdir = workdir
        self.params = params
        self.pace = pace
        self.progress = progress
        self.medium = medium
        #: By name, and with the medium where that is not the directory given.
        self.cases: dict[str, Case] = {}

    def target(self, *, directory: float | None = None, memory: float | None = None) -> float | None:
        """Return the target on this medium; ``None``: the value is only stated."""
        return memory if self.medium == MEMORY else directory

    def points(self, values: Sequence[T]) -> Sequence[T]:
        """Return the values of a sweep that are taken."""
        if self.pace.thin and len(values) > 3:
            return [values[0], values[len(values) // 2], values[-1]]
        return values

    def point(
        self, sweep: str, at: float | str, entries: Sequence[Entry], params: Params | None = None
    ) -> Case:
        """Run one point of a sweep."""
        pace = self.pace
        case = self.case(f"{sweep}: {at}", entries, params, pace.sweep_rounds, pace.sweep_seconds)
        case.sweep, case.at = sweep, at
        return case

    def case(
        self,
        name: str,
        entries: Sequence[Entry],
        params: Params | None = None,
        rounds: int = 0,
        seconds: float = 0,
    ) -> Case:
        """Run a comparison, or return it if it was run before.

        :raises OutOfTime: the budget is used up.
        """
        if self.medium != DIRECTORY:
            name = f"{name}, {self.medium}"
        if name not in self.cases:
            if time.monotonic() > self.pace.deadline:
                raise OutOfTime("the budget was used up before it began")
            self.cases[name] = interleave(
                name,
                params or self.params,
                entries,
                rounds=rounds or self.pace.rounds,
                seconds=seconds or self.pace.seconds,
                progress=self.progress,
                deadline=self.pace.deadline,
            )
            self.cases[name].medium = self.medium
        return self.cases[name]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of a turn: what it is called, and by what seconds are multiplied for its unit."""

    of: Callable[[Sample], float]
    name: str
    scale: float = 1.0
    more_is_better: bool = False

    def __call__(self, sample: Sample) -> float:
        """Return it, unscaled."""
        return self.of(sample)


FRAMES_PER_S = Figure(lambda sample: sample.frames_per_s, "frames/s", more_is_better=True)
CPU_PER_FRAME = Figure(lambda sample: sample.cpu_per_frame_s, "CPU µs per frame", 1e6)
P50 = Figure(lambda sample: sample.latency.p50_s, "median µs", 1e6)
P99 = Figure(lambda sample: sample.latency.p99_s, "p99 µs", 1e6)


def ratio(case: Case, ours: str, theirs: str, figure: Figure, load: int = 0) -> float | None:
    """Return the medians' quotient, or ``None`` if one of them took no turn."""
    if not case.has(ours, theirs):
        return None
    below = case.median(theirs, figure, load)
    return case.median(ours, figure, load) / below if below else None


def detail(case: Case, figure: Figure, *names: str, load: int = 0) -> str:
    """Return each contender's median with its extremes, or why it took no turn."""
    parts = []
    for name in names:
        if case.has(name):
            spread = Spread.of([value * figure.scale for value in case.values(name, figure, load)])
            parts.append(f"{name} {spread.median:.4g} ({spread.low:.4g} to {spread.high:.4g})")
        else:
            parts.append(f"{name}: {case.failures.get(name, 'took no turn')}")
    return f"{figure.name}: {', '.join(parts)}"


def against(
    what: str,
    case: Case,
    ours: str,
    theirs: Mapping[str, float | None],
    figure: Figure = FRAMES_PER_S,
    more: str = "",
    load: int = 0,
) -> list[Finding]:
    """Compare ``ours`` with each of ``theirs``, by name: its target, or ``None`` where there is none."""
    return [
        bounded(
            f"{what}, against {name}",
            ratio(case, ours, name, figure, load),
            target,
            detail=detail(case, figure, ours, name, load=load) + more,
            more_is_better=figure.more_is_better,
        )
        for name, target in theirs.items()
    ]


def bounded(
    what: str,
    measured: float | None,
    target: float | None,
    unit: str = "x",
    detail: str = "",
    *,
    more_is_better: bool = False,
) -> Finding:
    """Return a finding with this target, or without one."""
    if target is None:
        return finding.stated(what, measured, unit, detail)
    bound = finding.at_least if more_is_better else finding.at_most
    return bound(what, measured, target, unit, detail)
