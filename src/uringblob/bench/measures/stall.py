"""How long the event loop is held up at full load (11): a ticker that should be woken every millisecond."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from uringblob.bench.alternate import Entry
from uringblob.bench.bench import Bench
from uringblob.bench.drive import TaskCall
from uringblob.bench.finding import Finding, at_most
from uringblob.bench.load import Load, Verb
from uringblob.bench.measures.base import Measure
from uringblob.bench.sample import Sample
from uringblob.bench.subjects.base import TaskSubject
from uringblob.bench.subjects.ring import BareRing
from uringblob.bench.subjects.store import AsyncStore
from uringblob.bench.subjects.thread_pool import ThreadPool

DEPTH = 32
#: The store's loads by name, each with 32 frames in flight; commits are what holds a loop up most.
LOADS = {
    "reads": (Load(Verb.READ, DEPTH),),
    "writes": (Load(Verb.WRITE, 4, DEPTH // 4),),
    "commits": (Load(Verb.COMMIT, 4, DEPTH // 4),),
}
_MS = 1000


def loop_stall(bench: Bench) -> list[Finding]:
    """Measure 11: of the worst load, the median of the turns; other parties stand beside it."""
    tick = Load(Verb.TICK)
    store = AsyncStore(bench.params, bench.place)
    entries = [Entry(store, (tick, *loads), f"store, {name}") for name, loads in LOADS.items()]
    for other in (BareRing(bench.params, bench.place), ThreadPool(bench.params, bench.place)):
        entries += [Entry(other, (tick, *LOADS["reads"]), f"{other.name}, reads")]
    entries.append(Entry(_Idle(bench.params, bench.place), (tick,), "idle loop"))
    case = bench.case("loop stall", entries)
    ours = [entry.name for entry in entries if entry.party is store and case.has(entry.name)]
    if len(ours) < len(LOADS):
        raise RuntimeError(f"the store failed: {case.failures}")

    def worst(sample: Sample) -> float:
        return sample.latency.max_s

    def of_all(name: str) -> str:
        found = case.spreads(name)
        return (
            f"{name} {found['latency_p99_s'].median * _MS:.2f} / {found['latency_max_s'].median * _MS:.2f} "
            f"(up to {found['latency_max_s'].high * _MS:.2f})"
        )

    words = "p99 / worst ms: " + ", ".join(of_all(entry.name) for entry in entries if case.has(entry.name))
    p99 = max(case.median(name, lambda sample: sample.latency.p99_s) for name in ours)
    return [
        at_most("p99 delay of a 1 ms ticker at 32 in flight", p99 * _MS, 1, "ms", words),
        at_most(
            "its worst delay",
            max(case.median(name, worst) for name in ours) * _MS,
            5,
            "ms",
            "median of the turns",
        ),
    ]


class _Idle(TaskSubject):
    """An event loop with nothing else to do: what this machine makes of a millisecond."""

    name = "idle loop"

    def settings(self) -> dict[str, object]:
        return {"loop": self.params.loop}

    def prepare(self) -> None:
        """There are no files."""

    @contextlib.asynccontextmanager
    async def session(
        self,
        loads: Sequence[Load],  # noqa: ARG002 - there is only the ticker
    ) -> AsyncGenerator[Callable[[Load, int], TaskCall], None]:
        def call_for(load: Load, number: int) -> TaskCall:
            raise AssertionError(f"{load} {number}: an idle loop serves nothing")

        yield call_for


MEASURES = [Measure(11, "loop-stall", "event-loop stall at full load, depth 32", loop_stall, turns=6)]
