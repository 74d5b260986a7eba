"""The stall of the event loop at full load (11): the delay of a ticker that is due every millisecond.

The target is for a ticker with an exact timer (:mod:`uringblob_bench.ticker`).  ``asyncio.sleep``, which
rounds to whole milliseconds, is stated beside it, in turns of its own: each ticker wakes the loop, and so
changes the delay of the other.

Single large calls have their own case: batches in memory that is not aligned, and the names of a hundred
thousand blobs.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from uringblob import AsyncFileBlobStore
from uringblob_bench.bench import P99, Bench, bounded
from uringblob_bench.contenders.base import TaskContender
from uringblob_bench.contenders.floor import BareAsyncio
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
#: The store's loads by name, each with 32 frames in flight; commits stall a loop the most.
LOADS = {
    "reads": (Load(Verb.READ, DEPTH),),
    "writes": (Load(Verb.WRITE, 4, DEPTH // 4),),
    "commits": (Load(Verb.COMMIT, 4, DEPTH // 4),),
}
#: Many small groups of one, beside that.
COMMITTERS = "64 committers"
#: Large single calls by name.
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
    """Measure 11: the median of the turns, of the worst load; other contenders are stated beside it."""
    store = AsyncStore(bench.params, bench.workdir)
    ours = [Entry(store, (_TICK, *loads), f"store, {name}") for name, loads in LOADS.items()]
    committers = (_TICK, Load(Verb.COMMIT, 64))
    pool, floor = (other(bench.params, bench.workdir) for other in (ThreadPool, BareAsyncio))
    others = [
        Entry(store, committers, f"store, {COMMITTERS}"),
        Entry(floor, committers, f"{floor.name}, {COMMITTERS}"),
        *(
            Entry(other, (_TICK, *LOADS[name]), f"{other.name}, {name}")
            for other, name in ((floor, "reads"), (floor, "commits"), (pool, "reads"))
        ),
    ]
    idle = Entry(_Idle(bench.params, bench.workdir), (_TICK,), "idle loop")
    exact = [*ours, *others, idle]
    sleeping = [
        Entry(entry.contender, (_SLEEP, *entry.loads[1:]), entry.name + _SLEEPING) for entry in (*ours, idle)
    ]
    case = bench.case("loop stall", [*exact, *sleeping])
    if not case.has(*(entry.name for entry in ours)):
        raise RuntimeError(f"the store failed: {case.failures}")

    load = [entry.name for entry in ours]
    sleepers = [entry.name for entry in sleeping]
    tasks = [f"store, {COMMITTERS}", f"{floor.name}, {COMMITTERS}"]
    return [
        at_most(
            "p99 delay of a 1 ms ticker at 32 in flight",
            _most(case, load, P99),
            1,
            "ms",
            _words(case, [entry.name for entry in exact]),
        ),
        at_most("its worst delay", _most(case, load, _worst), 5, "ms", "median of the turns"),
        stated(
            "p99 delay of asyncio.sleep(0.001), which rounds to whole ms",
            _most(case, [name + _SLEEPING for name in load], P99),
            "ms",
            _words(case, sleepers),
        ),
        *_both(bench, f"beside {COMMITTERS}", case, tasks[:1], _words(case, tasks)),
        *_bulk_stall(bench),
    ]


def _bulk_stall(bench: Bench) -> list[Finding]:
    bulk = _Bulk(bench.params, bench.workdir)
    entries = [Entry(bulk, (_TICK, load), f"store, {name}") for name, load in BULK.items()]
    entries.append(
        Entry(_Names(bench.params, bench.workdir), (_TICK, Load(Verb.READ)), f"store, {NAMES:,} names")
    )
    case = bench.case("loop stall, large calls", entries)
    names = [entry.name for entry in entries]
    words, ordinary = _words(case, names), names[: len(BULK)]
    return [
        *_both(bench, "beside 64 in ordinary memory", case, ordinary, words),
        at_most("the worst delay beside one large call", _most(case, names, _worst), 5, "ms", words),
    ]


def _both(bench: Bench, what: str, case: Case, names: Sequence[str], words: str) -> list[Finding]:
    """Return the p99 and the worst delay, of the worst of these contenders."""
    p99, worst = bench.target(memory=1), bench.target(memory=5)
    return [
        bounded(f"the p99 delay {what}", _most(case, names, P99), p99, "ms", words),
        bounded(f"the worst delay {what}", _most(case, names, _worst), worst, "ms", words),
    ]


def _most(case: Case, names: Sequence[str], figure: Callable[[Sample], float]) -> float | None:
    """Return the largest of the medians, in milliseconds."""
    return max((case.median(name, figure) * _MS for name in names if case.has(name)), default=None)


def _words(case: Case, names: Sequence[str]) -> str:
    return "p99 / worst ms: " + ", ".join(f"{name} {_late(case, name)}" for name in names if case.has(name))


def _worst(sample: Sample) -> float:
    return sample.latency.max_s


def _late(case: Case, name: str) -> str:
    worst = [value * _MS for value in case.values(name, _worst)]
    return (
        f"{case.median(name, P99) * _MS:.2f} / {case.median(name, _worst) * _MS:.2f} (up to {max(worst):.2f})"
    )


class _Bulk(AsyncStore):
    """The store with memory that is not aligned to a block."""

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
    """A store of many blobs, all of them holes, that is listed again and again."""

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
    """An event loop without other work: the precision of a millisecond on this machine."""

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


MEASURES = [Measure(11, "loop-stall", "event-loop stall at full load, depth 32", loop_stall, turns=17)]
