"""``uringblob import``: a store made of an exported directory."""

from __future__ import annotations

import argparse

from uringblob.cli.arguments import add_store
from uringblob.cli.copying import add_rate, add_replace, copy_store, refuse_blobs
from uringblob.cli.directory import ImportDirectory

EXAMPLES = """\
  uringblob import frames.exported frames.blobs
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("directory", metavar="DIR", help="what 'uringblob export' wrote")
    add_store(parser, text="path or URL of the store; made if not there")
    add_rate(parser)
    add_replace(parser, "make a STORE that holds blobs what DIR is; it stays as it is until that is done")


def run(args: argparse.Namespace) -> int:
    """Copy the files that the manifest names, each one's checksum checked, into STORE."""
    directory = ImportDirectory(args.directory, args.engine)
    if not args.replace:
        refuse_blobs(args, args.store, "give another STORE, or --replace, which deletes what DIR lacks")
    return copy_store(args, directory, args.store, name=args.store, what="importing")
