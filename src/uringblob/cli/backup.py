"""``uringblob backup``: a copy of a store that opens, made or brought up to date."""

from __future__ import annotations

import argparse

from uringblob.cli.arguments import add_store, open_store
from uringblob.cli.copying import add_rate, add_replace, complete_blobs, copy_store
from uringblob.cli.errors import EXIT_USAGE, CliError

EXAMPLES = """\
  uringblob backup frames.blobs /mnt/backup/frames.blobs
  uringblob backup frames.blobs /mnt/backup/frames.blobs --rate 50m    # again: copies what is new
  uringblob backup frames.blobs 's3://bucket/frames?region=eu-north-1'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_store(parser, "SRC")
    parser.add_argument(
        "target",
        metavar="DST",
        help="path of the backup, a store file, or s3://BUCKET/PREFIX; made if not there",
    )
    add_rate(parser)
    add_replace(parser, "also where DST holds blobs and SRC has none of them")


def run(args: argparse.Namespace) -> int:
    """Copy a snapshot of SRC; DST is the earlier backup until this one is complete and durable."""
    with open_store(args, read_only=True) as store:
        there = complete_blobs(args, args.target)
        if there and not args.replace and not any(store.has_blobs(there)):
            text = (
                f"{args.target} holds {len(there)} blobs, and {args.store} has none of them: is it a backup of "
                "another store? Give another DST, or --replace"
            )
            raise CliError(text, EXIT_USAGE, path=args.target)
        return copy_store(args, store, args.target, name=args.target, what="backing up")
