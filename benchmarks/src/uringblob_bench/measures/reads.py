"""Random reads: frames a second (1), CPU per frame (9), small frames on one core (10)."""

from __future__ import annotations

import dataclasses

from uringblob_bench.bench import CPU_PER_FRAME, Bench, against, detail
from uringblob_bench.contenders.callbacks import BareCallbacks
from uringblob_bench.contenders.fio import Fio
from uringblob_bench.contenders.floor import BareAsyncio
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.measures.base import Measure

SMALL = 4096
#: A file of small frames need not be longer.
SMALL_FILE_BYTES = 64 << 20
UNVERIFIED, FLOOR_UNVERIFIED = "store, verify=False", "bare asyncio, verify=False"
#: The same frames in flight, in calls of ``read_blobs``.
TOGETHER = "store, read_blobs"
_IN_BATCHES = {32: Load(Verb.READ, 4, 8)}


def beside(bench: Bench, params: Params, load: Load) -> list[Entry]:
    """Return the store, fio and the floor under the same load, and the store in batches where they are comparable."""
    store = AsyncStore(params, bench.workdir)
    others = [contender(params, bench.workdir) for contender in (Fio, BareAsyncio, BareCallbacks)]
    entries = [Entry(contender, (load,)) for contender in (store, *others)]
    if load.workers in _IN_BATCHES:
        entries.append(Entry(store, (_IN_BATCHES[load.workers],), TOGETHER))
    return entries


def small(params: Params, size: int = SMALL) -> Params:
    """Return the setting with small frames."""
    file_bytes = min(params.file_bytes, SMALL_FILE_BYTES)
    return dataclasses.replace(params, page_size=size, file_bytes=file_bytes)


def random_reads(bench: Bench) -> list[Finding]:
    """Measure 1; what the checksums cost of it is stated beside it."""
    found = []
    unverified = dataclasses.replace(bench.params, verify=False)
    for depth in (8, 32):
        load = Load(Verb.READ, depth)
        entries = [
            *beside(bench, bench.params, load),
            Entry(AsyncStore(unverified, bench.workdir), (load,), UNVERIFIED),
            Entry(BareAsyncio(unverified, bench.workdir), (load,), FLOOR_UNVERIFIED),
        ]
        case = bench.case(f"random reads, depth {depth}", entries)
        targets = {
            "fio": bench.target(directory=0.97),
            "bare asyncio": bench.target(memory=0.95),
            "bare callbacks": None,
        }
        found += against(f"random reads at depth {depth}", case, "store", targets)
        what = f"the same with verify=False, depth {depth}"
        found += against(what, case, UNVERIFIED, {"fio": None, FLOOR_UNVERIFIED: None})
    return [*found, *against("read_blobs of 8, depth 32", case, TOGETHER, {"fio": None})]


def cpu_of_reads(bench: Bench) -> list[Finding]:
    """Measure 9."""
    params = dataclasses.replace(bench.params, verify=False)
    case = bench.case(
        "CPU of reads, depth 32, unverified", beside(bench, params, Load(Verb.READ, 32)), params
    )
    fio = {"fio": bench.target(directory=1.5, memory=2.5)}
    floor = {"bare asyncio": bench.target(memory=1.25), "bare callbacks": None}
    alone = "CPU per read at depth 32, verify=False"
    together = "the same in calls of read_blobs, 8 frames each"
    return [
        *against(alone, case, "store", {**fio, **floor}, CPU_PER_FRAME),
        *against(together, case, TOGETHER, fio, CPU_PER_FRAME),
    ]


def small_frames(bench: Bench) -> list[Finding]:
    """Measure 10."""
    params = dataclasses.replace(small(bench.params), verify=False, one_core=True)
    case = bench.case("4 KiB reads, depth 32, one core", beside(bench, params, Load(Verb.READ, 32)), params)
    fio = {"fio": bench.target(directory=0.75, memory=0.45)}
    floor = {"bare asyncio": bench.target(memory=0.75), "bare callbacks": None}
    alone = "4 KiB reads a second at depth 32 on one core, verify=False"
    together = "the same in calls of read_blobs, 8 frames each"
    cpu = "; " + detail(case, CPU_PER_FRAME, "store", TOGETHER, "fio", "bare asyncio")
    return [
        *against(alone, case, "store", {**fio, **floor}, more=cpu),
        *against(together, case, TOGETHER, fio),
    ]


MEASURES = [
    Measure(1, "random-reads", "random reads, async, depth 8 and 32", random_reads, turns=13),
    Measure(9, "read-cpu", "CPU per 512 KiB read at depth 32, verify=False", cpu_of_reads, turns=5),
    Measure(10, "small-frames", "the same with 4 KiB frames, one core", small_frames, turns=5),
]
