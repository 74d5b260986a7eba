"""``uringblob create``: make an empty store."""

from __future__ import annotations

import argparse
import errno
import os
import re

from uringblob_bench.options import size

from uringblob.cli import exits
from uringblob.cli.output import Output, size_text
from uringblob.errors import encodable
from uringblob.sync.file_store import FileBlobStore
from uringblob.units import ENGINES, PAGE_SIZE

HELP = "make an empty store"
EXAMPLES = """\
  uringblob create frames.blobs
  uringblob create small.blobs --page-size 4k
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("store", metavar="STORE", help="path of the new file")
    parser.add_argument(
        "--page-size",
        type=size,
        default=PAGE_SIZE,
        metavar="SIZE",
        help="frame size, a power of two from 4096 bytes (4k) to 16777216 (16m) (default 512k)",
    )
    parser.add_argument("--mode", type=mode_bits, default=0o600, help="octal (default 600)")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="default: the best that works here")


def mode_bits(text: str) -> int:
    """Read octal permission bits.

    :raises argparse.ArgumentTypeError: they are none.
    """
    if not re.fullmatch("[0-7]{1,4}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no mode: write octal digits, such as 640")
    return int(text, 8)


def run(args: argparse.Namespace, out: Output) -> int:
    """Make the store; refuse a path where something is.

    :returns: 0; what is there already is a ``FileExistsError``.
    """
    # As open does it: a link that leads nowhere yet is no obstacle, its target is made.
    if os.path.exists(args.store):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), args.store)
    with FileBlobStore.open(
        args.store, page_size=args.page_size, engine=args.engine, mode=args.mode
    ) as store:
        page_size = store.page_size
    out.result(
        {"store": args.store, "page_size": page_size},
        f"{encodable(args.store)}: frames of {size_text(page_size)}",
    )
    return exits.OK
