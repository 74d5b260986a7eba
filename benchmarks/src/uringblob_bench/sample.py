"""What one turn of one contender showed, and what several turns show together."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any

#: Points of a latency distribution that are kept.
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)


@dataclasses.dataclass(frozen=True)
class Latency:
    """Seconds a call took: the mean, the worst, and :data:`PERCENTILES` by name."""

    mean_s: float
    max_s: float
    percentiles_s: dict[str, float]

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Summarize single latencies; they are sorted here, once."""
        if not seconds:
            return cls(0.0, 0.0, {str(p): 0.0 for p in PERCENTILES})
        ordered = sorted(seconds)
        return cls(
            sum(ordered) / len(ordered),
            ordered[-1],
            {str(p): ordered[min(int(len(ordered) * p / 100), len(ordered) - 1)] for p in PERCENTILES},
        )

    @property
    def p50_s(self) -> float:
        """The median."""
        return self.percentiles_s["50"]

    @property
    def p99_s(self) -> float:
        """99 of 100 calls took no longer."""
        return self.percentiles_s["99"]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One load's figures of one turn.  ``cpu`` is the whole process's, for all loads of the turn."""

    frames: int
    seconds: float
    page_size: int
    latency: Latency
    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    #: Whatever else is worth keeping: counters, what a contender says of itself.
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def frames_per_s(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    @property
    def bytes_per_s(self) -> float:
        """Bytes a second."""
        return self.frames_per_s * self.page_size

    @property
    def cpu_per_frame_s(self) -> float:
        """CPU seconds, user and system, per frame."""
        return (self.cpu_user_s + self.cpu_system_s) / self.frames if self.frames else 0.0


@dataclasses.dataclass(frozen=True)
class Spread:
    """The median of several values with their extremes."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarize at least one value."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    @property
    def relative(self) -> float:
        """(high - low) / median: how far the values lie apart."""
        return (self.high - self.low) / self.median if self.median else 0.0


#: What is summarized over the turns of a contender, by name.
FIGURES: dict[str, Callable[[Sample], float]] = {
    "frames_per_s": lambda sample: sample.frames_per_s,
    "bytes_per_s": lambda sample: sample.bytes_per_s,
    "latency_mean_s": lambda sample: sample.latency.mean_s,
    "latency_p50_s": lambda sample: sample.latency.p50_s,
    "latency_p99_s": lambda sample: sample.latency.p99_s,
    "latency_max_s": lambda sample: sample.latency.max_s,
    "cpu_per_frame_s": lambda sample: sample.cpu_per_frame_s,
}


def spreads(samples: Sequence[Sample]) -> dict[str, Spread]:
    """Return each figure's median and extremes over the turns."""
    return {name: Spread.of([figure(sample) for sample in samples]) for name, figure in FIGURES.items()}
