"""``uringblob ls``: the names of all blobs."""

from __future__ import annotations

import argparse

from uringblob.cli.arguments import add_store, open_store
from uringblob.cli.errors import EXIT_OK
from uringblob.cli.output import print_result

EXAMPLES = """\
  uringblob ls frames.blobs
  uringblob ls frames.blobs --long
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_store(parser)
    parser.add_argument("-l", "--long", action="store_true", help="with each frame's XXH3-64 checksum")


def run(args: argparse.Namespace) -> int:
    """List without reading a frame."""
    with open_store(args, read_only=True) as store:
        guids = sorted(store.list_blobs())
        if not args.long:
            print_result(args, [str(guid) for guid in guids], "\n".join(map(str, guids)))
            return EXIT_OK
        rows = [{"guid": str(guid), "xxh3_64": f"{store.checksum(guid):016x}"} for guid in guids]
    print_result(args, rows, "\n".join(f"{row['guid']}  {row['xxh3_64']}" for row in rows))
    return EXIT_OK
