"""Reading a results file: what plots and tables are made from, so that they can be made again later."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from typing import Any

from uringblob_bench.media import DIRECTORY
from uringblob_bench.report.run_record import SCHEMA


class Results:
    """The plain data of one run.

    :raises ValueError: of another schema than this version writes.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        if data.get("schema") != SCHEMA:
            raise ValueError(f"results of schema {data.get('schema')}, and this version reads {SCHEMA}")
        self.environment: dict[str, Any] = data["environment"]
        self.settings: dict[str, Any] = data["settings"]
        #: An earlier version knew one medium, and did not name it.
        self.outcomes: list[dict[str, Any]] = [
            {"medium": DIRECTORY, **outcome} for outcome in data["outcomes"]
        ]
        self.cases: dict[str, dict[str, Any]] = data["cases"]

    @classmethod
    def read(cls, path: str) -> Results:
        """Read a file that :meth:`RunRecord.write` made."""
        with open(path, encoding="utf-8") as file:
            return cls(json.load(file))

    def sweep(self, name: str) -> list[dict[str, Any]]:
        """Return the cases that are points of a sweep, in the order of the run."""
        return [case for case in self.cases.values() if case["sweep"] == name]

    def lines(self, sweep: str, figure: str, load: int = 0) -> dict[str, tuple[list[Any], list[float]]]:
        """Return, per contender, where it was measured and the medians there."""
        found: dict[str, tuple[list[Any], list[float]]] = {}
        for case in self.sweep(sweep):
            for name in case["parties"]:
                at, values = found.setdefault(name, ([], []))
                at.append(case["at"])
                values.append(median(case, name, figure, load))
        return found


def median(case: dict[str, Any], contender: str, figure: str, load: int = 0) -> float:
    """Return the median of a figure over the turns of a contender."""
    return float(case["parties"][contender][load]["summary"][figure]["median"])


def percentiles(case: dict[str, Any], contender: str, load: int = 0) -> Iterator[tuple[float, float]]:
    """Yield each percentile with its median over the turns, in seconds."""
    turns = case["parties"][contender][load]["turns"]
    for point in turns[0]["latency"]["percentiles_s"]:
        yield float(point), statistics.median(turn["latency"]["percentiles_s"][point] for turn in turns)
