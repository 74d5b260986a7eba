"""``uringblob export``: a directory with each blob in a file, for other programs."""

from __future__ import annotations

import argparse

from uringblob.cli.arguments import add_store, open_store
from uringblob.cli.copying import add_rate, copy_store, refuse_incomplete
from uringblob.cli.directory import ExportDirectory

EXAMPLES = """\
  uringblob export frames.blobs frames.exported
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_store(parser)
    parser.add_argument(
        "directory", metavar="DIR", help="new, empty, or an earlier export to bring up to date"
    )
    add_rate(parser)


def run(args: argparse.Namespace) -> int:
    """Write a file a blob, then the manifest, everything fsynced; interrupted, the next call goes on."""
    with open_store(args, read_only=True) as store:
        refuse_incomplete(store, args.store)
        directory = ExportDirectory(args.directory, store.page_size)
        return copy_store(args, store, directory, name=args.directory, what="exporting")
