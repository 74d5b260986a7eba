"""The synchronous face: one thread against ``os.preadv`` (6), eight threads against eight tasks (7)."""

from __future__ import annotations

import dataclasses

from uringblob_bench.bench import P50, Bench, at_least, at_most, stated
from uringblob_bench.contenders.os_calls import OsCalls
from uringblob_bench.contenders.store import AsyncStore, SyncStore
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures.base import Measure

THREADS = 8
STORE, OS_CALLS = "store (sync)", "os calls"
UNVERIFIED, CHECKSUMMED = "store (sync), verify=False", "os calls, checksummed"


def one_thread(bench: Bench) -> list[Finding]:
    """Measure 6; stated beside it: both without a checksum, and both with one."""
    load = Load(Verb.READ)
    params, workdir = bench.params, bench.workdir
    contenders = {
        STORE: SyncStore(params, workdir),
        OS_CALLS: OsCalls(params, workdir, on_store=True),
        UNVERIFIED: SyncStore(dataclasses.replace(params, verify=False), workdir),
        CHECKSUMMED: OsCalls(params, workdir, on_store=True, checksummed=True),
    }
    case = bench.case(
        "sync reads, one thread", [Entry(contender, (load,), name) for name, contender in contenders.items()]
    )

    return [
        at_most(
            "sync read_blob, one thread, against os.preadv on the same file", case, STORE, OS_CALLS, 1.15, P50
        ),
        stated("the same with verify=False", case, UNVERIFIED, OS_CALLS, P50),
        stated("against os.preadv and the same checksum", case, STORE, CHECKSUMMED, P50),
    ]


def many_threads(bench: Bench) -> list[Finding]:
    """Measure 7."""
    load = Load(Verb.READ, THREADS)
    contenders = [SyncStore(bench.params, bench.workdir), AsyncStore(bench.params, bench.workdir)]
    case = bench.case(
        f"sync reads, {THREADS} threads", [Entry(contender, (load,)) for contender in contenders]
    )
    what = f"sync read_blob, {THREADS} threads, against async at depth {THREADS}"
    return [at_least(what, case, STORE, "store", 0.95)]


MEASURES = [
    Measure(6, "sync-one-thread", "sync read_blob, one thread", one_thread, turns=4),
    Measure(7, "sync-threads", "sync read_blob, 8 threads", many_threads),
]
