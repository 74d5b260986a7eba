"""``uringblob create``: make an empty store."""

from __future__ import annotations

import argparse
import errno
import os

from uringblob.cli.arguments import add_engine, parse_mode, parse_size
from uringblob.cli.errors import EXIT_OK
from uringblob.cli.output import print_result, size_text
from uringblob.errors import encodable
from uringblob.sync.file_store import FileBlobStore
from uringblob.units import PAGE_SIZE

EXAMPLES = """\
  uringblob create frames.blobs
  uringblob create small.blobs --page-size 4k --label "thumbnails of the shop"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("store", metavar="STORE", help="path of the new file")
    parser.add_argument(
        "--page-size",
        type=parse_size,
        default=PAGE_SIZE,
        metavar="SIZE",
        help="frame size, a multiple of 4096 bytes (4k) up to 67108864 (64m) (default 512k)",
    )
    parser.add_argument("--mode", type=parse_mode, default=0o600, help="octal (default 600)")
    parser.add_argument("--label", default="", help="a text that 'uringblob info' shows, up to 64 bytes")
    add_engine(parser)


def run(args: argparse.Namespace) -> int:
    """Make the store.

    :raises FileExistsError: something is at its path.
    """
    # A dangling link is no obstacle: like open, this makes its target.
    if os.path.exists(args.store):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), args.store)
    with FileBlobStore.open(
        args.store, page_size=args.page_size, engine=args.engine, mode=args.mode, label=args.label
    ) as store:
        page_size = store.page_size
    text = f"{encodable(args.store)}: frames of {size_text(page_size)}"
    print_result(args, {"store": args.store, "page_size": page_size}, text)
    return EXIT_OK
