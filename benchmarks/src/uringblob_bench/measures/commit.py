"""One commit of one frame, alone (4): its latency, its calls into the kernel, its device flushes."""

from __future__ import annotations

from uringblob_bench import finding
from uringblob_bench.bench import P50, Bench, at_most
from uringblob_bench.commit_counts import count_commits
from uringblob_bench.contenders.os_calls import OsCalls
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures.base import Measure


def commit_of_one(bench: Bench) -> list[Finding]:
    """Measure 4."""
    contenders = [AsyncStore(bench.params, bench.workdir), OsCalls(bench.params, bench.workdir)]
    entries = [Entry(contender, (Load(Verb.COMMIT),)) for contender in contenders]
    case = bench.case("commit of one frame", entries)
    counts = count_commits(bench.params, bench.workdir)
    return [
        at_most("commit of one frame, against pwrite + fdatasync", case, "store", "os calls", 1.15, P50),
        finding.at_most(
            "submitting enters per commit", counts.submitting_enters, 2, "enters", counts.enters_words
        ),
        finding.at_most(
            "device flushes per commit", counts.device_flushes, 1, "flushes", counts.flushes_words
        ),
    ]


MEASURES = [Measure(4, "commit-of-one", "commit of one frame, alone", commit_of_one, fixed_s=3)]
