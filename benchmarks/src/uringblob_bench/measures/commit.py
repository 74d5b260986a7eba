"""One commit of one frame, alone (4): its latency, its calls into the kernel, its device flushes."""

from __future__ import annotations

from uringblob_bench import finding
from uringblob_bench.bench import P50, Bench, against
from uringblob_bench.contenders.callbacks import BareCallbacks
from uringblob_bench.contenders.fio import Fio
from uringblob_bench.contenders.floor import BareAsyncio
from uringblob_bench.contenders.os_calls import OsCalls
from uringblob_bench.contenders.store import AsyncStore, SyncStore
from uringblob_bench.counts import count_commits
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures.base import Measure


def commit_of_one(bench: Bench) -> list[Finding]:
    """Measure 4; of fio the rate is taken, as its latencies are without the sync."""
    contenders = [
        contender(bench.params, bench.workdir)
        for contender in (AsyncStore, SyncStore, OsCalls, BareAsyncio, BareCallbacks)
    ]
    entries = [Entry(contender, (Load(Verb.COMMIT),)) for contender in contenders]
    entries.append(Entry(Fio(bench.params, bench.workdir), (Load(Verb.BATCH),)))
    case = bench.case("commit of one frame", entries)
    counts = count_commits(bench.params, bench.workdir)
    target = bench.target
    ours = {"os calls": target(directory=1.15, memory=1.7), "bare asyncio": target(memory=1.15)}
    return [
        *against("commit of one frame", case, "store", {**ours, "bare callbacks": None}, P50),
        *against(
            "sync commit of one frame",
            case,
            "store (sync)",
            {"os calls": target(memory=2.1), "bare asyncio": None},
            P50,
        ),
        *against("the floor of it, bare asyncio", case, "bare asyncio", {"os calls": None}, P50),
        *against("commits of one frame a second", case, "store", {"fio": None}),
        finding.at_most(
            "submitting enters per commit", counts.submitting_enters, 2, "enters", counts.enters_words
        ),
        finding.at_most(
            "device flushes per commit", counts.device_flushes, 1, "flushes", counts.flushes_words
        ),
    ]


MEASURES = [Measure(4, "commit-of-one", "commit of one frame, alone", commit_of_one, turns=6, fixed_s=3)]
