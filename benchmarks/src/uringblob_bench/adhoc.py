"""A comparison of the user's own: one workload, the contenders and the numbers that the command line names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from uringblob_bench.bench import Bench
from uringblob_bench.contenders.base import Contender
from uringblob_bench.contenders.catalogue import CONTENDERS
from uringblob_bench.contenders.tuned import Tuned
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.tune import Tune

#: Name: the loads, from frames in flight (or tasks, or threads) and frames in a batch.
WORKLOADS: dict[str, Callable[[int, int], tuple[Load, ...]]] = {
    "read": lambda depth, _batch: (Load(Verb.READ, depth),),
    "write": lambda depth, batch: (Load(Verb.WRITE, max(depth // batch, 1), batch),),
    "batch": lambda _depth, batch: (Load(Verb.BATCH, 1, batch),),
    "commit": lambda _depth, batch: (Load(Verb.COMMIT, 1, batch),),
    "commits": lambda depth, _batch: (Load(Verb.COMMIT, depth),),
    "mixed": lambda depth, batch: (Load(Verb.READ, depth), Load(Verb.COMMIT, 1, batch)),
    "stall": lambda depth, _batch: (Load(Verb.TICK), Load(Verb.READ, depth)),
}


@dataclasses.dataclass(frozen=True)
class AdHoc:
    """The comparison that the command line describes; a step of a run, like a sweep."""

    workload: str
    contenders: tuple[str, ...]
    depth: int
    batch: int
    name: str = "ad hoc"
    turns: int = 2
    tune: Tune | None = None

    @property
    def title(self) -> str:
        """What is compared, in words."""
        return f"{self.workload}: " + ", ".join(str(load) for load in self.loads())

    def loads(self) -> tuple[Load, ...]:
        """Return the loads of every contender."""
        return WORKLOADS[self.workload](self.depth, self.batch)

    def run(self, bench: Bench) -> None:
        """Run it as one case."""
        contenders: list[Contender] = [
            CONTENDERS[name](bench.params, bench.workdir) for name in self.contenders
        ]
        if (tune := self.tune) is not None:
            contenders = [Tuned(each, tune.constant, value) for each in contenders for value in tune.values]
        case = bench.case(self.title, [Entry(contender, self.loads()) for contender in contenders])
        if not case.samples:
            raise RuntimeError(f"no contender could run: {case.failures}")
