"""The synchronous face: one thread against ``os.preadv`` (6), eight threads against eight tasks (7)."""

from __future__ import annotations

import dataclasses

from uringblob.bench.alternate import Entry
from uringblob.bench.bench import Bench, detail, frames_per_s, p50, ratio
from uringblob.bench.finding import Finding, at_least, at_most, stated
from uringblob.bench.load import Load, Verb
from uringblob.bench.measures.base import Measure
from uringblob.bench.subjects.os_calls import OsCalls
from uringblob.bench.subjects.store import AsyncStore, SyncStore

THREADS = 8
UNVERIFIED = "store (sync), verify=False"


def one_thread(bench: Bench) -> list[Finding]:
    """Measure 6; what the checksum costs of it is stated beside it."""
    load = Load(Verb.READ)
    parties = [SyncStore(bench.params, bench.place), OsCalls(bench.params, bench.place, on_store=True)]
    unverified = SyncStore(dataclasses.replace(bench.params, verify=False), bench.place)
    entries = [*(Entry(party, (load,)) for party in parties), Entry(unverified, (load,), UNVERIFIED)]
    case = bench.case("sync reads, one thread", entries)
    return [
        at_most(
            "sync read_blob, one thread, against os.preadv on the same file",
            ratio(case, "store (sync)", "os calls", p50),
            1.15,
            detail="median µs: " + detail(case, "store (sync)", "os calls", p50, 1e6),
        ),
        stated(
            "the same with verify=False",
            ratio(case, UNVERIFIED, "os calls", p50),
            detail="median µs: " + detail(case, UNVERIFIED, "os calls", p50, 1e6),
        ),
    ]


def many_threads(bench: Bench) -> list[Finding]:
    """Measure 7."""
    load = Load(Verb.READ, THREADS)
    parties = [SyncStore(bench.params, bench.place), AsyncStore(bench.params, bench.place)]
    case = bench.case(f"sync reads, {THREADS} threads", [Entry(party, (load,)) for party in parties])
    return [
        at_least(
            f"sync read_blob, {THREADS} threads, against async at depth {THREADS}",
            ratio(case, "store (sync)", "store", frames_per_s),
            0.95,
            detail="frames/s: " + detail(case, "store (sync)", "store", frames_per_s),
        )
    ]


MEASURES = [
    Measure(6, "sync-one-thread", "sync read_blob, one thread", one_thread, turns=3),
    Measure(7, "sync-threads", "sync read_blob, 8 threads", many_threads),
]
