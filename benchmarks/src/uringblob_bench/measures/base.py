"""A measure: a named comparison with a target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from uringblob_bench.bench import Bench
from uringblob_bench.finding import Finding


@dataclasses.dataclass(frozen=True)
class Measure:
    """``turns`` is the number of turns that its contenders take in a round; the budget needs it."""

    number: int
    name: str
    title: str
    run: Callable[[Bench], Sequence[Finding]]
    turns: int = 2
    #: Seconds besides its turns.
    fixed_s: float = 0.0
