"""Prometheus metrics of a store: an observer that counts calls, a collector that exports ``stats()``.

Needs the extra ``uringblob[metrics]``::

    from uringblob.metrics import PrometheusObserver, StoreCollector

    observer = PrometheusObserver()
    with FileBlobStore.open("frames.blobs", observer=observer) as store:
        collector = StoreCollector(store)
        REGISTRY.register(collector)

        # After each ``verify``, from a weekly scrub say:
        collector.record_scrub(store.verify())

One observer may serve any number of stores, and so may one collector, whose label ``store``
distinguishes them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"uringblob.metrics needs {missing.name}: pip install 'uringblob[metrics]'", name=missing.name
    ) from missing

from uringblob.api.stats import StoreStats
from uringblob.api.verify_report import VerifyReport
from uringblob.guid import GuidLike

__all__ = ["HasStats", "PrometheusObserver", "StoreCollector"]

#: Upper bounds in seconds: from a frame in the page cache to a failing disk.
DURATION_BUCKETS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

#: The fields of ``stats()`` that only ever grow.
COUNTERS = frozenset(
    """
    reads writes syncs bytes_read bytes_written ring_enters commits log_groups compactions
    batches_linked batches_scattered bounces
    """.split()
)
#: The fields of ``tier_stats()`` and ``remote_stats()`` that only ever grow.
BEYOND_COUNTERS = frozenset(
    """
    uploads uploaded_frames uploaded_bytes upload_failures hits misses fetched evicted not_kept
    requests retries bytes_read bytes_written groups compactions collected
    """.split()
)
#: The fields that are words; they become labels of ``uringblob_info``.
_WORDS = ("engine", "engine_reason", "buffers_reason", "poisoned")


class HasStats(Protocol):
    """A store of either face."""

    def stats(self) -> StoreStats:
        """Return a frozen snapshot; any thread may call it."""


class PrometheusObserver:
    """Counts every call of the stores that it observes, in metrics of ``registry``.

    ``uringblob_operation_seconds{operation,outcome}``: a histogram of durations, and so a count.
    ``uringblob_operation_bytes_total{operation}``: bytes of frames moved.

    May be called from any thread.

    :param registry: where the metrics go; one observer a registry, or they clash (``ValueError``).
    :param buckets: upper bounds of the histogram, in seconds.
    """

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, buckets: Sequence[float] = DURATION_BUCKETS_S
    ) -> None:
        self._seconds = Histogram(
            "uringblob_operation_seconds",
            "Duration of calls of the store, from the call to its return",
            ["operation", "outcome"],
            registry=registry,
            buckets=buckets,
        )
        self._bytes = Counter(
            "uringblob_operation_bytes",
            "Bytes of frames that calls moved",
            ["operation"],
            registry=registry,
        )

    def observe(self, operation: str, size_bytes: int, duration_s: float, outcome: str) -> None:
        """See :class:`uringblob.StoreObserver`."""
        self._seconds.labels(operation, outcome).observe(duration_s)
        if size_bytes:
            self._bytes.labels(operation).inc(size_bytes)


@dataclasses.dataclass(frozen=True)
class _Scrub:
    """What the steps of one pass found, taken together; ``ended_s`` is when the pass ended, 0 before."""

    checked: int = 0
    bad: int = 0
    metadata_errors: int = 0
    ended_s: float = 0.0

    def with_step(self, report: VerifyReport) -> _Scrub:
        return _Scrub(
            self.checked + report.blobs_checked,
            self.bad + len(report.bad),
            self.metadata_errors + len(report.metadata_errors),
            0.0 if report.resume is not None else time.time(),
        )


class StoreCollector(Collector):
    """Exports the ``stats()`` of stores at each scrape: counters, gauges, and ``uringblob_info``.

    Of a tier also its ``tier_stats()``, as ``uringblob_tier_...``; of a store in a bucket its ``remote_stats()``, as
    ``uringblob_remote_...``.

    And what :meth:`record_scrub` was given, until the process ends: ``uringblob_scrub_checked_blobs{store}``,
    ``..._bad_blobs``, ``..._metadata_errors`` and ``..._finished_timestamp_seconds``.

    Costs nothing between two scrapes.  Exports a closed store's last figures until it is removed
    or the collector is unregistered.  One collector a registry; more stores go into the same one.
    May be used from any thread.

    :param store: the first store; the collector keeps it alive.
    :param name: the value of its label ``store``.
    """

    def __init__(self, store: HasStats, name: str = "default") -> None:
        self._stores: dict[str, HasStats] = {name: store}
        #: The pass that goes on, or has ended last; and the last that has ended.
        self._scrubs: dict[str, _Scrub] = {}
        self._ended: dict[str, _Scrub] = {}

    def add(self, store: HasStats, name: str) -> None:
        """Export one more store.

        :raises ValueError: the name is taken.
        """
        if self._stores.setdefault(name, store) is not store:
            raise ValueError(f"a store called {name!r} is shown already: give each a name of its own")

    def remove(self, name: str) -> None:
        """Stop exporting the store; an unknown name is no error."""
        for kept in (self._stores, self._scrubs, self._ended):
            kept.pop(name, None)

    def record_scrub(
        self, report: VerifyReport, name: str = "default", *, since: GuidLike | None = None
    ) -> None:
        """Export what ``verify`` found; call it with each report of a pass, in order.

        A bad blob is exported at once, the other figures when the pass has reached the end.  What an
        earlier pass found bad is exported until then, too.

        :param name: the value of the label ``store``.
        :param since: what ``verify`` was given: ``None`` begins a new pass.
        """
        so_far = _Scrub() if since is None else self._scrubs.get(name, _Scrub())
        scrub = self._scrubs[name] = so_far.with_step(report)
        if scrub.ended_s:
            self._ended[name] = scrub

    def collect(self) -> Iterable[Metric]:
        """Yield one metric for each figure of ``stats()``, with a sample for each store."""
        stores = self._stores.copy()
        yield from _metrics({name: store.stats() for name, store in stores.items()})
        for kind in ("tier", "remote"):
            asked = {name: getattr(store, f"{kind}_stats", None) for name, store in stores.items()}
            yield from _beyond(kind, {name: ask() for name, ask in asked.items() if ask is not None})
        yield from _scrub_metrics(self._scrubs.copy(), self._ended.copy())


def _metrics(shown: Mapping[str, StoreStats]) -> Iterator[Metric]:
    # One family a name, for all stores together: a page that has one twice is refused.
    info = GaugeMetricFamily("uringblob_info", "What the store runs on; always 1", labels=["store", *_WORDS])
    for name, stats in shown.items():
        info.add_metric([name, *(str(getattr(stats, word)) for word in _WORDS)], 1)
    yield info
    numbers = [f.name for f in dataclasses.fields(StoreStats) if isinstance(f.default, (int, float))]
    for figure in [*numbers, "amplification"]:
        kind = CounterMetricFamily if figure in COUNTERS else GaugeMetricFamily
        unit = "_ratio" if figure == "amplification" else ""
        family = kind(f"uringblob_{figure}{unit}", f"stats().{figure} of the store", labels=["store"])
        for name, stats in shown.items():
            family.add_metric([name], float(getattr(stats, figure)))
        yield family
    readers = GaugeMetricFamily(
        "uringblob_readers",
        "Readers in other processes, as far as stats().readers names them",
        labels=["store"],
    )
    for name, stats in shown.items():
        readers.add_metric([name], sum(max(1, len(one.pids)) for one in stats.readers))
    yield readers


def _beyond(kind: str, shown: Mapping[str, Any]) -> Iterator[Metric]:
    """Yield the figures of tiers, or of stores in buckets; a text is 1 where there is one, and else 0."""
    for field in dataclasses.fields(next(iter(shown.values()))) if shown else ():
        family = CounterMetricFamily if field.name in BEYOND_COUNTERS else GaugeMetricFamily
        figure = f"{field.name}econds" if field.name.endswith("_s") else field.name
        made = family(
            f"uringblob_{kind}_{figure}", f"{kind}_stats().{field.name} of the store", labels=["store"]
        )
        for name, stats in shown.items():
            value = getattr(stats, field.name)
            made.add_metric([name], float(bool(value) if isinstance(value, str) else value))
        yield made


def _scrub_metrics(running: Mapping[str, _Scrub], ended: Mapping[str, _Scrub]) -> Iterator[Metric]:
    def family(figure: str, text: str, values: Mapping[str, float]) -> Metric:
        made = GaugeMetricFamily(f"uringblob_scrub_{figure}", text, labels=["store"])
        for name, value in values.items():
            made.add_metric([name], value)
        return made

    # What was bad stays so until a whole pass has not found it.
    known = {name: (scrub, ended.get(name, _Scrub())) for name, scrub in running.items()}
    yield family(
        "bad_blobs",
        "Blobs that the last pass of verify(), or the one that goes on, found bad",
        {name: max(each.bad for each in both) for name, both in known.items()},
    )
    yield family(
        "metadata_errors",
        "Errors of superblocks and log that the last pass of verify() found",
        {name: scrub.metadata_errors for name, scrub in ended.items()},
    )
    yield family(
        "checked_blobs",
        "Blobs that the last pass of verify() read",
        {name: scrub.checked for name, scrub in ended.items()},
    )
    yield family(
        "finished_timestamp_seconds",
        "Unix time at which the last pass of verify() reached the end",
        {name: scrub.ended_s for name, scrub in ended.items()},
    )
