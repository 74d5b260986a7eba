"""A sweep: the same comparison at several values of one parameter, for the plots."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from uringblob_bench.bench import Bench


@dataclasses.dataclass(frozen=True)
class Sweep:
    """``turns`` is how many turns its contenders take in a round, all points together."""

    name: str
    title: str
    run: Callable[[Bench], None]
    turns: int
