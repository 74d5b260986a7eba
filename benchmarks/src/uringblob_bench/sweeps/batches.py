"""Ways to make a batch durable, alone and beside readers; readers beside committers."""

from __future__ import annotations

import dataclasses

from uringblob_bench.bench import Bench
from uringblob_bench.contenders.base import Contender
from uringblob_bench.contenders.fio import Fio
from uringblob_bench.contenders.ring import BareRing
from uringblob_bench.contenders.ring_sync import STRATEGIES
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.contenders.thread_pool import ThreadPool
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.sweeps.base import Sweep

ALONE, BESIDE, MIXED = "batch strategies", "batch strategies beside 8 readers", "readers beside committers"
BATCHES = (1, 4, 8, 32)
_READERS = 8


def _contenders(bench: Bench) -> list[tuple[str, Contender]]:
    rings: list[tuple[str, Contender]] = [
        (name, BareRing(dataclasses.replace(bench.params, sync=name), bench.workdir)) for name in STRATEGIES
    ]
    return [*rings, ("store", AsyncStore(bench.params, bench.workdir))]


def alone(bench: Bench) -> None:
    """Durable batches of several sizes, one at a time."""
    for batch in bench.points(BATCHES):
        load = Load(Verb.BATCH, 1, batch)
        bench.point(ALONE, batch, [Entry(contender, (load,), name) for name, contender in _contenders(bench)])


def beside_readers(bench: Bench) -> None:
    """Batches of eight while eight readers run on the same ring: who stalls whom."""
    loads = (Load(Verb.READ, _READERS), Load(Verb.BATCH, 1, 8))
    bench.point(BESIDE, 8, [Entry(contender, loads, name) for name, contender in _contenders(bench)])


def mixed(bench: Bench) -> None:
    """1 and 8 readers beside one committer of 32."""
    for readers in (1, _READERS):
        ours = (Load(Verb.READ, readers), Load(Verb.COMMIT, 1, 32))
        fios = (Load(Verb.READ, readers), Load(Verb.BATCH, 1, 32))
        entries = [
            Entry(AsyncStore(bench.params, bench.workdir), ours),
            Entry(ThreadPool(bench.params, bench.workdir), ours),
            Entry(Fio(bench.params, bench.workdir), fios),
        ]
        bench.point(MIXED, readers, entries)


_STRATEGIES = len(STRATEGIES) + 1

SWEEPS = [
    Sweep("batches", ALONE, alone, _STRATEGIES * len(BATCHES)),
    Sweep("batches-beside", BESIDE, beside_readers, _STRATEGIES),
    Sweep("mixed", MIXED, mixed, 6),
]
