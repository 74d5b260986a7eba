"""One run: where it takes workdir, how long turns are, and every case that was run so far."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from uringblob_bench.interleave import Case, Entry, interleave
from uringblob_bench.load import Params
from uringblob_bench.sample import Sample
from uringblob_bench.workdir import WorkDir

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Pace:
    """How often and how long: ``rounds`` turns of ``seconds`` for every contender."""

    rounds: int
    seconds: float
    #: The same for each point of a sweep.
    sweep_rounds: int = 3
    sweep_seconds: float = 0.3
    #: Sweeps take only the ends and the middle of their range.
    thin: bool = False
    #: Of ``time.monotonic()``: what has not begun by then is left out, and said so.
    deadline: float = float("inf")
    #: The largest number of blobs of the measures of scale.
    blobs_max: int = 2_000_000


class OutOfTime(Exception):
    """The budget is used up."""


class Bench:
    """What measures work with."""

    def __init__(
        self,
        workdir: WorkDir,
        params: Params,
        pace: Pace,
        told: Callable[[str, str], None] = lambda _a, _b: None,
    ) -> None:
        self.workdir = workdir
        self.params = params
        self.pace = pace
        self.told = told
        self.cases: dict[str, Case] = {}

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
        if name not in self.cases:
            if time.monotonic() > self.pace.deadline:
                raise OutOfTime("the budget was used up before it began")
            self.cases[name] = interleave(
                name,
                params or self.params,
                entries,
                rounds=rounds or self.pace.rounds,
                seconds=seconds or self.pace.seconds,
                told=self.told,
                deadline=self.pace.deadline,
            )
        return self.cases[name]


def ratio(
    case: Case, ours: str, theirs: str, figure: Callable[[Sample], float], load: int = 0
) -> float | None:
    """Return the medians' quotient, or ``None`` if one of them took no turn."""
    if not case.has(ours, theirs):
        return None
    below = case.median(theirs, figure, load)
    return case.median(ours, figure, load) / below if below else None


def detail(case: Case, ours: str, theirs: str, figure: Callable[[Sample], float], scale: float = 1.0) -> str:
    """Return both medians with their extremes, or who failed and why."""
    parts = []
    for name in (ours, theirs):
        if case.has(name):
            values = [value * scale for value in case.values(name, figure)]
            parts.append(f"{name} {_median(values):.4g} ({min(values):.4g} to {max(values):.4g})")
        else:
            parts.append(f"{name}: {case.failures.get(name, 'took no turn')}")
    return ", ".join(parts)


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def frames_per_s(sample: Sample) -> float:
    """Return frames a second."""
    return sample.frames_per_s


def cpu_per_frame(sample: Sample) -> float:
    """Return CPU seconds per frame."""
    return sample.cpu_per_frame_s


def p50(sample: Sample) -> float:
    """Return the median latency in seconds."""
    return sample.latency.p50_s


def p99(sample: Sample) -> float:
    """Return the latency that one call in a hundred exceeded, in seconds."""
    return sample.latency.p99_s
