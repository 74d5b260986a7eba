"""Reads of frames that a tier has locally, against the file store (21)."""

from __future__ import annotations

import dataclasses

from uringblob_bench.bench import Bench, against
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.contenders.tier import TierHits
from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures.base import Measure

#: Both stores of the tier have all frames: a smaller file is enough.
FILE_BYTES = 512 << 20


def local_hits(bench: Bench) -> list[Finding]:
    """Measure 21."""
    params = dataclasses.replace(bench.params, file_bytes=min(bench.params.file_bytes, FILE_BYTES))
    found = []
    for depth in (8, 32):
        load = Load(Verb.READ, depth)
        entries = [Entry(kind(params, bench.workdir), (load,)) for kind in (TierHits, AsyncStore)]
        case = bench.case(f"hits of a tier, depth {depth}", entries, params)
        target = bench.target(directory=0.95, memory=0.95)
        found += against(f"local hits of a tier at depth {depth}", case, TierHits.name, {"store": target})
    return found


MEASURES = [Measure(21, "tier", "reads of frames that a tier has locally", local_hits, turns=4)]
