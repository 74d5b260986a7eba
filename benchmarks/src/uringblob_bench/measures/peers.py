"""Beside the peers: the store against the best of them (12), the pread engine against the thread pool (13)."""

from __future__ import annotations

from collections.abc import Callable

from uringblob_bench import finding
from uringblob_bench.bench import FRAMES_PER_S, Bench, at_least
from uringblob_bench.contenders.catalogue import every_peer
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Case, Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures.base import Measure
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
#: What measure 12 asks for.
TARGETS = {"durable batches": 2.0, "random reads": 1.5, "small commits": 2.0}


def peer_case(bench: Bench, work: str) -> Case:
    """Let the store, on both engines, and every peer do ``work``."""
    contenders = [
        AsyncStore(bench.params, bench.workdir),
        AsyncStore(bench.params, bench.workdir, "pread"),
        *every_peer(bench.params, bench.workdir),
    ]
    entries = [Entry(contender, (LOADS[work],)) for contender in contenders]
    return bench.case(f"peers: {work}", entries, rounds=min(ROUNDS, bench.pace.rounds))


def best_peer(case: Case) -> str | None:
    """Return the peer with the most frames a second."""
    able = [name for name in case.samples if name not in OURS]
    return max(able, key=lambda name: case.median(name, FRAMES_PER_S), default=None)


def against_the_best(bench: Bench) -> list[Finding]:
    """Measure 12."""
    return [_against(peer_case(bench, work), work, target, best_peer) for work, target in TARGETS.items()]


def _against(case: Case, work: str, target: float, choose: Callable[[Case], str | None]) -> Finding:
    best = choose(case)
    if best is None:
        what = f"{work}, against the best peer"
        return finding.at_least(what, None, target, detail=f"no peer: {case.failures}")
    return at_least(f"{work}, against the best peer ({best})", case, "store", best, target)


def pread_engine(bench: Bench) -> list[Finding]:
    """Measure 13."""
    return [
        at_least(
            f"the pread engine, {work}, against the thread pool", peer_case(bench, work), PREAD, POOL, 1.0
        )
        for work in LOADS
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
        turns=int(3 * _CONTENDERS * _SHARE),
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
