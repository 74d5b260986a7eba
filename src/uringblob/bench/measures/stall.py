"""How long the event loop is held up at full load (11): a ticker that should be woken every millisecond.

Two tickers run in every turn (:mod:`uringblob.bench.ticker`).  The measure is of the one whose
timer is exact; ``asyncio.sleep``, which rounds to whole milliseconds, stands beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from uringblob.bench.alternate import Case, Entry
from uringblob.bench.bench import Bench, p99
from uringblob.bench.drive import TaskCall
from uringblob.bench.finding import Finding, at_most, stated
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
#: Which of a turn's loads each ticker is.
_EXACT, _SLEEP = 0, 1
_TICKERS = (Load(Verb.TICK), Load(Verb.SLEEP))


def loop_stall(bench: Bench) -> list[Finding]:
    """Measure 11: of the worst load, the median of the turns; other parties stand beside it."""
    store = AsyncStore(bench.params, bench.place)
    entries = [Entry(store, (*_TICKERS, *loads), f"store, {name}") for name, loads in LOADS.items()]
    for other in (BareRing(bench.params, bench.place), ThreadPool(bench.params, bench.place)):
        entries += [Entry(other, (*_TICKERS, *LOADS["reads"]), f"{other.name}, reads")]
    entries.append(Entry(_Idle(bench.params, bench.place), _TICKERS, "idle loop"))
    case = bench.case("loop stall", entries)
    ours = [entry.name for entry in entries if entry.party is store and case.has(entry.name)]
    if len(ours) < len(LOADS):
        raise RuntimeError(f"the store failed: {case.failures}")

    def worst_of_ours(ticker: int, figure: Callable[[Sample], float]) -> float:
        return max(case.median(name, figure, ticker) for name in ours) * _MS

    def words(ticker: int) -> str:
        return "p99 / worst ms: " + ", ".join(
            f"{entry.name} {_late(case, entry.name, ticker)}" for entry in entries if case.has(entry.name)
        )

    return [
        at_most(
            "p99 delay of a 1 ms ticker at 32 in flight", worst_of_ours(_EXACT, p99), 1, "ms", words(_EXACT)
        ),
        at_most("its worst delay", worst_of_ours(_EXACT, _worst), 5, "ms", "median of the turns"),
        stated(
            "p99 delay of asyncio.sleep(0.001), which rounds to whole ms",
            worst_of_ours(_SLEEP, p99),
            "ms",
            words(_SLEEP),
        ),
    ]


def _worst(sample: Sample) -> float:
    return sample.latency.max_s


def _late(case: Case, name: str, ticker: int) -> str:
    worst = [value * _MS for value in case.values(name, _worst, ticker)]
    return (
        f"{case.median(name, p99, ticker) * _MS:.2f} / {case.median(name, _worst, ticker) * _MS:.2f} "
        f"(up to {max(worst):.2f})"
    )


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
