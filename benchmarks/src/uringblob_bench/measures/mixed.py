"""One reader beside a task that commits batches without pause (8)."""

from __future__ import annotations

from uringblob_bench.bench import FRAMES_PER_S, P99, Bench, against, bounded
from uringblob_bench.contenders.fio import Fio
from uringblob_bench.contenders.floor import BareAsyncio
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures.base import Measure

BATCH = 32
ALONE = "store, batches alone"
WRITER = 1


def reader_beside_committer(bench: Bench) -> list[Finding]:
    """Measure 8: fio has a reading and a writing process; the store and the floor one loop for both."""
    reader = Load(Verb.READ)
    store = AsyncStore(bench.params, bench.workdir)
    fio = Fio(bench.params, bench.workdir)
    case = bench.case(
        "one reader beside commits of 32",
        [
            Entry(store, (reader, Load(Verb.COMMIT, 1, BATCH))),
            Entry(fio, (reader, Load(Verb.BATCH, 1, BATCH))),
            Entry(BareAsyncio(bench.params, bench.workdir), (reader, Load(Verb.COMMIT, 1, BATCH))),
            Entry(store, (Load(Verb.BATCH, 1, BATCH),), ALONE),
        ],
    )
    writer = None
    if case.has("store", ALONE):
        writer = case.median("store", FRAMES_PER_S, WRITER) / case.median(ALONE, FRAMES_PER_S)
    writers = [
        f"{name} {case.median(name, FRAMES_PER_S, load):.0f}"
        for name, load in (("store", WRITER), ("fio", WRITER), ("bare asyncio", WRITER), (ALONE, 0))
        if case.has(name)
    ]
    worst = [
        f"{name} p50 {case.spreads(name)['latency_p50_s'].median * 1e6:.0f}, "
        f"max {case.spreads(name)['latency_max_s'].median * 1e6:.0f}"
        for name in ("store", "fio", "bare asyncio")
        if case.has(name)
    ]
    targets = {"fio": bench.target(directory=1.0), "bare asyncio": bench.target(memory=1.5)}
    return [
        *against(
            f"p99 of a reader beside commits of {BATCH}, all doing the same",
            case,
            "store",
            targets,
            P99,
            "; " + "; ".join(worst),
        ),
        bounded(
            f"the committing writer beside a reader, against durable batches of {BATCH} alone",
            writer,
            bench.target(directory=0.95),
            detail="writers' frames/s: " + ", ".join(writers),
            more_is_better=True,
        ),
        *against(
            "the same beside a reader",
            case,
            "store",
            {"bare asyncio": bench.target(memory=0.9), "fio": None},
            load=WRITER,
        ),
    ]


MEASURES = [
    Measure(8, "mixed", "one reader beside a task that commits batches of 32", reader_beside_committer, 4)
]
