"""A comparison: its contenders take turns, in another order each round, within one run.

Drift (other load on the machine, a warm device, a CPU governor) then affects all of them alike.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from uringblob_bench.contenders.base import CannotRun, Contender
from uringblob_bench.load import Load, Params
from uringblob_bench.media import DIRECTORY
from uringblob_bench.sample import Sample, Spread, spreads
from uringblob_bench.system_load import CpuWatch


@dataclasses.dataclass(frozen=True)
class Entry:
    """A contender with its loads: a peer may do the same work in other calls."""

    contender: Contender
    loads: tuple[Load, ...]
    #: The name in the results; default the contender's.
    label: str = ""

    @property
    def name(self) -> str:
        """The name in the results."""
        return self.label or self.contender.name


@dataclasses.dataclass
class Case:
    """The results of one comparison."""

    name: str
    params: Params
    rounds: int
    seconds: float
    #: Per contender, per turn, one sample per load.
    samples: dict[str, list[list[Sample]]] = dataclasses.field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    #: Contenders that failed, with the reason.
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    #: Those of them that raised anything but ``CannotRun``.
    broken: list[str] = dataclasses.field(default_factory=list)
    #: Names in the order in which turns were taken.
    order: list[str] = dataclasses.field(default_factory=list)
    #: The share of the CPUs that other programs used, for each turn.
    others: list[float] = dataclasses.field(default_factory=list)
    note: str = ""
    #: The sweep of which it is a point, and the point: a number, or the name of a setting.
    sweep: str = ""
    at: float | str = ""
    #: One of :data:`uringblob_bench.media.MEDIA`.
    medium: str = DIRECTORY

    def has(self, *names: str) -> bool:
        """Whether all of them took at least one turn."""
        return all(self.samples.get(name) for name in names)

    def values(self, name: str, figure: Callable[[Sample], float], load: int = 0) -> list[float]:
        """Return ``figure`` of every turn of a contender."""
        return [figure(turn[load]) for turn in self.samples[name]]

    def median(self, name: str, figure: Callable[[Sample], float], load: int = 0) -> float:
        """Return the median of ``figure`` over a contender's turns."""
        return Spread.of(self.values(name, figure, load)).median

    def spreads(self, name: str, load: int = 0) -> dict[str, Spread]:
        """Return every figure's median and extremes over a contender's turns."""
        return spreads([turn[load] for turn in self.samples[name]])


def turn_order(count: int, rounds: int) -> list[list[int]]:
    """Return the order of each round: rotated, and every other round backwards.

    >>> turn_order(2, 4)
    [[0, 1], [1, 0], [1, 0], [0, 1]]
    """
    orders = []
    for number in range(rounds):
        shift = (number // 2) % max(count, 1)
        order = [(shift + n) % count for n in range(count)]
        orders.append(order[::-1] if number % 2 else order)
    return orders


def interleave(
    name: str,
    params: Params,
    entries: Sequence[Entry],
    *,
    rounds: int,
    seconds: float,
    progress: Callable[[str, str], None] = lambda _case, _contender: None,
    deadline: float = float("inf"),
) -> Case:
    """Run the contenders in turns.  One that fails takes no further turn and is recorded; the rest go on.

    :param progress: called as ``progress(case, contender)`` before each turn.
    :param deadline: of ``time.monotonic()``; no round but the first begins after it.
    """
    case = Case(name, params, rounds, seconds)
    able = [entry for entry in entries if _prepared(case, entry, progress)]
    for number, order in enumerate(turn_order(len(able), rounds)):
        if number and time.monotonic() > deadline:
            case.note = f"the time was used up after {number} of {rounds} rounds"
            case.rounds = number
            break
        for index in order:
            _take_turn(case, able[index], progress)
    for entry in able:
        case.settings[entry.name] = entry.contender.settings()
    return case


def _prepared(case: Case, entry: Entry, progress: Callable[[str, str], None]) -> bool:
    progress(case.name, f"{entry.name}: making its files")
    try:
        entry.contender.prepare()
    except Exception as error:  # noqa: BLE001 - whatever a peer raises: the others go on
        _failed(case, entry, error)
        return False
    return True


def _take_turn(case: Case, entry: Entry, progress: Callable[[str, str], None]) -> None:
    if entry.name in case.failures:
        return
    progress(case.name, entry.name)
    watch = CpuWatch()
    try:
        samples = entry.contender.turn(entry.loads, case.seconds)
    except Exception as error:  # noqa: BLE001 - the same
        _failed(case, entry, error)
        return
    case.others.append(watch.others())
    case.order.append(entry.name)
    case.samples.setdefault(entry.name, []).append(samples)


def _failed(case: Case, entry: Entry, error: Exception) -> None:
    case.samples.pop(entry.name, None)
    cannot = isinstance(error, CannotRun)
    case.failures[entry.name] = str(error) if cannot else f"{type(error).__name__}: {error}"
    if not cannot:
        case.broken.append(entry.name)
