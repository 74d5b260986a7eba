"""Many blobs: what it costs to hold 2,000,000 of them (14), and how each cost grows on the way there (15)."""

from __future__ import annotations

import math
from collections.abc import Callable

from uringblob_bench.bench import Bench
from uringblob_bench.finding import Finding, at_most, stated
from uringblob_bench.interleave import Case, Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures.base import Measure
from uringblob_bench.sample import Sample
from uringblob_bench.scale.contender import ManyBlobs
from uringblob_bench.scale.costs import UNITS, costs_of

FEWEST = 1_000
SIZES = (FEWEST, 10_000, 100_000, 500_000, 2_000_000)
ROUNDS = 3
_TURN = Load(Verb.COMMIT)


def figure_of(cost: str) -> Callable[[Sample], float]:
    """Return what reads a cost out of a sample."""
    return lambda sample: costs_of(sample.extra)[cost]


def sizes(bench: Bench) -> list[int]:
    """Return how many blobs the stores have."""
    return [blobs for blobs in SIZES if blobs <= bench.pace.blobs_max] or [bench.pace.blobs_max]


def scale_case(bench: Bench) -> Case:
    """Open each of the stores in turn."""
    entries = [Entry(ManyBlobs(bench.params, bench.workdir, blobs), (_TURN,)) for blobs in sizes(bench)]
    return bench.case("many blobs", entries, rounds=min(ROUNDS, bench.pace.rounds))


def many_blobs(bench: Bench) -> list[Finding]:
    """Measure 14: at the largest size; in a quick run that is a smaller one, and says so."""
    case = scale_case(bench)
    most = max(sizes(bench))
    name, few = f"{most:,} blobs", f"{min(sizes(bench)):,} blobs"
    if not case.has(name, few):
        raise RuntimeError(f"the store failed: {case.failures}")

    def cost(of: str, blobs: str = name) -> float:
        return case.median(blobs, figure_of(of))

    def spread(of: str) -> str:
        values = case.values(name, figure_of(of))
        return f"{min(values):.4g} to {max(values):.4g} {UNITS[of]}"

    def finding(of: str, target: float) -> Finding:
        return at_most(f"{name}: {of}", cost(of), target, UNITS[of], spread(of))

    commits = f"{cost('commit'):.3f} ms against {cost('commit', few):.3f} ms"
    return [
        finding("open", 3),
        finding("resident memory", 400),
        at_most(f"{name}: commit, against {few}", cost("commit") / cost("commit", few), 1.1, detail=commits),
        finding("list_blobs", 1.5),
        at_most(
            f"{name}: worst reader beside compaction",
            cost("worst reader beside compaction"),
            5,
            "ms",
            f"{spread('worst reader beside compaction')}; without: {spread('worst reader without')}",
        ),
        at_most(
            f"{name}: worst writer beside compaction",
            cost("worst writer beside compaction"),
            50,
            "ms",
            f"{spread('worst writer beside compaction')}; without: {spread('worst writer without')}",
        ),
    ]


def growth(values: list[tuple[int, float]]) -> float:
    """Return the exponent of growth: the slope of a line through the logarithms (0: none, 1: linear).

    >>> round(growth([(1000, 1.0), (10000, 10.0), (100000, 100.0)]), 3)
    1.0
    """
    points = [(math.log(blobs), math.log(max(value, 1e-9))) for blobs, value in values]
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    below = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / below if below else 0.0


def growth_of_costs(bench: Bench) -> list[Finding]:
    """Measure 15: plotted, and the growth stated."""
    case = scale_case(bench)
    found = []
    for cost, unit in UNITS.items():
        values = [
            (blobs, case.median(f"{blobs:,} blobs", figure_of(cost)))
            for blobs in sizes(bench)
            if case.has(f"{blobs:,} blobs")
        ]
        if len(values) < 2:
            raise RuntimeError(f"not enough sizes: {case.failures}")
        words = ", ".join(f"{blobs:,}: {value:.4g} {unit}" for blobs, value in values)
        found.append(stated(f"{cost} grows with blobs to the power of", growth(values), "", words))
    return found


MEASURES = [
    Measure(14, "many-blobs", "a store of 2,000,000 blobs (1 TiB, sparse)", many_blobs, turns=0, fixed_s=110),
    Measure(15, "growth", "each of these from 1,000 to 2,000,000 blobs", growth_of_costs, turns=0),
]
