"""How long the file becomes (16), and what pieces cost (17)."""

from __future__ import annotations

import dataclasses

from uringblob_bench import finding
from uringblob_bench.bench import CPU_PER_FRAME, P50, Bench, against
from uringblob_bench.contenders.fragmented import BATCH, FRAMES, FragmentedStore, ScatteredRing
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures.base import Measure
from uringblob_bench.sweeps.overwrites import TIMES, by_overwrites

SMALL = 4096
#: What a store has besides, whatever it holds: in bytes, and in frames where they are longer than 64 KiB.
FIXED_BYTES, FIXED_FRAMES = 4 << 20, 8


def fixed_bytes(page_size: int) -> int:
    """Return the fixed cost that ``docs/maintainers/format.md`` states."""
    return FIXED_BYTES if page_size <= 65536 else FIXED_FRAMES * page_size


def file_against_live(bench: Bench) -> list[Finding]:
    """Measure 16: of each store of the sweep, the longest that its file was."""
    case = by_overwrites(bench)[-1]
    if case.failures:
        raise RuntimeError(f"the store failed: {case.failures}")
    found = []
    for name, ((sample,),) in case.samples.items():
        live_bytes = case.settings[name]["live"] * sample.page_size
        file_bytes, log_bytes = sample.extra["file_bytes"], sample.extra["log_bytes"]
        found.append(
            finding.at_most(
                f"{name} overwritten {max(TIMES)} times each: file without the fixed cost, against live",
                max(file_bytes - fixed_bytes(sample.page_size), 0) / live_bytes,
                1.25,
                detail=f"the whole file {file_bytes / live_bytes:.3f} x ({file_bytes:,} bytes), of which "
                f"{log_bytes / live_bytes:.3f} x is for the log; "
                f"{sample.extra['overwritten']:,} frames overwritten",
            )
        )
    return found


def into_pieces(bench: Bench) -> list[Finding]:
    """Measure 17."""
    params = dataclasses.replace(bench.params, page_size=SMALL)
    frames = min(FRAMES, params.frames)
    load = Load(Verb.COMMIT, 1, BATCH)
    contenders = [
        FragmentedStore(params, bench.workdir, frames=frames),
        ScatteredRing(params, bench.workdir, frames=frames),
    ]
    case = bench.case(
        f"commits of {BATCH} into pieces", [Entry(contender, (load,)) for contender in contenders], params
    )
    pieces = case.settings.get("store", {}).get("writes a commit", 0.0)
    what = f"commit of {BATCH} frames of 4 KiB into a fragmented store, the same writes and one flush"
    more = f"; {pieces:.1f} writes a commit"
    return [
        *against(what, case, "store", {"bare ring": 1.5}, P50, more),
        *against("the same, CPU", case, "store", {"bare ring": None}, CPU_PER_FRAME),
    ]


MEASURES = [
    Measure(16, "space", "the file's length after overwriting", file_against_live, turns=0, fixed_s=15),
    Measure(17, "fragmented", "commits of 64 frames of 4 KiB into pieces", into_pieces, fixed_s=2),
]
