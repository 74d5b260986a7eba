"""``uringblob verify``: read everything, check every checksum."""

from __future__ import annotations

import argparse

from uringblob.cli.arguments import add_store, open_store, parse_guid, parse_size
from uringblob.cli.errors import EXIT_NO, EXIT_OK
from uringblob.cli.output import print_result, progress_bar, size_text

EXAMPLES = """\
  uringblob verify frames.blobs && echo sound
  uringblob verify frames.blobs --json | jq -r '.bad[].guid'
  uringblob verify frames.blobs --rate 20MiB --deadline 3600 --json | jq -r '.resume'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``verify`` takes."""
    add_store(parser)
    parser.add_argument(
        "--rate", type=parse_size, metavar="SIZE", help="read at most so many bytes a second: 20MiB"
    )
    parser.add_argument(
        "--deadline", type=float, metavar="SECONDS", help="end after so long, and say where to resume"
    )
    parser.add_argument(
        "--since", type=parse_guid, metavar="GUID", help="resume behind this blob, where a deadline ended"
    )


def run(args: argparse.Namespace) -> int:
    """Verify read-only, so that a store that readers have open can be checked, too."""
    with open_store(args, read_only=True) as store, progress_bar(args, "verifying") as progress:
        report = store.verify(progress, args.rate, args.deadline, args.since)
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
        "resume": None if report.resume is None else str(report.resume),
        "notes": list(notes),
    }
    text = f"{report} ({size_text(report.bytes_checked)} of good frames)" if report.ok else str(report)
    print_result(args, value, "\n".join([text, *notes]))
    return EXIT_OK if report.ok else EXIT_NO
