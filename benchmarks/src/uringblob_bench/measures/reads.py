"""Random reads against fio: frames a second (1), CPU per frame (9), small frames on one core (10)."""

from __future__ import annotations

import dataclasses

from uringblob_bench.bench import CPU_PER_FRAME, Bench, at_least, at_most, detail, stated
from uringblob_bench.contenders.fio import Fio
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.measures.base import Measure

SMALL = 4096
UNVERIFIED = "store, verify=False"
#: The same frames in flight, in calls of ``read_blobs``.
TOGETHER = "store, read_blobs"
_IN_BATCHES = {32: Load(Verb.READ, 4, 8)}


def beside_fio(bench: Bench, params: Params, load: Load) -> list[Entry]:
    """Return the store and fio under the same load, and the store in batches where they are comparable."""
    store = AsyncStore(params, bench.workdir)
    entries = [Entry(store, (load,)), Entry(Fio(params, bench.workdir), (load,))]
    if load.workers in _IN_BATCHES:
        entries.append(Entry(store, (_IN_BATCHES[load.workers],), TOGETHER))
    return entries


def random_reads(bench: Bench) -> list[Finding]:
    """Measure 1; what the checksums cost of it is stated beside it."""
    found = []
    unverified = AsyncStore(dataclasses.replace(bench.params, verify=False), bench.workdir)
    for depth in (8, 32):
        load = Load(Verb.READ, depth)
        entries = [*beside_fio(bench, bench.params, load), Entry(unverified, (load,), UNVERIFIED)]
        case = bench.case(f"random reads, depth {depth}", entries)
        found += [
            at_least(f"random reads at depth {depth}, against fio", case, "store", "fio", 0.97),
            stated(f"the same with verify=False, depth {depth}", case, UNVERIFIED, "fio"),
        ]
    return [*found, stated("read_blobs of 8, depth 32, against fio", case, TOGETHER, "fio")]


def cpu_of_reads(bench: Bench) -> list[Finding]:
    """Measure 9."""
    params = dataclasses.replace(bench.params, verify=False)
    entries = beside_fio(bench, params, Load(Verb.READ, 32))
    case = bench.case("CPU of reads, depth 32, unverified", entries, params)
    alone = "CPU per read at depth 32, verify=False, against fio"
    together = "the same in calls of read_blobs, 8 frames each"
    return [
        at_most(what, case, ours, "fio", 1.5, CPU_PER_FRAME)
        for what, ours in ((alone, "store"), (together, TOGETHER))
    ]


def small_frames(bench: Bench) -> list[Finding]:
    """Measure 10."""
    file_bytes = min(bench.params.file_bytes, 64 << 20)
    params = dataclasses.replace(
        bench.params, page_size=SMALL, file_bytes=file_bytes, verify=False, one_core=True
    )
    entries = beside_fio(bench, params, Load(Verb.READ, 32))
    case = bench.case("4 KiB reads, depth 32, one core", entries, params)
    alone = "4 KiB reads a second at depth 32 on one core, verify=False, against fio"
    together = "the same in calls of read_blobs, 8 frames each"
    return [
        at_least(what, case, ours, "fio", 0.75, more="; " + detail(case, CPU_PER_FRAME, ours, "fio"))
        for what, ours in ((alone, "store"), (together, TOGETHER))
    ]


MEASURES = [
    Measure(1, "random-reads", "random reads, async, depth 8 and 32", random_reads, turns=6),
    Measure(9, "read-cpu", "CPU per 512 KiB read at depth 32, verify=False", cpu_of_reads),
    Measure(10, "small-frames", "the same with 4 KiB frames, one core", small_frames),
]
