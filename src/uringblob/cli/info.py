"""``uringblob info``: what a store holds and how it would be served."""

from __future__ import annotations

import argparse
import dataclasses
import time

from uringblob.api.stats import StoreStats
from uringblob.cli.arguments import add_store, open_store
from uringblob.cli.errors import EXIT_OK
from uringblob.cli.output import print_result, size_text, table
from uringblob.sync.file_store import FileBlobStore
from uringblob.tiered.local_file import LocalFile, tier_of

EXAMPLES = """\
  uringblob info frames.blobs
  uringblob info frames.blobs --json | jq .blobs
"""

add_arguments = add_store


def run(args: argparse.Namespace) -> int:
    """Open the store read-only and show its stats."""
    with open_store(args, read_only=True) as store:
        stats = store.stats()
        tier = tier_of(store) if isinstance(store, FileBlobStore) else None
    rows = _in_bucket(stats) if stats.engine == "remote" else _in_file(stats)
    if tier is not None:
        rows["tier"] = _tier(tier)
    if stats.notes:
        rows["notes"] = "; ".join(stats.notes)
    shown = {**dataclasses.asdict(stats), "amplification": stats.amplification}
    shown["tier"] = None if tier is None else dataclasses.asdict(tier)
    print_result(args, shown, table(rows, warn="notes"))
    return EXIT_OK


def _in_bucket(stats: StoreStats) -> dict[str, str]:
    return {"frames": _frames(stats), "engine": f"{stats.engine}: {stats.engine_reason}"}


def _tier(tier: LocalFile) -> str:
    left = f", {tier.deletions} deletions among it" if tier.deletions else ""
    state = "all is uploaded" if tier.uploaded else f"not closed clean: some may not be uploaded{left}"
    return f"the local file of one, with {tier.frames} frames of it; {state}"


def _frames(stats: StoreStats) -> str:
    return f"{stats.blobs} of {size_text(stats.page_size)}"


def _in_file(stats: StoreStats) -> dict[str, str]:
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(stats.created_ns // 10**9))
    return {
        **({"label": stats.label} if stats.label else {}),
        "format": f"version {stats.format_version}"
        + (f" ({', '.join(stats.features)})" if stats.features else "")
        + (f", made {made}" if stats.created_ns else ""),
        "frames": _frames(stats),
        "file": f"{size_text(stats.file_bytes)}, {size_text(stats.allocated_bytes)} allocated, "
        f"{size_text(stats.log_bytes)} for the log"
        + (f"; {stats.amplification:.2f} times what is live" if stats.blobs else ""),
        "slots": f"{stats.slots_live} live, {stats.slots_free} free, {stats.slots_log} for the log, "
        f"{stats.slots_pending} other",
        "engine": f"{stats.engine}: {stats.engine_reason}",
        "O_DIRECT": "yes" if stats.direct_io else "no",
        "buffers": f"{stats.buffers_registered} of {stats.buffers} registered"
        + (f": {stats.buffers_reason}" if stats.buffers_reason else ""),
    }
