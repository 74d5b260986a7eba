"""Writes: random and not synced (2), durable batches (3), many small commits (5)."""

from __future__ import annotations

import dataclasses

from uringblob_bench.bench import FRAMES_PER_S, Bench, against, bounded, detail, ratio
from uringblob_bench.contenders.callbacks import BareCallbacks
from uringblob_bench.contenders.fio import Fio
from uringblob_bench.contenders.floor import BareAsyncio
from uringblob_bench.contenders.os_calls import OsCalls
from uringblob_bench.contenders.ring import BareRing
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.finding import Finding
from uringblob_bench.fio_sync import SyncEvidence, fio_sync_evidence
from uringblob_bench.interleave import Case, Entry
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.measures.base import Measure
from uringblob_bench.measures.reads import beside, small

BATCHES = (8, 32)
WRITE_BATCHES = (8, 16)
COMMITTERS = 64
_IN_FLIGHT = 32
#: The store's own, beside its small commits.
BATCHED = f"durable batches of {max(BATCHES)}"


def random_writes(bench: Bench) -> list[Finding]:
    """Measure 2: tasks with batches of 8 and of 16; fio has as many frames in flight, one by one."""
    found = []
    for batch in WRITE_BATCHES:
        load = Load(Verb.WRITE, _IN_FLIGHT // batch, batch)
        store, fio, *floor = beside(bench, bench.params, load)
        fio = dataclasses.replace(fio, loads=(Load(Verb.WRITE, _IN_FLIGHT),))
        case = bench.case(f"random writes in batches of {batch}", [store, fio, *floor])
        targets = {
            "fio": bench.target(directory=0.97),
            "bare asyncio": bench.target(memory=0.9),
            "bare callbacks": None,
        }
        what = f"random writes in batches of {batch}, {_IN_FLIGHT} frames in flight"
        found += against(what, case, "store", targets)
    return found


def durable_batch_case(bench: Bench, batch: int) -> Case:
    """Run the store, a two-phase loop on the bare ring, the floor, the ``os`` calls, and fio with fdatasync."""
    params = dataclasses.replace(bench.params, sync="two-phase")
    contenders = (AsyncStore, BareRing, Fio, BareAsyncio, BareCallbacks, OsCalls)
    entries = [
        Entry(contender(params, bench.workdir), (Load(Verb.BATCH, 1, batch),)) for contender in contenders
    ]
    return bench.case(f"durable batches of {batch}", entries, params)


def reference(bench: Bench, case: Case, batch: int) -> tuple[str, SyncEvidence]:
    """Return who is the limit: fio if it waits for its writes before it syncs, else the two-phase loop."""
    evidence = fio_sync_evidence(bench.params, bench.workdir, batch)
    case.settings.setdefault("fio", {})["sync"] = dataclasses.asdict(evidence)
    return ("fio" if evidence.trusted else "bare ring"), evidence


def durable_batches(bench: Bench) -> list[Finding]:
    """Measure 3."""
    found = []
    for batch in BATCHES:
        case = durable_batch_case(bench, batch)
        limit, evidence = reference(bench, case, batch)
        by = "fio" if limit == "fio" else "two-phase on the bare ring"
        words = f"{detail(case, FRAMES_PER_S, 'store', 'bare ring', 'fio')} ({evidence.words})"
        what = f"durable batches of {batch}"
        measured, target = ratio(case, "store", limit, FRAMES_PER_S), bench.target(directory=0.97)
        found.append(bounded(f"{what}, against {by}", measured, target, detail=words, more_is_better=True))
        floor = {"bare asyncio": bench.target(memory=0.9), "bare callbacks": None, "os calls": None}
        found += against(what, case, "store", floor)
    return found


def small_commits(bench: Bench) -> list[Finding]:
    """Measure 5: against the store's own durable batches, in the same run; and with small frames."""
    targets = {
        BATCHED: bench.target(directory=0.9, memory=0.95),
        "bare asyncio": None,
        "bare callbacks": None,
        "os calls": None,
    }
    what = f"{COMMITTERS} tasks committing one frame each"
    case = _committers(bench, f"{COMMITTERS} committers", bench.params)
    params = small(bench.params)
    few = _committers(bench, f"{COMMITTERS} committers, 4 KiB", params)
    measured = few.median("commits", FRAMES_PER_S) if few.has("commits") else None
    return [
        *against(what, case, "commits", targets),
        bounded(
            "the same with frames of 4 KiB: commits a second",
            measured,
            bench.target(memory=25_000),
            "/s",
            detail(few, FRAMES_PER_S, "commits"),
            more_is_better=True,
        ),
        *against("the same with frames of 4 KiB", few, "commits", dict.fromkeys(targets)),
    ]


def _committers(bench: Bench, name: str, params: Params) -> Case:
    """Run 64 committers, and the store's durable batches of 32."""
    store, *others = (
        contender(params, bench.workdir) for contender in (AsyncStore, BareAsyncio, BareCallbacks, OsCalls)
    )
    commits = (Load(Verb.COMMIT, COMMITTERS),)
    batches = Entry(store, (Load(Verb.BATCH, 1, max(BATCHES)),), BATCHED)
    entries = [Entry(store, commits, "commits"), batches, *(Entry(other, commits) for other in others)]
    return bench.case(name, entries, params)


MEASURES = [
    Measure(2, "random-writes", "random writes, async, in batches, 32 in flight", random_writes, turns=8),
    Measure(3, "durable-batches", "durable batches of 8 and 32", durable_batches, turns=12, fixed_s=3),
    Measure(
        5, "group-commit", "64 tasks, each committing one frame again and again", small_commits, turns=10
    ),
]
