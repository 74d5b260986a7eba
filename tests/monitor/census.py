"""How many stores the order monitor watched in this run, here and in child processes: printed at the end."""

from __future__ import annotations

from monitor import install

_NAME = "order monitor"


class Count:
    """What one test adds."""

    def __init__(self) -> None:
        self._before = self._now()

    @staticmethod
    def _now() -> list[int]:
        children = install.known_children()
        return [install.stores, children.stores, len(children.pids)]

    def add_to(self, node) -> None:
        """Workers' reports carry it to where the summary is printed."""
        more = [now - before for now, before in zip(self._now(), self._before, strict=True)]
        if any(more):
            node.user_properties.append((_NAME, more))


def summary(terminalreporter) -> str:
    sums = [0, 0, 0]
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, more in getattr(report, "user_properties", ()):
                if name == _NAME and report.when == "teardown":
                    sums = [known + new for known, new in zip(sums, more, strict=True)]
    here, there, processes = sums
    return f"order monitor: {here:,} stores watched, and {there:,} in {processes:,} child processes"
