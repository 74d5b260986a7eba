"""Output during a run and at its end: progress bars and tables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from uringblob_bench.finding import Bound, Finding
from uringblob_bench.interleave import Case
from uringblob_bench.report.run_record import Outcome

_COLOURS = {"stated": "cyan", "reached": "green", "not reached": "yellow", "not measured": "red"}


#: Columns where standard output is no terminal.
_WIDTH = 130
#: The share of the CPUs used by others above which a machine is called busy; the kernel's own threads count.
_BUSY = 0.2


class Terminal:
    """Prints to standard output; plain text where that is no terminal."""

    def __init__(self) -> None:
        self.console = Console()
        if not self.console.is_terminal:
            self.console = Console(width=_WIDTH)

    @contextlib.contextmanager
    def progress(
        self, steps: int
    ) -> Generator[tuple[Callable[[str, str], None], Callable[[str], None]], None, None]:
        """Show progress bars; yields ``progress(case, contender)`` and ``next_step(title)``."""
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as bars:
            bar = bars.add_task("", total=steps)
            title = ""

            def progress(case: str, contender: str) -> None:
                bars.update(bar, description=f"{title}: {case}: {contender}")

            def next_step(name: str) -> None:
                nonlocal title
                if title:
                    bars.advance(bar)
                title = name
                bars.update(bar, description=name)

            yield progress, next_step

    def outcome(self, outcome: Outcome) -> None:
        """Print the findings of one measure."""
        head = f"[bold]{outcome.number}[/] " if outcome.number is not None else ""
        self.console.print(
            f"{head}{outcome.title} ({outcome.medium}, {outcome.seconds:.1f} s)", highlight=False
        )
        if outcome.failure:
            self.console.print(f"  [red]failed:[/] {outcome.failure}", highlight=False)
        for finding in outcome.findings:
            self.console.print(f"  {in_words(finding)}", highlight=False)
            if finding.detail:
                self.console.print(f"    [dim]{finding.detail}[/]", highlight=False)

    def case(self, case: Case) -> None:
        """Print a comparison as a table: medians, and the spread of a contender's turns."""
        table = Table(
            "contender",
            "frames/s",
            "MB/s",
            "± %",
            "p50 µs",
            "p99 µs",
            "max µs",
            "CPU µs/frame",
            title=case.name if case.medium in case.name else f"{case.name}, {case.medium}",
        )
        for name in sorted(case.samples, key=lambda name: -case.spreads(name)["frames_per_s"].median):
            for number, _ in enumerate(case.samples[name][0]):
                table.add_row(*_row(case, name, number))
        for name, why in case.failures.items():
            table.add_row(name, f"[red]{why}[/]")
        self.console.print(table)

    def warn_if_busy(self, cases: Iterable[Case]) -> None:
        """Warn if the machine was busy with something else."""
        shares = sorted(share for case in cases for share in case.others)
        median = shares[len(shares) // 2] if shares else 0.0
        if median > _BUSY:
            self.console.print(
                f"[red]other programs used {median:.0%} of the CPUs during the median turn:[/] "
                "these are figures of a busy machine",
                highlight=False,
            )

    def table(self, outcomes: Sequence[Outcome]) -> None:
        """Print the table of all measures, if there are any."""
        if all(outcome.number is None for outcome in outcomes):
            return
        table = Table("#", "medium", "measure", "measured", "target", "", title="measures")
        for outcome in outcomes:
            if outcome.number is None:
                continue
            if outcome.failure:
                table.add_row(
                    str(outcome.number),
                    outcome.medium,
                    outcome.title,
                    "",
                    "",
                    f"[red]failed: {outcome.failure}[/]",
                )
            for finding in outcome.findings:
                table.add_row(
                    str(outcome.number),
                    outcome.medium,
                    finding.what,
                    value_text(finding),
                    target_text(finding),
                    f"[{_COLOURS[finding.verdict]}]{finding.verdict}[/]",
                )
        self.console.print(table)


def _row(case: Case, name: str, load: int) -> list[str]:
    figures = case.spreads(name, load)
    turn = case.samples[name][0]
    extra = turn[load].extra
    shown = name if len(turn) == 1 else f"{name}, {extra.get('load') or extra.get('job', load)}"
    return [
        shown,
        f"{figures['frames_per_s'].median:,.0f}",
        f"{figures['bytes_per_s'].median / 1e6:,.0f}",
        f"{figures['frames_per_s'].relative * 50:.0f}",
        *(f"{figures[key].median * 1e6:,.1f}" for key in ("latency_p50_s", "latency_p99_s", "latency_max_s")),
        f"{figures['cpu_per_frame_s'].median * 1e6:,.1f}",
    ]


def value_text(finding: Finding) -> str:
    """Return the measured value with its unit."""
    return "-" if finding.measured is None else _number(finding.measured, finding.unit)


def target_text(finding: Finding) -> str:
    """Return the target in words."""
    if finding.bound is Bound.NONE:
        return "none"
    return f"{finding.bound.value} {_number(finding.target, finding.unit)}"


def in_words(finding: Finding) -> str:
    """Return the finding as one line."""
    colour = _COLOURS[finding.verdict]
    return (
        f"{finding.what}: [bold]{value_text(finding)}[/] "
        f"({target_text(finding)}): [{colour}]{finding.verdict}[/]"
    )


def _number(value: float, unit: str) -> str:
    text = f"{value:.3f}" if value < 100 else f"{value:,.0f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{text} {unit}" if unit != "x" else f"{text} x"
