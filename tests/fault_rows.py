"""What the fault rows did in this run: counted by the tests, summed over all workers, printed at the end."""

from __future__ import annotations

import pytest

from monitor import census

_NAME = "fault row"


@pytest.fixture
def count_row(request):
    """``count_row(2, **{"disk images": 2000})`` adds to the sums of row 2; one test counts for one row."""

    def count(row: int, **figures: int) -> None:
        request.node.user_properties.append((_NAME, [row, {name: int(n) for name, n in figures.items()}]))

    return count


def pytest_terminal_summary(terminalreporter):
    """Print a line for each row that was counted; workers' reports arrive here as well."""
    sums: dict[int, dict[str, int]] = {}
    seconds: dict[int, float] = {}
    for report in terminalreporter.stats.get("passed", ()):
        for name, value in getattr(report, "user_properties", ()):
            if name == _NAME and report.when == "call":
                row, figures = value
                seconds[row] = seconds.get(row, 0.0) + report.duration
                for what, count in figures.items():
                    of_row = sums.setdefault(row, {})
                    # A highest mark is no sum.
                    of_row[what] = (
                        max(of_row.get(what, 0), count) if "most" in what else of_row.get(what, 0) + count
                    )
    if sums:
        terminalreporter.section("fault rows")
    for row in sorted(sums):
        figures = ", ".join(f"{count:,} {what}" for what, count in sums[row].items())
        terminalreporter.line(f"row {row:>2}  {figures}  ({seconds[row]:.0f} s)")
    terminalreporter.line(census.summary(terminalreporter))
