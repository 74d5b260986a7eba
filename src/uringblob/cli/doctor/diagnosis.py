"""From facts to the verdict, its causes and the exit code."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from uringblob.cli.doctor.causes import LAST_RESORTS, LIMITS, REFUSALS, UNUSABLE, Cause
from uringblob.cli.doctor.facts import Facts

EXIT_URING: Final = 0
EXIT_FALLBACK: Final = 1
EXIT_UNUSABLE: Final = 2


@dataclasses.dataclass(frozen=True)
class Applied:
    """A cause that applies: its row's key, why in words, and the command (may be empty)."""

    key: str
    why: str
    command: str


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The verdict in one line, every cause (the first is the verdict's), and the exit code."""

    exit_code: int
    verdict: str
    causes: tuple[Applied, ...] = ()

    @property
    def command(self) -> str:
        """The one command that mends the first cause; empty where nothing is to be mended."""
        return self.causes[0].command if self.causes else ""


def diagnose(facts: Facts) -> Diagnosis:
    """Judge by what really worked; the table only says why not more."""
    if facts.engine_unknown or (facts.pread_store and facts.uring_store):
        causes = _applying(UNUSABLE, facts)
        return Diagnosis(EXIT_UNUSABLE, f"unusable: {causes[0].why}", causes)
    if facts.uring_store:
        causes = _applying(REFUSALS, facts)
        return Diagnosis(
            EXIT_FALLBACK, f"the pread engine works here, io_uring does not: {causes[0].why}", causes
        )
    causes = _applying(LIMITS, facts)
    if facts.engine_variable == "pread":
        return Diagnosis(EXIT_FALLBACK, f"the pread engine is used: {causes[0].why}", causes)
    limited = f", with a limit: {causes[0].why}" if causes else ""
    return Diagnosis(EXIT_URING, f"io_uring works here{limited}", causes)


def _applying(table: Sequence[Cause], facts: Facts) -> tuple[Applied, ...]:
    found = [cause for cause in table if cause.applies(facts)]
    explained = [cause for cause in found if cause.key not in LAST_RESORTS]
    return tuple(Applied(cause.key, cause.why(facts), cause.mend(facts)) for cause in explained or found)
