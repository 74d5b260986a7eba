"""What a row is: its number and figures, and the generator that does one step after the other."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: What one step did: how many of what.
Counts = dict[str, int]

#: Seeds of one lot lie this far from those of the next.
LOT_SEEDS = 10**9


@dataclasses.dataclass
class Lot:
    """One process's part of a row: ``shard`` of ``shards``, until ``deadline`` (of the monotonic clock)."""

    seed: int
    shard: int = 0
    shards: int = 1
    deadline: float = float("inf")
    directory: Path = Path()
    at: object = None  #: the seed or the item that the step under way is about

    def left(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self.deadline - time.monotonic())

    def seeds(self) -> Iterator[int]:
        """Yield a new seed for each step, without end."""
        self.at = self.seed + self.shard * LOT_SEEDS
        while True:
            yield self.at
            self.at += 1

    def mine(self, items: Iterable[T]) -> Iterator[T]:
        """Yield those of ``items`` that fall to this lot."""
        for index, item in enumerate(items):
            if index % self.shards == self.shard:
                self.at = item
                yield item


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the fault table, or a part of one; made by :func:`row`."""

    number: int
    what: str
    unit: str
    ci: str
    release: int | str
    run: Callable[[Lot], Iterator[Counts]]
    share: float = 1.0
    lots: int = 1
    needs: Callable[[], str] = str
    unobserved: str = ""  #: why the order monitor does not watch its stores

    @property
    def key(self) -> str:
        """What names it: number and function."""
        return f"{self.number}:{self.run.__name__}"


REGISTERED: dict[str, Row] = {}


def row(number: int, what: str, **figures: object) -> Callable[[Callable], Callable]:
    """Register a generator function as (a part of) row ``number``; see the package's docstring."""

    def register(run: Callable[[Lot], Iterator[Counts]]) -> Callable[[Lot], Iterator[Counts]]:
        new = Row(number, what, run=run, **figures)
        known = REGISTERED.get(new.key)
        if known is not None and known.run.__module__ != run.__module__:
            raise ValueError(f"row {new.key} is registered twice")
        REGISTERED[new.key] = new
        return run

    return register


def load(numbers: Iterable[int] = (), modules: Iterable[str] = ()) -> list[Row]:
    """Import every ``row_*`` module of this package (or these ``modules``); return the rows asked for."""
    import torture

    found = [f"torture.{m.name}" for m in pkgutil.iter_modules(torture.__path__) if m.name.startswith("row_")]
    names = set(modules or found)
    for name in sorted(names):
        importlib.import_module(name)
    numbers = set(numbers)
    rows = [r for r in REGISTERED.values() if r.run.__module__ in names]
    rows = [r for r in rows if not numbers or r.number in numbers]
    return sorted(rows, key=lambda r: (r.number, r.key))
