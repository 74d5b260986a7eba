"""OpenTelemetry traces of a store: an observer that makes a span of each call.

Needs the extra ``uringblob[traces]``, which is the API package alone; an SDK is the program's choice, and
without one the spans go nowhere::

    from uringblob import observe
    from uringblob.traces import OpenTelemetryObserver

    with FileBlobStore.open("frames.blobs") as store:
        observe(store, OpenTelemetryObserver(store))

It stands beside other observers of the store.  A store that is not observed pays nothing, and
``import uringblob`` does not import this module.
"""

from __future__ import annotations

import sys
import time
from typing import Protocol

try:
    from opentelemetry.trace import Status, StatusCode, TracerProvider, get_tracer
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"uringblob.traces needs {missing.name}: pip install 'uringblob[traces]'", name=missing.name
    ) from missing

from uringblob.api.stats import StoreStats

__all__ = ["OpenTelemetryObserver"]


class _HasStats(Protocol):
    def stats(self) -> StoreStats: ...


class OpenTelemetryObserver:
    """Makes a span of every call of one store, a child of the span that is current where the call was made.

    The span is called ``uringblob.OPERATION`` and has the attributes ``uringblob.engine``,
    ``uringblob.page_size`` and ``uringblob.size_bytes`` (of the frames that the call moved), and
    ``uringblob.outcome``.  A call that failed has the status ``ERROR``, ``error.type`` and the exception as
    an event; one that was cancelled has the outcome alone.

    May be called from any thread.

    :param store: an open store, of either face; the observer does not keep it.
    :param tracer_provider: where the spans go; by default the global one, whenever it is set.
    """

    def __init__(self, store: _HasStats, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = get_tracer("uringblob", tracer_provider=tracer_provider)
        stats = store.stats()
        self._attributes: dict[str, str | int] = {
            "uringblob.engine": stats.engine,
            "uringblob.page_size": stats.page_size,
        }

    def observe(self, operation: str, size_bytes: int, duration_s: float, outcome: str) -> None:
        """See :class:`uringblob.StoreObserver`."""
        end_ns = time.time_ns()
        failed = outcome not in ("ok", "cancelled")
        attributes = {**self._attributes, "uringblob.size_bytes": size_bytes, "uringblob.outcome": outcome}
        if failed:
            attributes["error.type"] = outcome
        span = self._tracer.start_span(
            f"uringblob.{operation}",
            start_time=end_ns - round(duration_s * 1e9),
            attributes=attributes,
        )
        error = sys.exc_info()[1] if failed else None
        if error is not None and span.is_recording():
            span.record_exception(error, timestamp=end_ns)
            span.set_status(Status(StatusCode.ERROR, str(error)))
        span.end(end_ns)
