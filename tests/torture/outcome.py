"""What became of a row, and the table row for row: text, Markdown, JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from torture.rows import Row


@dataclasses.dataclass
class Failure:
    """What went wrong, and the line that replays it."""

    row: Row
    message: str
    trace: str
    replay: str

    def __str__(self) -> str:
        told = "" if self.replay in self.message else f"\n{self.replay}"
        return f"{self.trace.rstrip()}\n\nrow {self.row.number} ({self.row.what}) FAILED{told}"


@dataclasses.dataclass
class Outcome:
    """The sums of a row's lots; ``seconds`` are those of all its processes."""

    row: Row
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    lots_whole: int = 0
    lots_begun: int = 0
    failures: list[Failure] = dataclasses.field(default_factory=list)
    not_run: str = ""

    def add(self, counts: dict[str, int]) -> None:
        """Add what a step did."""
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + count

    @property
    def whole(self) -> bool:
        """Whether every lot came to its own end."""
        return self.lots_whole == self.row.lots

    @property
    def done(self) -> int:
        """How many of the row's unit."""
        return self.counts.get(self.row.unit, 0)

    @property
    def rate(self) -> float:
        """Units a second and process."""
        return self.done / self.seconds if self.seconds else 0.0

    @property
    def result(self) -> str:
        """In a few words."""
        if self.failures:
            return f"{len(self.failures)} FAILED"
        if self.not_run:
            return f"not run: {self.not_run}"
        if not self.lots_begun:
            return "not begun"
        if isinstance(self.row.release, str):
            return "all passed, every one" if self.whole else "all passed, not to the end"
        if self.done >= self.row.release:
            return "all passed, figure reached"
        return f"all passed, {100 * self.done / self.row.release:.3g} % of the figure"

    def figures(self) -> str:
        """What was done, the row's unit first."""
        others = [f"{count:,} {name}" for name, count in self.counts.items() if name != self.row.unit]
        return ", ".join([f"{self.done:,} {self.row.unit}", *others])


HEAD = ("#", "fault", "release figure", "done", "seconds", "a second", "result")


def cells(outcome: Outcome) -> tuple[str, ...]:
    """Return the table's row."""
    row = outcome.row
    release = f"{row.release:,} {row.unit}" if isinstance(row.release, int) else row.release
    rate = f"{outcome.rate:,.0f}" if outcome.rate >= 10 else f"{outcome.rate:.2g}"
    return (
        str(row.number),
        row.what,
        release,
        outcome.figures(),
        f"{outcome.seconds:.0f}",
        rate,
        outcome.result,
    )


def text_table(outcomes: Sequence[Outcome]) -> str:
    """Return the table for a terminal: of what was done the row's unit alone, or no line would fit."""
    lines = [HEAD]
    for outcome in outcomes:
        number, what, release, _, *others = cells(outcome)
        lines.append((number, what, release, f"{outcome.done:,} {outcome.row.unit}", *others))
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown_table(outcomes: Sequence[Outcome]) -> str:
    """Return the table for a page."""
    lines = [HEAD, tuple("---" for _ in HEAD), *map(cells, outcomes)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def as_json(outcomes: Sequence[Outcome], **about: object) -> str:
    """Return everything for a program."""
    rows = [
        {
            "row": o.row.number,
            "name": o.row.run.__name__,
            "fault": o.row.what,
            "unit": o.row.unit,
            "ci": o.row.ci,
            "release": o.row.release,
            "done": o.done,
            "counts": o.counts,
            "seconds": round(o.seconds, 1),
            "whole": o.whole,
            "result": o.result,
            "failures": [{"message": f.message, "replay": f.replay} for f in o.failures],
        }
        for o in outcomes
    ]
    return json.dumps({**about, "rows": rows}, indent=2) + "\n"


def update_page(page: Path, text: str) -> None:
    """Replace what stands between the marks of a Markdown page."""
    before, begin, rest = page.read_text("utf-8").partition("<!-- torture: begin -->\n")
    _, end, after = rest.partition("<!-- torture: end -->")
    if not end:
        raise ValueError(f"{page} has no marks to put the figures between")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")
