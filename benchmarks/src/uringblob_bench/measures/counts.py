"""What an operation costs in counts (18), and what one loop can do on a device without latency (19)."""

from __future__ import annotations

import dataclasses

from uringblob_bench.bench import FRAMES_PER_S, Bench, against, bounded, detail
from uringblob_bench.contenders.no_device import BareNops, StoreNops
from uringblob_bench.counts import CONTENDERS, calls_of, system_calls
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures.base import Measure
from uringblob_bench.measures.writes import COMMITTERS

#: What is counted, and the most of uringblob's own Python calls; they are of the code, not of the medium.
WORK: dict[str, tuple[Load, float | None]] = {
    "a read, alone": (Load(Verb.READ), 20),
    "a read at depth 32": (Load(Verb.READ, 32), None),
    "a commit of one": (Load(Verb.COMMIT), 80),
    f"one of {COMMITTERS} commits": (Load(Verb.COMMIT, COMMITTERS), None),
    "a frame of write_blobs of 8": (Load(Verb.WRITE, 1, 8), None),
    "a frame of a durable batch of 8": (Load(Verb.BATCH, 1, 8), None),
}
#: Reads a second on a device without latency, without checksums and with them.
ONE_LOOP = {False: 60_000, True: 10_000}


def counts(bench: Bench) -> list[Finding]:
    """Measure 18: of the store, with those of bare asyncio beside them."""
    found = []
    for what, (load, most) in WORK.items():
        python, systems = [], []
        for name, make in CONTENDERS.items():
            python.append(calls_of(make(bench.params, bench.workdir), load))
            systems.append(system_calls(bench.params, bench.workdir, name, load))
        (own, every, c), (bare_own, bare_every, bare_c) = python
        (system, words), (bare_system, bare_words) = systems
        floor = "-" if bare_system is None else f"{bare_system:.1f} ({bare_words})"
        found += [
            bounded(
                f"Python calls of {what}, within uringblob",
                own,
                most,
                "calls",
                f"bare asyncio {bare_own:.1f}",
            ),
            bounded(
                f"with the loop's and the caller's, {what}",
                every,
                None,
                "calls",
                f"bare asyncio {bare_every:.1f}",
            ),
            bounded(f"C calls of {what}", c, None, "calls", f"bare asyncio {bare_c:.1f}"),
            bounded(f"system calls of {what}", system, None, "calls", f"{words}; bare asyncio {floor}"),
        ]
    return found


def no_device(bench: Bench) -> list[Finding]:
    """Measure 19: what a device of any speed cannot exceed, with one loop; no figure is the medium's."""
    found = []
    for verify, target in ONE_LOOP.items():
        params = dataclasses.replace(bench.params, verify=verify)
        contenders = [contender(params, bench.workdir) for contender in (StoreNops, BareNops)]
        ours, floor = (contender.name for contender in contenders)
        words = "with checksums" if verify else "without checksums"
        entries = [Entry(contender, (Load(Verb.READ, 32),)) for contender in contenders]
        case = bench.case(f"one loop without a device, {words}", entries, params)
        what = f"reads of one loop without a device, {words}"
        measured = case.median(ours, FRAMES_PER_S) if case.has(ours) else None
        seen = detail(case, FRAMES_PER_S, ours, floor)
        found += [
            bounded(f"{what}, a second", measured, target, "/s", seen, more_is_better=True),
            *against(what, case, ours, {floor: None}),
        ]
    return found


MEASURES = [
    Measure(18, "counts", "Python, C and system calls an operation", counts, turns=0, fixed_s=8),
    Measure(19, "no-device", "one loop on a device without latency", no_device, turns=4),
]
