"""``uringblob create``: make an empty store."""

from __future__ import annotations

import argparse
import errno
import os

from uringblob.cli import exits
from uringblob.cli.opening import ENGINES
from uringblob.cli.output import Output, size_text
from uringblob.facade import FileBlobStore
from uringblob.units import PAGE_SIZE

HELP = "make an empty store"
EXAMPLES = """\
  uringblob create frames.blobs
  uringblob create small.blobs --page-size 4096
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("store", metavar="STORE", help="path of the new file")
    parser.add_argument(
        "--page-size",
        type=int,
        default=PAGE_SIZE,
        metavar="BYTES",
        help=f"frame size, a power of two from 4096 to 16777216 (default {PAGE_SIZE})",
    )
    parser.add_argument("--mode", type=lambda text: int(text, 8), default=0o600, help="octal (default 600)")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="default: the best that works here")


def run(args: argparse.Namespace, out: Output) -> int:
    """Make the store; refuse a path where something is.

    :returns: 0; what is there already is a ``FileExistsError``.
    """
    if os.path.lexists(args.store):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), args.store)
    with FileBlobStore.open(
        args.store, page_size=args.page_size, engine=args.engine, mode=args.mode
    ) as store:
        page_size = store.page_size
    out.result(
        {"store": args.store, "page_size": page_size}, f"{args.store}: frames of {size_text(page_size)}"
    )
    return exits.OK
