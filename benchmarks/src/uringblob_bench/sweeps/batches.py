"""Ways to make a batch durable, alone and beside readers; readers beside committers."""

from __future__ import annotations

import dataclasses

from uringblob_bench.alternate import Entry
from uringblob_bench.bench import Bench
from uringblob_bench.load import Load, Verb
from uringblob_bench.subjects.base import Subject
from uringblob_bench.subjects.fio import Fio
from uringblob_bench.subjects.ring import BareRing
from uringblob_bench.subjects.ring_sync import STRATEGIES
from uringblob_bench.subjects.store import AsyncStore
from uringblob_bench.subjects.thread_pool import ThreadPool
from uringblob_bench.sweeps.base import Sweep

ALONE, BESIDE, MIXED = "batch strategies", "batch strategies beside 8 readers", "readers beside committers"
BATCHES = (1, 4, 8, 32)
_READERS = 8


def _parties(bench: Bench) -> list[tuple[str, Subject]]:
    rings: list[tuple[str, Subject]] = [
        (name, BareRing(dataclasses.replace(bench.params, sync=name), bench.place)) for name in STRATEGIES
    ]
    return [*rings, ("store", AsyncStore(bench.params, bench.place))]


def alone(bench: Bench) -> None:
    """Durable batches of several sizes, one at a time."""
    for batch in bench.points(BATCHES):
        load = Load(Verb.BATCH, 1, batch)
        bench.point(ALONE, batch, [Entry(party, (load,), name) for name, party in _parties(bench)])


def beside_readers(bench: Bench) -> None:
    """Batches of eight while eight readers run on the same ring: who stalls whom."""
    loads = (Load(Verb.READ, _READERS), Load(Verb.BATCH, 1, 8))
    bench.point(BESIDE, 8, [Entry(party, loads, name) for name, party in _parties(bench)])


def mixed(bench: Bench) -> None:
    """1 and 8 readers beside one committer of 32."""
    for readers in (1, _READERS):
        ours = (Load(Verb.READ, readers), Load(Verb.COMMIT, 1, 32))
        fios = (Load(Verb.READ, readers), Load(Verb.BATCH, 1, 32))
        entries = [
            Entry(AsyncStore(bench.params, bench.place), ours),
            Entry(ThreadPool(bench.params, bench.place), ours),
            Entry(Fio(bench.params, bench.place), fios),
        ]
        bench.point(MIXED, readers, entries)


_STRATEGIES = len(STRATEGIES) + 1

SWEEPS = [
    Sweep("batches", ALONE, alone, _STRATEGIES * len(BATCHES)),
    Sweep("batches-beside", BESIDE, beside_readers, _STRATEGIES),
    Sweep("mixed", MIXED, mixed, 6),
]
