"""The plots, as PNG, from a results file; a plot whose cases were not run is left out."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

from uringblob_bench.report.data import Results, median, percentiles
from uringblob_bench.scale.costs import UNITS, costs_of
from uringblob_bench.sweeps import batches, depth, settings
from uringblob_bench.sweeps.overwrites import SPACE

#: One colour per contender in every plot; others take what is left.
COLOURS = {
    "store": "#1f77b4",
    "fio": "#444444",
    "bare ring": "#2ca02c",
    "thread pool": "#d62728",
    "store (pread)": "#17becf",
    "os calls": "#9467bd",
    "store (sync)": "#e377c2",
    "two-phase": "#444444",
    "gathered": "#2ca02c",
    "linked": "#d62728",
    "drained": "#ff7f0e",
    "RWF_DSYNC": "#9467bd",
}
_MB, _MS, _US = 1e6, 1e3, 1e6
Plot = Callable[[Results], Any]
plt.rcParams["figure.constrained_layout.use"] = True


def style(name: str) -> dict[str, Any]:
    """Return how a contender's line looks."""
    return {"label": name, "marker": "o", "markersize": 4, "color": COLOURS.get(name)}


def _new(columns: int, title: str, rows: int = 1) -> tuple[Any, Any]:
    size = (6 * columns, 4.2 if rows == 1 else 3.2 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    figure.suptitle(title)
    return figure, list(axes.flat)


def _lines(
    axes: Any, lines: dict[str, tuple[list[Any], list[float]]], scale: float, *, log: bool = False
) -> None:
    for name, (at, values) in lines.items():
        axes.plot(at, [value * scale for value in values], **style(name))
    axes.set_xscale("log", base=2)
    ticks = sorted({x for at, _ in lines.values() for x in at})
    axes.set_xticks(ticks, [_short(tick) for tick in ticks])
    axes.minorticks_off()
    if log:
        _log_y(axes)
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def _log_y(axis: Any) -> None:
    """Make the upright axis logarithmic, with plain numbers at 1, 2 and 5."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _short(number: float) -> str:
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= size:
            return f"{number / size:g} {unit}"
    return f"{number:g}"


def by_depth(results: Results, sweep: str, title: str) -> Any:
    """Draw throughput and latency against queue depth."""
    throughput = results.lines(sweep, "bytes_per_s")
    if not throughput:
        return None
    figure, (left, right) = _new(2, f"{title} of {_page(results, sweep)} against queue depth")
    _lines(left, throughput, 1 / _MB)
    left.set(xlabel="frames in flight", ylabel="MB/s, median")
    left.legend()
    _lines(right, results.lines(sweep, "latency_p50_s"), _MS, log=True)
    for name, (at, values) in results.lines(sweep, "latency_p99_s").items():
        right.plot(at, [v * _MS for v in values], color=COLOURS.get(name), linestyle=":", linewidth=1)
    right.set(xlabel="frames in flight", ylabel="ms: p50, dotted p99")
    return figure


def _page(results: Results, sweep: str) -> str:
    return _short(results.sweep(sweep)[0]["params"]["page_size"])


def depth_reads(results: Results) -> Any:
    """Draw the sweep of reads."""
    return by_depth(results, depth.READS, "Random reads")


def depth_writes(results: Results) -> Any:
    """Draw the sweep of writes."""
    return by_depth(results, depth.WRITES, "Random writes, not synced,")


def frame_size(results: Results) -> Any:
    """Draw throughput and CPU against frame size."""
    throughput = results.lines(depth.PAGES, "bytes_per_s")
    if not throughput:
        return None
    figure, (left, right) = _new(2, "Random reads with 32 in flight against frame size")
    _lines(left, throughput, 1 / _MB)
    left.set(xlabel="frame size", ylabel="MB/s, median")
    left.legend()
    _lines(right, results.lines(depth.PAGES, "cpu_per_frame_s"), _US, log=True)
    right.set(xlabel="frame size", ylabel="CPU per frame, µs (user + system)")
    return figure


def latency(results: Results) -> Any:
    """Draw latency distributions: reads with 32 in flight, and one commit alone."""
    shown = [
        (results.cases.get(f"{depth.READS}: 32"), "read_blob, 32 in flight"),
        (results.cases.get("commit of one frame"), "commit of one frame, alone"),
        (results.cases.get("one reader beside commits of 32"), "one reader beside commits of 32"),
    ]
    able = [(case, title) for case, title in shown if case is not None and case["parties"]]
    if not able:
        return None
    figure, axes = _new(len(able), "Latency distributions")
    for axis, (case, title) in zip(axes, able, strict=True):
        for name in case["parties"]:
            if "alone" in name:
                continue
            points = list(percentiles(case, name))
            x = [100 / (100 - point) for point, _ in points]
            axis.plot(x, [seconds * _MS for _, seconds in points], **style(name))
        axis.set_xscale("log")
        marks = (50, 90, 99, 99.9)
        axis.set_xticks([100 / (100 - mark) for mark in marks], [f"{mark:g} %" for mark in marks])
        axis.minorticks_off()
        axis.set(title=title, xlabel="of all calls", ylabel="took no longer than, ms")
        _log_y(axis)
        axis.grid(alpha=0.3, which="both")
        axis.legend()
    return figure


def cpu(results: Results) -> Any:
    """Draw CPU per frame against queue depth."""
    kinds = [(depth.READS, "reads"), (depth.WRITES, "writes")]
    able = [(sweep, title) for sweep, title in kinds if results.sweep(sweep)]
    if not able:
        return None
    figure, axes = _new(len(able), "CPU per frame, user + system")
    for axis, (sweep, title) in zip(axes, able, strict=True):
        _lines(axis, results.lines(sweep, "cpu_per_frame_s"), _US, log=True)
        axis.set(title=f"random {title} of {_page(results, sweep)}", xlabel="frames in flight", ylabel="µs")
        axis.legend()
    return figure


def buffers(results: Results) -> Any:
    """Draw fixed against plain buffers, on huge and on small pages."""
    sweeps = [f"{settings.BUFFERS}, {verb}" for verb in ("read", "write")]
    able = [sweep for sweep in sweeps if results.sweep(sweep)]
    if not able:
        return None
    figure, axes = _new(len(able), "Fixed against plain buffers, 32 in flight")
    for axis, sweep in zip(axes, able, strict=True):
        lines = results.lines(sweep, "bytes_per_s")
        width = 0.8 / max(len(lines), 1)
        for number, (name, (at, values)) in enumerate(lines.items()):
            kinds = list(settings.BUFFER_KINDS)
            x = [kinds.index(kind) + number * width for kind in at]
            axis.bar(x, [v / _MB for v in values], width, label=name, color=COLOURS.get(name))
        axis.set_xticks(
            [n + 0.4 - width / 2 for n in range(len(settings.BUFFER_KINDS))],
            [kind.replace(", ", ",\n") for kind in settings.BUFFER_KINDS],
        )
        axis.set(title=sweep.replace("buffers, ", "random ") + "s", ylabel="MB/s, median")
        axis.grid(alpha=0.3, axis="y")
        axis.legend()
    return figure


def batch_strategies(results: Results) -> Any:
    """Draw ways to make a batch durable: alone, and what they do to readers."""
    lines = results.lines(batches.ALONE, "bytes_per_s")
    if not lines:
        return None
    beside = results.sweep(batches.BESIDE)
    figure, axes = _new(2 if beside else 1, "Durable batches: how the sync is tied to the writes")
    _lines(axes[0], lines, 1 / _MB)
    axes[0].set(title="alone", xlabel="frames in a batch", ylabel="MB/s made durable, median")
    axes[0].legend()
    if beside:
        (case,) = beside
        names = list(case["parties"])
        reads = [median(case, name, "bytes_per_s") / _MB for name in names]
        writes = [median(case, name, "bytes_per_s", 1) / _MB for name in names]
        x = range(len(names))
        axes[1].bar([n - 0.2 for n in x], reads, 0.4, label="eight readers")
        axes[1].bar([n + 0.2 for n in x], writes, 0.4, label="batches of 8")
        axes[1].set_xticks(list(x), names, rotation=20)
        axes[1].set(title="beside eight readers", ylabel="MB/s, median")
        axes[1].grid(alpha=0.3, axis="y")
        axes[1].legend()
    return figure


def _mark(case: dict[str, Any], name: str) -> str:
    return "" if case["settings"].get(name, {}).get("direct_io") else " *"


def peers(results: Results) -> Any:
    """Draw the store beside every peer."""
    works = {
        name.removeprefix("peers: "): case
        for name, case in results.cases.items()
        if name.startswith("peers: ") and case["parties"]
    }
    if not works:
        return None
    figure, axes = _new(2, "The store beside its peers (* through the page cache)", rows=-(-len(works) // 2))
    for axis in axes[len(works) :]:
        axis.remove()
    for axis, (work, case) in zip(axes, works.items(), strict=False):
        names = sorted(case["parties"], key=lambda name: median(case, name, "bytes_per_s"))
        values = [median(case, name, "bytes_per_s") / _MB for name in names]
        marked = [name + _mark(case, name) for name in names]
        colours = [COLOURS["store"] if name.startswith("store") else "#bbbbbb" for name in names]
        drawn = axis.barh(marked, values, color=colours)
        axis.bar_label(drawn, fmt="%.0f", padding=3)
        axis.set(title=work, xlabel="MB/s, median")
        axis.margins(x=0.15)
    return figure


def scale(results: Results) -> Any:
    """Draw the costs of many blobs against their number."""
    case = results.cases.get("many blobs")
    if case is None or len(case["parties"]) < 2:
        return None
    keys = {"s": "seconds", "MB": "memory, MB", "ms": "milliseconds"}
    figure, axes = _new(len(keys), "What many blobs cost")
    for axis, (unit, label) in zip(axes, keys.items(), strict=True):
        for cost in (name for name, its_unit in UNITS.items() if its_unit == unit):
            points = sorted(
                (case["settings"][name]["blobs"], _cost(case, name, cost)) for name in case["parties"]
            )
            axis.plot([x for x, _ in points], [y for _, y in points], label=cost, marker="o", markersize=4)
        axis.set(xscale="log", xlabel="blobs", ylabel=label)
        _log_y(axis)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    return figure


def _cost(case: dict[str, Any], name: str, cost: str) -> float:
    """Return the median of a cost over the turns; it is measured by the child and kept in ``extra``."""
    turns = case["parties"][name][0]["turns"]
    return statistics.median(costs_of(turn["extra"])[cost] for turn in turns)


def space(results: Results) -> Any:
    """Draw how long the file is against how often everything in it was overwritten."""
    points = results.sweep(SPACE)
    if not points:
        return None
    figure, (axis,) = _new(1, "Overwriting in commits of 1 to 64 frames")
    lines: dict[str, tuple[list[Any], list[float]]] = {}
    for case in points:
        for name, (load,) in case["parties"].items():
            at, values = lines.setdefault(name, ([], []))
            at.append(case["at"])
            values.append(load["turns"][-1]["extra"]["amplification"])
    _lines(axis, lines, 1)
    axis.axhline(1.25, color="#999999", linestyle=":", linewidth=1)
    axis.set(
        xlabel="times each live frame was overwritten, on average", ylabel="bytes of the file / live bytes"
    )
    axis.legend()
    return figure


#: File name: what draws it.
PLOTS: dict[str, Plot] = {
    "peers": peers,
    "depth-reads": depth_reads,
    "depth-writes": depth_writes,
    "frame-size": frame_size,
    "latency": latency,
    "cpu": cpu,
    "buffers": buffers,
    "batches": batch_strategies,
    "scale": scale,
    "space": space,
}


def draw(results: Results, directory: str) -> list[str]:
    """Draw every plot there is data for; return the file names."""
    written = []
    for name, plot in PLOTS.items():
        figure = plot(results)
        if figure is not None:
            figure.savefig(os.path.join(directory, f"{name}.png"), dpi=110)
            plt.close(figure)
            written.append(f"{name}.png")
    return written
