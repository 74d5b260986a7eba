"""Writes: random and not synced (2), durable batches (3), many small commits (5)."""

from __future__ import annotations

import dataclasses

from uringblob_bench import finding
from uringblob_bench.bench import FRAMES_PER_S, Bench, at_least, detail, ratio
from uringblob_bench.contenders.fio import Fio
from uringblob_bench.contenders.ring import BareRing
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.finding import Finding
from uringblob_bench.fio_sync import SyncEvidence, fio_sync_evidence
from uringblob_bench.interleave import Case, Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures.base import Measure
from uringblob_bench.measures.reads import beside_fio

BATCHES = (8, 32)
COMMITTERS = 64


def random_writes(bench: Bench) -> list[Finding]:
    """Measure 2: four tasks with batches of eight; fio has as many frames in flight, one by one."""
    store, fio = beside_fio(bench, bench.params, Load(Verb.WRITE, 4, 8))
    fio = dataclasses.replace(fio, loads=(Load(Verb.WRITE, 32),))
    case = bench.case("random writes, 32 in flight", [store, fio])
    what = "random writes in batches, 32 frames in flight, against fio"
    return [at_least(what, case, "store", "fio", 0.97)]


def durable_batch_case(bench: Bench, batch: int) -> Case:
    """Run the store, a two-phase loop on the bare ring, and fio with fdatasync."""
    load = Load(Verb.BATCH, 1, batch)
    params = dataclasses.replace(bench.params, sync="two-phase")
    contenders = [
        AsyncStore(params, bench.workdir),
        BareRing(params, bench.workdir),
        Fio(params, bench.workdir),
    ]
    return bench.case(
        f"durable batches of {batch}", [Entry(contender, (load,)) for contender in contenders], params
    )


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
        against = "fio" if limit == "fio" else "two-phase on the bare ring"
        names = ("store", "bare ring", "fio")
        words = f"{detail(case, FRAMES_PER_S, *names)} ({evidence.words})"
        what, measured = (
            f"durable batches of {batch}, against {against}",
            ratio(case, "store", limit, FRAMES_PER_S),
        )
        found.append(finding.at_least(what, measured, 0.97, detail=words))
    return found


def small_commits(bench: Bench) -> list[Finding]:
    """Measure 5: against the store's own durable batches, in the same run."""
    store = AsyncStore(bench.params, bench.workdir)
    commits = Entry(store, (Load(Verb.COMMIT, COMMITTERS),), "commits")
    batches = Entry(store, (Load(Verb.BATCH, 1, max(BATCHES)),), "batches")
    case = bench.case(f"{COMMITTERS} committers", [commits, batches])
    what = f"{COMMITTERS} tasks committing one frame each, against durable batches of {max(BATCHES)}"
    return [at_least(what, case, "commits", "batches", 0.9)]


MEASURES = [
    Measure(2, "random-writes", "random writes, async, in batches, 32 in flight", random_writes),
    Measure(3, "durable-batches", "durable batches of 8 and 32", durable_batches, turns=6, fixed_s=3),
    Measure(5, "group-commit", "64 tasks, each committing one frame again and again", small_commits),
]
