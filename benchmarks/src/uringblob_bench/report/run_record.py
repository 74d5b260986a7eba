"""The JSON file: every sample summary of every turn, every setting, the whole environment."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from uringblob_bench.finding import Finding
from uringblob_bench.interleave import Case
from uringblob_bench.media import DIRECTORY
from uringblob_bench.sample import Sample

#: Incremented when a key changes its meaning or is removed.
SCHEMA = 1


@dataclasses.dataclass
class Outcome:
    """The outcome of one measure or sweep."""

    name: str
    title: str
    number: int | None = None
    #: Where it ran: one of :data:`uringblob_bench.media.MEDIA`.
    medium: str = DIRECTORY
    findings: list[Finding] = dataclasses.field(default_factory=list)
    #: Why it could not be run, or empty.
    failure: str = ""
    seconds: float = 0.0


@dataclasses.dataclass
class RunRecord:
    """A run's results."""

    environment: dict[str, Any]
    settings: dict[str, Any]
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    cases: dict[str, Case] = dataclasses.field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether everything was run and measured.

        Targets missed are no failures, nor are peers that cannot run here.
        """
        findings = [finding for outcome in self.outcomes for finding in outcome.findings]
        return not (
            any(outcome.failure for outcome in self.outcomes)
            or any(finding.measured is None for finding in findings)
            or any(case.broken for case in self.cases.values())
        )

    def as_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "schema": SCHEMA,
            "environment": self.environment,
            "settings": self.settings,
            "outcomes": [_outcome(outcome) for outcome in self.outcomes],
            "cases": {name: _case(case) for name, case in self.cases.items()},
        }

    def write(self, path: str) -> None:
        """Replace the file atomically."""
        temporary = f"{path}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(self.as_data(), file, indent=1, ensure_ascii=False, default=str)
            file.write("\n")
        os.replace(temporary, path)


def _outcome(outcome: Outcome) -> dict[str, Any]:
    findings = [
        {
            "what": finding.what,
            "measured": finding.measured,
            "bound": finding.bound.value,
            "target": finding.target,
            "unit": finding.unit,
            "verdict": finding.verdict,
            "detail": finding.detail,
        }
        for finding in outcome.findings
    ]
    return {**dataclasses.asdict(outcome), "findings": findings}


def _case(case: Case) -> dict[str, Any]:
    return {
        "params": dataclasses.asdict(case.params),
        "rounds": case.rounds,
        "turn_seconds": case.seconds,
        "order": case.order,
        "others_cpu_share": case.others,
        "note": case.note,
        "medium": case.medium,
        "sweep": case.sweep,
        "at": case.at,
        "failures": case.failures,
        "broken": case.broken,
        "settings": case.settings,
        "parties": {name: _contender(case, name, turns) for name, turns in case.samples.items()},
    }


def _contender(case: Case, name: str, turns: Sequence[Sequence[Sample]]) -> list[Mapping[str, Any]]:
    """Return one entry per load: the summary, and every turn's sample."""
    return [
        {
            "summary": {key: dataclasses.asdict(spread) for key, spread in case.spreads(name, load).items()},
            "turns": [dataclasses.asdict(turn[load]) for turn in turns],
        }
        for load in range(len(turns[0]))
    ]
