"""The costs of many blobs by name, with their units, from the results of a child process."""

from __future__ import annotations

from typing import Any

UNITS = {
    "open": "s",
    "resident memory": "MB",
    "peak memory": "MB",
    "commit": "ms",
    "list_blobs": "s",
    "compaction": "s",
    "worst reader beside compaction": "ms",
    "worst writer beside compaction": "ms",
    "worst reader without": "ms",
    "worst writer without": "ms",
}
_MS = 1000


def costs_of(found: dict[str, Any]) -> dict[str, float]:
    """Return every cost in the unit of :data:`UNITS`."""
    compacting, quiet = found["compacting"], found["quiet"]
    return {
        "open": found["open_s"],
        "resident memory": found["resident_mb"],
        "peak memory": found["peak_mb"],
        "commit": found["commit_p50_s"] * _MS,
        "list_blobs": found["list_s"],
        "compaction": compacting["seconds"],
        "worst reader beside compaction": compacting["reader_worst_s"] * _MS,
        "worst writer beside compaction": compacting["writer_worst_s"] * _MS,
        "worst reader without": quiet["reader_worst_s"] * _MS,
        "worst writer without": quiet["writer_worst_s"] * _MS,
    }
