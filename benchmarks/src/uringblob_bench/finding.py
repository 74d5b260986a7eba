"""The result of a measure: a value, its target, and whether it was reached."""

from __future__ import annotations

import dataclasses
import enum


class Bound(enum.Enum):
    """Which side of the target is good."""

    AT_LEAST = "at least"
    AT_MOST = "at most"
    #: There is no target: the value is stated.
    NONE = "stated"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One value of a measure.  ``measured`` is ``None`` where it could not be measured; ``detail`` has the reason."""

    what: str
    measured: float | None
    bound: Bound
    target: float
    unit: str = "x"
    detail: str = ""

    @property
    def reached(self) -> bool:
        """Whether the value was measured and is on the good side."""
        if self.measured is None or self.bound is Bound.NONE:
            return False
        if self.bound is Bound.AT_LEAST:
            return self.measured >= self.target
        return self.measured <= self.target

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.measured is None:
            return "not measured"
        if self.bound is Bound.NONE:
            return "stated"
        return "reached" if self.reached else "not reached"


def at_least(what: str, measured: float | None, target: float, unit: str = "x", detail: str = "") -> Finding:
    """Return a finding that is good above its target."""
    return Finding(what, measured, Bound.AT_LEAST, target, unit, detail)


def at_most(what: str, measured: float | None, target: float, unit: str = "x", detail: str = "") -> Finding:
    """Return a finding that is good below its target."""
    return Finding(what, measured, Bound.AT_MOST, target, unit, detail)


def stated(what: str, measured: float | None, unit: str = "x", detail: str = "") -> Finding:
    """Return a finding without a target."""
    return Finding(what, measured, Bound.NONE, 0.0, unit, detail)
