"""``uringblob vacuum``: give space that a store does not need back to the file system."""

from __future__ import annotations

import argparse

from uringblob.cli.arguments import add_store, open_store
from uringblob.cli.errors import EXIT_NO, EXIT_OK
from uringblob.cli.output import print_result, size_text

EXAMPLES = """\
  uringblob vacuum frames.blobs
  uringblob vacuum frames.blobs --max-time 60 --json | jq -r '.done'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``vacuum`` takes."""
    add_store(parser)
    parser.add_argument(
        "--max-time", type=float, metavar="SECONDS", help="end after so long; run it again to go on"
    )


def run(args: argparse.Namespace) -> int:
    """Vacuum the store; bad frames, which stay where they are, are named."""
    with open_store(args, read_only=False) as store:
        stats = store.vacuum(args.max_time)
    value = {
        "moved": stats.moved,
        "bytes_freed": stats.bytes_freed,
        "done": stats.done,
        "bad": [
            {"guid": str(guid), "error": str(error), "offset": getattr(error, "offset", None)}
            for guid, error in stats.bad
        ],
    }
    text = [f"{stats} ({size_text(stats.bytes_freed)})", *(str(error) for _, error in stats.bad)]
    print_result(args, value, "\n".join(text))
    return EXIT_NO if stats.bad else EXIT_OK
