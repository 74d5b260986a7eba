"""A measure: a named comparison that says whether a target was reached."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from uringblob_bench.bench import Bench
from uringblob_bench.finding import Finding


@dataclasses.dataclass(frozen=True)
class Measure:
    """``run`` is what it does; ``turns`` how many turns its contenders take in a round, for the budget."""

    number: int
    name: str
    title: str
    run: Callable[[Bench], Sequence[Finding]]
    turns: int = 2
    #: Seconds that it takes besides its turns.
    fixed_s: float = 0.0
