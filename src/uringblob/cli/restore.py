"""``uringblob restore``: a store made of a backup."""

from __future__ import annotations

import argparse

from uringblob.cli.arguments import add_store, open_store
from uringblob.cli.copying import add_rate, add_replace, copy_store, refuse_blobs, refuse_incomplete

EXAMPLES = """\
  uringblob restore /mnt/backup/frames.blobs frames.blobs
  uringblob restore /mnt/backup/frames.blobs frames.blobs --replace    # what is there becomes the backup
  uringblob restore 's3://bucket/frames?region=eu-north-1' frames.blobs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_store(parser, "BACKUP", "path of the backup, a store file, or s3://BUCKET/PREFIX")
    parser.add_argument("target", metavar="DST", help="path or URL of the store; made if not there")
    add_rate(parser)
    add_replace(
        parser, "make a DST that holds blobs what the backup is; it stays as it is until that is done"
    )


def run(args: argparse.Namespace) -> int:
    """Copy BACKUP into DST, each frame's checksum checked; interrupted, the next call goes on."""
    with open_store(args, read_only=True) as backup:
        refuse_incomplete(backup, args.store)
        if not args.replace:
            refuse_blobs(args, args.target, "give another DST, or --replace, which deletes what BACKUP lacks")
        return copy_store(args, backup, args.target, name=args.target, what="restoring")
