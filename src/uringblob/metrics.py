"""A store in Prometheus' words: an observer that counts calls, a collector that shows ``stats()``.

Needs the extra ``uringblob[metrics]``::

    from uringblob.metrics import PrometheusObserver, StoreCollector

    observer = PrometheusObserver()
    with FileBlobStore.open("frames.blobs", observer=observer) as store:
        REGISTRY.register(StoreCollector(store))

One observer may serve any number of stores; so may a registry hold one collector a store, told
apart by the label ``store``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from uringblob.stats import StoreStats

#: Upper bounds in seconds: from a frame in the page cache to a disk that is in trouble.
DURATION_BUCKETS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

#: The fields of ``stats()`` that only ever grow.
COUNTERS = frozenset(
    """
    reads writes syncs bytes_read bytes_written ring_enters commits log_groups compactions
    batches_linked batches_scattered bounces
    """.split()
)
#: The fields that are words; they become labels of ``uringblob_info``.
_WORDS = ("engine", "engine_reason", "buffers_reason", "poisoned")


class HasStats(Protocol):
    """A store of either face."""

    def stats(self) -> StoreStats:
        """Return a frozen snapshot; any thread may ask."""
        ...


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


class StoreCollector(Collector):
    """Shows a store's ``stats()`` whenever it is asked: counters, gauges, and ``uringblob_info``.

    Costs nothing between two scrapes.  Shows a closed store's last figures, until it is
    unregistered.

    :param store: the store; the collector keeps it alive.
    :param name: the value of the label ``store``.
    """

    def __init__(self, store: HasStats, name: str = "default") -> None:
        self._store = store
        self._name = name

    def collect(self) -> Iterable[Metric]:
        """Yield one metric for each field of ``stats()``."""
        return _metrics(self._store.stats(), self._name)


def _metrics(stats: StoreStats, name: str) -> Iterator[Metric]:
    info = GaugeMetricFamily("uringblob_info", "What the store runs on; always 1", labels=["store", *_WORDS])
    info.add_metric([name, *(str(getattr(stats, word)) for word in _WORDS)], 1)
    yield info
    for field in dataclasses.fields(stats):
        value = getattr(stats, field.name)
        if field.name in _WORDS or not isinstance(value, (int, float)):
            continue
        kind = CounterMetricFamily if field.name in COUNTERS else GaugeMetricFamily
        family = kind(f"uringblob_{field.name}", f"stats().{field.name} of the store", labels=["store"])
        family.add_metric([name], float(value))
        yield family
