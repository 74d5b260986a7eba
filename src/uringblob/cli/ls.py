"""``uringblob ls``: the names of all blobs."""

from __future__ import annotations

import argparse

from uringblob.cli import exits
from uringblob.cli.opening import add_store, open_store
from uringblob.cli.output import Output

HELP = "list the guids of all blobs, sorted"
EXAMPLES = """\
  uringblob ls frames.blobs
  uringblob ls frames.blobs --long
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_store(parser)
    parser.add_argument("-l", "--long", action="store_true", help="with each frame's XXH3-64 checksum")


def run(args: argparse.Namespace, out: Output) -> int:
    """List without reading a frame."""
    with open_store(args, read_only=True) as store:
        guids = sorted(store.list_blobs())
        if not args.long:
            out.result([str(guid) for guid in guids], "\n".join(map(str, guids)))
            return exits.OK
        rows = [{"guid": str(guid), "xxh3_64": f"{store.checksum(guid):016x}"} for guid in guids]
    out.result(rows, "\n".join(f"{row['guid']}  {row['xxh3_64']}" for row in rows))
    return exits.OK
