"""``uringblob verify``: read everything, check every checksum."""

from __future__ import annotations

import argparse

from uringblob.cli.arguments import add_store, open_store
from uringblob.cli.errors import EXIT_NO, EXIT_OK
from uringblob.cli.output import print_result, progress_bar, size_text

EXAMPLES = """\
  uringblob verify frames.blobs && echo sound
  uringblob verify frames.blobs --json | jq -r '.bad[].guid'
"""

add_arguments = add_store


def run(args: argparse.Namespace) -> int:
    """Verify read-only, so that a store that readers have open can be checked, too."""
    with open_store(args, read_only=True) as store, progress_bar(args, "verifying") as progress:
        report = store.verify(progress)
        notes = store.stats().notes
    value = {
        "ok": report.ok,
        "blobs_checked": report.blobs_checked,
        "bytes_checked": report.bytes_checked,
        "bad": [
            {"guid": str(guid), "error": str(error), "offset": getattr(error, "offset", None)}
            for guid, error in report.bad
        ],
        "metadata_errors": [str(error) for error in report.metadata_errors],
        "notes": list(notes),
    }
    text = f"{report} ({size_text(report.bytes_checked)} of good frames)" if report.ok else str(report)
    print_result(args, value, "\n".join([text, *notes]))
    return EXIT_OK if report.ok else EXIT_NO
