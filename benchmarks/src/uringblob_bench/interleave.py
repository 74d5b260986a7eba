"""A comparison: its contenders take turns, in another order each round, within one run.

What drifts (a neighbour, a warm device, a governor) then strikes all of them alike.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from uringblob_bench.load import Load, Params
from uringblob_bench.sample import Sample, Spread, spreads
from uringblob_bench.system_load import CpuWatch


class CannotRun(Exception):
    """A contender cannot do it here: not installed, not allowed, or no such operation.  That is no fault."""


class Contender(Protocol):
    """Whoever can take a turn: see :class:`uringblob_bench.contenders.base.Contender`."""

    name: str

    def settings(self) -> dict[str, Any]:
        """Return what it was run with, and what it could not do as asked."""
        ...

    def prepare(self) -> None:
        """Make its files; not timed."""
        ...

    def turn(self, loads: Sequence[Load], seconds: float) -> list[Sample]:
        """Serve ``loads`` for ``seconds``; one sample per load."""
        ...


@dataclasses.dataclass(frozen=True)
class Entry:
    """A contender with its loads (a peer may need another shape of the same work)."""

    contender: Contender
    loads: tuple[Load, ...]
    #: The name in the results; default the contender's.
    label: str = ""

    @property
    def name(self) -> str:
        """How results call it."""
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
    #: Who failed, and how.
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    #: Those of them that should have been able to.
    broken: list[str] = dataclasses.field(default_factory=list)
    #: Names in the order in which turns were taken.
    order: list[str] = dataclasses.field(default_factory=list)
    #: What share of the CPUs other programs used, turn by turn.
    others: list[float] = dataclasses.field(default_factory=list)
    note: str = ""
    #: The sweep that it is a point of, and where: a number, or the name of a setting.
    sweep: str = ""
    at: float | str = ""

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
    told: Callable[[str, str], None] = lambda _case, _contender: None,
    deadline: float = float("inf"),
) -> Case:
    """Let the contenders take turns.  One that fails is out, and said so; the rest go on.

    :param told: called as ``told(case, contender)`` before each turn.
    :param deadline: of ``time.monotonic()``; no further round begins after it (one always does).
    """
    case = Case(name, params, rounds, seconds)
    able = [entry for entry in entries if _prepared(case, entry, told)]
    for number, order in enumerate(turn_order(len(able), rounds)):
        if number and time.monotonic() > deadline:
            case.note = f"the time was used up after {number} of {rounds} rounds"
            case.rounds = number
            break
        for index in order:
            _take_turn(case, able[index], told)
    for entry in able:
        case.settings[entry.name] = entry.contender.settings()
    return case


def _prepared(case: Case, entry: Entry, told: Callable[[str, str], None]) -> bool:
    told(case.name, f"{entry.name}: making its files")
    try:
        entry.contender.prepare()
    except Exception as error:  # noqa: BLE001 - whatever a peer raises: the others go on
        _failed(case, entry, error)
        return False
    return True


def _take_turn(case: Case, entry: Entry, told: Callable[[str, str], None]) -> None:
    if entry.name in case.failures:
        return
    told(case.name, entry.name)
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
