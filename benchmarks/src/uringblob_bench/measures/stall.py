"""How long the event loop is held up at full load (11): a ticker that should be woken every millisecond.

The measure is of a ticker whose timer is exact (:mod:`uringblob_bench.ticker`).  ``asyncio.sleep``,
which rounds to whole milliseconds, stands beside it, in turns of its own: each of the two
tickers wakes the loop, and so changes what the other sees.

What grows with a single call stands by itself: batches in memory that the engine cannot move, and the
names of a hundred thousand blobs.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from uringblob import AsyncFileBlobStore
from uringblob_bench.bench import P99, Bench
from uringblob_bench.contenders.base import TaskContender
from uringblob_bench.contenders.ring import BareRing
from uringblob_bench.contenders.store import AsyncStore, guid_of
from uringblob_bench.contenders.thread_pool import ThreadPool
from uringblob_bench.drive import TaskCall
from uringblob_bench.finding import Finding, at_most, stated
from uringblob_bench.interleave import Case, Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures.base import Measure
from uringblob_bench.sample import Sample
from uringblob_bench.scale.build import build

DEPTH = 32
#: The store's loads by name, each with 32 frames in flight; commits are what holds a loop up most.
LOADS = {
    "reads": (Load(Verb.READ, DEPTH),),
    "writes": (Load(Verb.WRITE, 4, DEPTH // 4),),
    "commits": (Load(Verb.COMMIT, 4, DEPTH // 4),),
}
#: Single calls with very much to do, by name.
BULK = {
    "commits of 64 in ordinary memory": Load(Verb.COMMIT, 1, 64),
    "reads of 64 into ordinary memory": Load(Verb.READ, 1, 64),
}
NAMES = 100_000
_MS = 1000
_TICK = Load(Verb.TICK)
_SLEEP = Load(Verb.SLEEP)
_SLEEPING = ", sleeping"


def loop_stall(bench: Bench) -> list[Finding]:
    """Measure 11: of the worst load, the median of the turns; other contenders stand beside it."""
    store = AsyncStore(bench.params, bench.workdir)
    ours = [Entry(store, (_TICK, *loads), f"store, {name}") for name, loads in LOADS.items()]
    others = [
        Entry(other, (_TICK, *LOADS["reads"]), f"{other.name}, reads")
        for other in (BareRing(bench.params, bench.workdir), ThreadPool(bench.params, bench.workdir))
    ]
    idle = Entry(_Idle(bench.params, bench.workdir), (_TICK,), "idle loop")
    exact = [*ours, *others, idle]
    sleeping = [
        Entry(entry.contender, (_SLEEP, *entry.loads[1:]), entry.name + _SLEEPING) for entry in (*ours, idle)
    ]
    case = bench.case("loop stall", [*exact, *sleeping])
    if not case.has(*(entry.name for entry in ours)):
        raise RuntimeError(f"the store failed: {case.failures}")

    def worst_of_ours(figure: Callable[[Sample], float], suffix: str = "") -> float | None:
        names = [entry.name + suffix for entry in ours if case.has(entry.name + suffix)]
        return max((case.median(name, figure) * _MS for name in names), default=None)

    def words(entries: Sequence[Entry]) -> str:
        seen = [f"{entry.name} {_late(case, entry.name)}" for entry in entries if case.has(entry.name)]
        return "p99 / worst ms: " + ", ".join(seen)

    return [
        at_most("p99 delay of a 1 ms ticker at 32 in flight", worst_of_ours(P99), 1, "ms", words(exact)),
        at_most("its worst delay", worst_of_ours(_worst), 5, "ms", "median of the turns"),
        stated(
            "p99 delay of asyncio.sleep(0.001), which rounds to whole ms",
            worst_of_ours(P99, _SLEEPING),
            "ms",
            words(sleeping),
        ),
        _bulk_stall(bench),
    ]


def _bulk_stall(bench: Bench) -> Finding:
    bulk = _Bulk(bench.params, bench.workdir)
    entries = [Entry(bulk, (_TICK, load), f"store, {name}") for name, load in BULK.items()]
    entries.append(
        Entry(_Names(bench.params, bench.workdir), (_TICK, Load(Verb.READ)), f"store, {NAMES:,} names")
    )
    case = bench.case("loop stall, large calls", entries)
    names = [entry.name for entry in entries if case.has(entry.name)]
    worst = max((case.median(name, _worst) * _MS for name in names), default=None)
    said = ", ".join(f"{name} {_late(case, name)}" for name in names)
    return at_most("the worst delay beside one large call", worst, 5, "ms", f"p99 / worst ms: {said}")


def _worst(sample: Sample) -> float:
    return sample.latency.max_s


def _late(case: Case, name: str) -> str:
    worst = [value * _MS for value in case.values(name, _worst)]
    return (
        f"{case.median(name, P99) * _MS:.2f} / {case.median(name, _worst) * _MS:.2f} (up to {max(worst):.2f})"
    )


class _Bulk(AsyncStore):
    """The store, given memory that begins between two blocks."""

    @contextlib.asynccontextmanager
    async def session(
        self,
        loads: Sequence[Load],  # noqa: ARG002 - its memory is its own
    ) -> AsyncGenerator[Callable[[Load, int], TaskCall], None]:
        async with AsyncFileBlobStore.open(self.filler.path, **self.filler.options(0)) as store:

            def call_for(load: Load, number: int) -> TaskCall:
                size, first = self.params.page_size, number % max(self.params.live - load.frames, 1)
                memory = [memoryview(bytearray(size + 64))[64:] for _ in range(load.frames)]
                pairs = [(guid_of((first + n) % self.params.live), view) for n, view in enumerate(memory)]
                if load.verb is Verb.READ:
                    return lambda: store.read_blobs(pairs)
                return lambda: store.commit(pairs)

            yield call_for


class _Names(TaskContender):
    """A store of many blobs that are holes, and are listed again and again."""

    name = "store of many names"

    def settings(self) -> dict[str, object]:
        return {"blobs": NAMES, "loop": self.params.loop}

    def prepare(self) -> None:
        """Make it, once."""
        self._path = self.workdir.once("names.blobs", lambda path: build(path, NAMES, 4096))

    @contextlib.asynccontextmanager
    async def session(
        self,
        loads: Sequence[Load],  # noqa: ARG002 - there is one
    ) -> AsyncGenerator[Callable[[Load, int], TaskCall], None]:
        async with AsyncFileBlobStore.open(self._path) as store:
            yield lambda _load, _number: store.list_blobs


class _Idle(TaskContender):
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


MEASURES = [Measure(11, "loop-stall", "event-loop stall at full load, depth 32", loop_stall, turns=10)]
