"""Living with a store: beside snapshots and reader processes (22), during a vacuum (23), while it is copied (24)."""

from __future__ import annotations

import dataclasses

from uringblob_bench.bench import CPU_PER_FRAME, P50, P99, Bench, Figure, against, bounded, ratio
from uringblob_bench.contenders.beside import BesideReaders, BesideSnapshots
from uringblob_bench.contenders.copies import Backup, CpAndSync
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.contenders.vacuumed import VacuumedStore
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Entry
from uringblob_bench.load import MIB, Load, Verb
from uringblob_bench.measures.base import Measure

FILE_BYTES = 512 * MIB
COUNTS = (1, 8)
LOADS = {
    "reads at depth 8": Load(Verb.READ, 8),
    "commits of one frame": Load(Verb.COMMIT),
    "64 committers": Load(Verb.COMMIT, 64),
}
#: A vacuum moves a frame at a time: so small that it takes longer than a turn.
VACUUM_PAGE, VACUUM_BYTES = 65536, 256 * MIB
WORST = Figure(lambda sample: sample.latency.max_s, "worst µs", 1e6)


def beside_snapshots_and_readers(bench: Bench) -> list[Finding]:
    """Measure 22."""
    params = dataclasses.replace(bench.params, file_bytes=min(bench.params.file_bytes, FILE_BYTES))
    alone = AsyncStore(params, bench.workdir)
    beside = [
        kind(params, bench.workdir, count) for kind in (BesideSnapshots, BesideReaders) for count in COUNTS
    ]
    target = bench.target(directory=0.95, memory=0.95)
    found = []
    for what, load in LOADS.items():
        case = bench.case(f"{what}, in company", [Entry(one, (load,)) for one in (alone, *beside)], params)
        for one in beside:
            found += against(f"{what} beside {one.name}", case, one.name, {alone.name: target})
            found += against("the same, CPU", case, one.name, {alone.name: None}, CPU_PER_FRAME)
    return found


def pause_of_vacuum(bench: Bench) -> list[Finding]:
    """Measure 23."""
    params = dataclasses.replace(
        bench.params, page_size=VACUUM_PAGE, file_bytes=min(bench.params.file_bytes, VACUUM_BYTES)
    )
    loads = (Load(Verb.READ, 8), Load(Verb.COMMIT), Load(Verb.TICK))
    with_it, without = (VacuumedStore(params, bench.workdir, vacuums=vacuums) for vacuums in (True, False))
    case = bench.case("vacuum beside loads", [Entry(one, loads) for one in (with_it, without)], params)
    took = case.settings.get(with_it.name, {})
    more = f"; the last turn's vacuum {took.get('vacuum_s', 0):.2f} s, {took.get('file_bytes_freed', 0):,} bytes freed"
    found = []
    for number, what in enumerate(("a reader", "a committer")):
        for figure in (P50, P99, WORST):
            found += against(
                f"{figure.name.split()[0]} of {what} beside vacuum()", case, with_it.name, {without.name: None},
                figure, more, number,
            )  # fmt: skip
    worst = case.median(with_it.name, WORST, 2) * 1e3 if case.has(with_it.name) else None
    found.append(
        bounded("worst delay of the loop beside vacuum()", worst, bench.target(memory=5), "ms", more[2:])
    )
    return found


def copying(bench: Bench) -> list[Finding]:
    """Measure 24: each copy's own bytes a second."""
    params = dataclasses.replace(bench.params, file_bytes=min(bench.params.file_bytes, FILE_BYTES))
    contenders = [kind(params, bench.workdir) for kind in (Backup, CpAndSync)]
    case = bench.case("copies of a store", [Entry(one, ()) for one in contenders], params)
    rate = Figure(lambda sample: sample.bytes_per_s, "MB/s", 1e-6, more_is_better=True)
    whole = ratio(case, CpAndSync.name, Backup.name, WORST)
    more = (
        ""
        if whole is None
        else f"; the whole copy takes cp {whole:.2f} times as long (it copies free slots, too)"
    )
    return against("backup, verified", case, Backup.name, {CpAndSync.name: None}, rate, more)


MEASURES = [
    Measure(22, "company", "reads and commits beside snapshots and reader processes",
            beside_snapshots_and_readers, turns=15, fixed_s=30),
    Measure(23, "vacuum", "what waits for a vacuum", pause_of_vacuum, turns=2, fixed_s=15),
    Measure(24, "backup", "backup against cp", copying, turns=0, fixed_s=15),
]  # fmt: skip
