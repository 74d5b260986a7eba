"""What one check found: a line for people, and facts for the diagnosis."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any


class Level(enum.Enum):
    """How good it is."""

    GOOD = "good"
    #: Works, but worse than it could; or cannot be told.
    NOTE = "note"
    BAD = "bad"


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    ``facts`` are fields of :class:`uringblob.cli.doctor.facts.Facts`; ``detail`` is what ``--json`` shows besides.
    """

    name: str
    text: str
    level: Level = Level.GOOD
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    detail: Mapping[str, Any] = dataclasses.field(default_factory=dict)
