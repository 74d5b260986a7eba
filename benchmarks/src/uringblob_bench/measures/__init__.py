"""The measures by number, and in the order in which a full run takes them."""

from uringblob_bench.measures import (
    buckets,
    commit,
    counts,
    mixed,
    peers,
    reads,
    scale,
    space,
    stall,
    sync_face,
    tier,
    writes,
    years,
)
from uringblob_bench.measures.base import Measure

#: By number.
MEASURES: dict[int, Measure] = {
    measure.number: measure
    for measure in sorted(
        [
            *reads.MEASURES,
            *writes.MEASURES,
            *commit.MEASURES,
            *sync_face.MEASURES,
            *mixed.MEASURES,
            *stall.MEASURES,
            *peers.MEASURES,
            *scale.MEASURES,
            *space.MEASURES,
            *counts.MEASURES,
            *tier.MEASURES,
            *buckets.MEASURES,
            *years.MEASURES,
        ],
        key=lambda measure: measure.number,
    )
}

__all__ = ["MEASURES", "Measure"]
