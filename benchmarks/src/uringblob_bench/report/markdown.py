"""The page of a results directory, one table, one plot, then everything else; and the summary for a README."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from uringblob_bench.load import MIB
from uringblob_bench.media import MEMORY
from uringblob_bench.report.data import Results, median

_MARKS = {"reached": "yes", "not reached": "**no**", "not measured": "not measured", "stated": "-"}
#: The first of these that was drawn stands at the top.
BEST_PLOTS = ("peers.png", "depth-reads.png", "latency.png")


def render(results: Results, plots: Sequence[str]) -> str:
    """Return the page; what was not run has no section."""
    best = best_plot(plots)
    others = [f"![{plot.removesuffix('.png')}]({plot})\n" for plot in plots if plot != best]
    sections = {
        "": measures(results),
        "The best of the plots": [f"![{best.removesuffix('.png')}]({best})"] if best is not None else [],
        "The values behind the table": details(results),
        "Peers": peers(results),
        "Other plots": others,
        "Where it ran": environment(results),
    }
    lines = ["# Results of `uringblob bench`", "", _where(results), ""]
    for title, content in sections.items():
        if content:
            lines += [f"## {title}", ""] if title else []
            lines += [*content, ""]
    return "\n".join(lines)


def _where(results: Results) -> str:
    here = results.environment
    rounds = max((case["rounds"] for case in results.cases.values()), default=0)
    shares = sorted(share for case in results.cases.values() for share in case["others_cpu_share"]) or [0.0]
    return (
        f"Linux {here['system']['kernel']}, {here['file_system'].get('type', '?')} on `{here['device']['name']}`, "
        f"{here['cpu']['usable']} CPUs ({here['cpu']['model']}), Python {here['versions']['python']}, "
        f"uringblob {here['versions']['uringblob']}, {here['versions']['fio']}.\n"
        f"Medians of up to {rounds} turns; the contenders of each comparison alternate.\n"
        f"Other programs and the kernel's own threads used {shares[len(shares) // 2]:.0%} of the CPUs "
        f"during the median turn, {shares[-1]:.0%} during the worst.\n"
        f"{_media(here.get('media', {}))}Made with `make bench`; `results.json` has every turn."
    )


def _media(media: dict[str, Any]) -> str:
    """Return a sentence about the disk in memory: what it is, or why there was none."""
    found = media.get(MEMORY)
    if found is None:
        return ""
    if isinstance(found, str):
        return f"There is no medium `{MEMORY}`, {found}.\n"
    size = f"{found['file_bytes'] / MIB:,.0f} MiB"
    return (
        f"The medium `{MEMORY}` is {found['file_system'].get('type', '?')} on `{found['device']['name']}` over tmpfs, "
        f"with files of {size}: a disk that hides no software.\n"
    )


def measures(results: Results) -> list[str]:
    """Return the table of all measures."""
    rows = ["| # | medium | measure | measured | target | reached |", "| --- |" + " --- |" * 5]
    numbered = [outcome for outcome in results.outcomes if outcome["number"] is not None]
    if not numbered:
        return []
    for outcome in numbered:
        head = f"| {outcome['number']} | {outcome['medium']} "
        if outcome["failure"]:
            rows.append(f"{head}| {outcome['title']} | failed: {outcome['failure']} | | |")
        for found in outcome["findings"]:
            target = (
                ""
                if found["bound"] == "stated"
                else f"{found['bound']} {number(found['target'], found['unit'])}"
            )
            rows.append(
                f"{head}| {found['what']} | {number(found['measured'], found['unit'])} "
                f"| {target} | {_MARKS[found['verdict']]} |"
            )
    return rows


def short_table(results: Results) -> list[str]:
    """Return one row per measure."""
    rows = ["| # | medium | measure | measured | at least / at most | reached |", "| --- |" + " --- |" * 5]
    for outcome in results.outcomes:
        if outcome["number"] is None:
            continue
        head = f"| {outcome['number']} | {outcome['medium']} | {outcome['title']} "
        findings = [found for found in outcome["findings"] if found["bound"] != "stated"]
        if outcome["failure"]:
            rows.append(f"{head}| failed: {outcome['failure']} | | |")
        elif not findings:
            rows.append(f"{head}| stated | | - |")
        else:
            values = "; ".join(number(found["measured"], found["unit"]) for found in findings)
            targets = "; ".join(dict.fromkeys(number(found["target"], found["unit"]) for found in findings))
            rows.append(f"{head}| {values} | {targets} | {_together(findings)} |")
    return rows


def _together(findings: Sequence[dict[str, Any]]) -> str:
    reached = sum(found["verdict"] == "reached" for found in findings)
    if reached == len(findings):
        return "yes"
    return f"{reached} of {len(findings)}" if reached else "**no**"


def best_plot(plots: Sequence[str]) -> str | None:
    """Return the first of :data:`BEST_PLOTS` that was drawn."""
    return next((plot for plot in BEST_PLOTS if plot in plots), None)


def summary(results: Results, plots: Sequence[str], folder: str) -> str:
    """Return what a project's README shows of a run: where, one table, one plot."""
    lines = [_where(results), "", *short_table(results), ""]
    best = best_plot(plots)
    if best is not None:
        lines += [f"![The store beside its peers]({os.path.normpath(os.path.join(folder, best))})", ""]
    return "\n".join(lines)


#: Between these two lines of a README a run puts its summary.
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def put_into(text: str, inserted: str) -> str:
    """Return ``text`` with ``inserted`` between its two marks.

    :raises ValueError: the marks are not there, once each.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"needs one line {BEGIN!r} and one line {END!r} after it")
    return f"{before}{BEGIN}\n{inserted}{END}{after}"


def number(value: float | None, unit: str) -> str:
    """Return a value with its unit, to three digits or so."""
    if value is None:
        return "-"
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def details(results: Results) -> list[str]:
    """Return each finding's sentence."""
    rows = []
    for outcome in results.outcomes:
        rows += [
            f"- {outcome['medium']}, {found['what']}: {found['detail']}."
            for found in outcome["findings"]
            if found["detail"]
        ]
    return rows


def peers(results: Results) -> list[str]:
    """Return the table of the store beside its peers: MB/s, and CPU per frame."""
    works = {name: case for name, case in results.cases.items() if name.startswith("peers: ")}
    if not works:
        return []
    titles = [name.removeprefix("peers: ") for name in works]
    rows = [
        "| MB/s | " + " | ".join(titles) + " | I/O | durability |",
        "| --- |" + " --- |" * (len(titles) + 2),
    ]
    names = dict.fromkeys(name for case in works.values() for name in (*case["parties"], *case["failures"]))
    for name in names:
        cells = [_speed(case, name) for case in works.values()]
        settings = next(
            (case["settings"].get(name) for case in works.values() if name in case["settings"]), None
        )
        way = "O_DIRECT" if (settings or {}).get("direct_io") else "page cache"
        rows.append(
            f"| {name} | "
            + " | ".join(cells)
            + f" | {way} | {(settings or {}).get('durability', 'its own')} |"
        )
    failures = {f"- {name}: {why}." for case in works.values() for name, why in case["failures"].items()}
    note = (
        "Reads through the page cache begin with an empty one; writes through it that are not made durable "
        "may end there."
    )
    return [*rows, "", note, "", *sorted(failures)]


def _speed(case: dict[str, Any], name: str) -> str:
    return f"{median(case, name, 'bytes_per_s') / 1e6:,.0f}" if name in case["parties"] else "-"


def environment(results: Results) -> list[str]:
    """Return the environment as a table."""
    rows = ["| what | |", "| --- | --- |"]
    for room, facts in results.environment.items():
        for name, value in facts.items() if isinstance(facts, dict) else [("", facts)]:
            rows.append(f"| {room} {name} | {value} |".replace("  ", " "))
    return rows
