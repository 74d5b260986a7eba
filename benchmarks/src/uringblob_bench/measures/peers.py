"""Beside the peers: the store against the best of them (12), the pread engine against the thread pool (13)."""

from __future__ import annotations

from collections.abc import Callable

from uringblob_bench import finding
from uringblob_bench.bench import FRAMES_PER_S, Bench, against
from uringblob_bench.contenders.catalogue import every_peer
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Case, Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures.base import Measure
from uringblob_bench.measures.reads import small
from uringblob_bench.measures.writes import COMMITTERS

ROUNDS = 3
PREAD = "store (pread)"
POOL = "thread pool"
OURS = ("store", PREAD)

LOADS = {
    "durable batches": Load(Verb.BATCH, 1, 32),
    "random reads": Load(Verb.READ, 32),
    "small commits": Load(Verb.COMMIT, COMMITTERS),
    "random writes": Load(Verb.WRITE, 4, 8),
}
#: The same with small frames.
SMALL_COMMITS = "small commits of 4 KiB"
#: The targets of measure 12: in the directory, and in memory.
TARGETS: dict[str, tuple[float | None, float]] = {
    "durable batches": (2.0, 2.0),
    "random reads": (1.5, 1.3),
    "small commits": (2.0, 2.0),
    SMALL_COMMITS: (None, 2.0),
}


def peer_case(bench: Bench, work: str) -> Case:
    """Run ``work`` on the store, with both engines, and on every peer."""
    params, load = bench.params, LOADS.get(work, LOADS["small commits"])
    if work == SMALL_COMMITS:
        params = small(params)
    contenders = [
        AsyncStore(params, bench.workdir),
        AsyncStore(params, bench.workdir, "pread"),
        *every_peer(params, bench.workdir),
    ]
    entries = [Entry(contender, (load,)) for contender in contenders]
    return bench.case(f"peers: {work}", entries, params, rounds=min(ROUNDS, bench.pace.rounds))


def best_peer(case: Case) -> str | None:
    """Return the peer with the most frames a second."""
    able = [name for name in case.samples if name not in OURS]
    return max(able, key=lambda name: case.median(name, FRAMES_PER_S), default=None)


def against_the_best(bench: Bench) -> list[Finding]:
    """Measure 12."""
    return [
        _against(peer_case(bench, work), work, bench.target(directory=directory, memory=memory), best_peer)
        for work, (directory, memory) in TARGETS.items()
    ]


def _against(case: Case, work: str, target: float | None, choose: Callable[[Case], str | None]) -> Finding:
    best = choose(case)
    if best is None:
        what = f"{work}, against the best peer"
        return finding.at_least(what, None, target or 0.0, detail=f"no peer: {case.failures}")
    return against(f"{work}, of the peers the best", case, "store", {best: target})[0]


def pread_engine(bench: Bench) -> list[Finding]:
    """Measure 13."""
    return [
        found
        for work in LOADS
        for found in against(f"the pread engine, {work}", peer_case(bench, work), PREAD, {POOL: 1.0})
    ]


_CONTENDERS = 10
#: Rounds of the peers' cases, as a share of the others'.
_SHARE = 0.6

MEASURES = [
    Measure(
        12,
        "best-peer",
        "against the best peer on durable batches, random reads, small commits",
        against_the_best,
        turns=int(4 * _CONTENDERS * _SHARE),
        fixed_s=25,
    ),
    Measure(
        13,
        "pread-engine",
        "the pread engine against the thread pool",
        pread_engine,
        turns=int(_CONTENDERS * _SHARE),
    ),
]
