"""The synchronous face: one thread against ``os.preadv`` (6), eight threads against eight tasks (7)."""

from __future__ import annotations

import dataclasses

from uringblob_bench.bench import P50, Bench, against
from uringblob_bench.contenders.fio import Fio
from uringblob_bench.contenders.floor import BareAsyncio
from uringblob_bench.contenders.os_calls import OsCalls
from uringblob_bench.contenders.store import AsyncStore, SyncStore
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures.base import Measure

THREADS = 8
STORE, OS_CALLS = "store (sync)", "os.preadv on the same file"
UNVERIFIED, CHECKSUMMED = "store (sync), verify=False", "os.preadv and the same checksum"


def one_thread(bench: Bench) -> list[Finding]:
    """Measure 6: the memory of the calls lies on private huge pages, as the store's."""
    load = Load(Verb.READ)
    params, workdir = bench.params, bench.workdir
    contenders = {
        STORE: SyncStore(params, workdir),
        OS_CALLS: OsCalls(params, workdir, on_store=True),
        UNVERIFIED: SyncStore(dataclasses.replace(params, verify=False), workdir),
        CHECKSUMMED: OsCalls(params, workdir, on_store=True, checksummed=True),
        "fio": Fio(params, workdir),
        "bare asyncio": BareAsyncio(params, workdir),
    }
    case = bench.case(
        "sync reads, one thread", [Entry(contender, (load,), name) for name, contender in contenders.items()]
    )
    targets = {
        OS_CALLS: bench.target(directory=1.15),
        CHECKSUMMED: bench.target(memory=1.15),
        "fio": None,
        "bare asyncio": None,
    }
    return [
        *against("sync read_blob, one thread", case, STORE, targets, P50),
        *against("the same with verify=False", case, UNVERIFIED, {OS_CALLS: None}, P50),
    ]


def many_threads(bench: Bench) -> list[Finding]:
    """Measure 7."""
    load = Load(Verb.READ, THREADS)
    contenders = [
        contender(bench.params, bench.workdir) for contender in (SyncStore, AsyncStore, Fio, BareAsyncio)
    ]
    case = bench.case(
        f"sync reads, {THREADS} threads", [Entry(contender, (load,)) for contender in contenders]
    )
    what = f"sync read_blob, {THREADS} threads (the others have {THREADS} in flight)"
    return against(what, case, STORE, {"store": 0.95, "fio": None, "bare asyncio": None})


MEASURES = [
    Measure(6, "sync-one-thread", "sync read_blob, one thread", one_thread, turns=6),
    Measure(7, "sync-threads", "sync read_blob, 8 threads", many_threads, turns=4),
]
