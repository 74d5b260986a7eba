"""``uringblob create``: make an empty store."""

from __future__ import annotations

import argparse
import errno
import os

from uringblob.cli.arguments import add_engine, is_url, open_url, parse_mode, parse_size
from uringblob.cli.errors import EXIT_OK, EXIT_USAGE, CliError
from uringblob.cli.output import print_result, size_text
from uringblob.errors import encodable
from uringblob.sync.file_store import FileBlobStore
from uringblob.units import PAGE_SIZE

EXAMPLES = """\
  uringblob create frames.blobs
  uringblob create small.blobs --page-size 4k --label "thumbnails of the shop"
  uringblob create 's3://bucket/frames?endpoint=http://127.0.0.1:7480'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("store", metavar="STORE", help="path of the new file, or s3://BUCKET/PREFIX")
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
    if is_url(args.store):
        return _create_in_bucket(args)
    # A dangling link is no obstacle: like open, this makes its target.
    if os.path.exists(args.store):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), args.store)
    with FileBlobStore.open(
        args.store, page_size=args.page_size, engine=args.engine, mode=args.mode, label=args.label
    ) as store:
        page_size = store.page_size
    return _report(args, page_size)


def _create_in_bucket(args: argparse.Namespace) -> int:
    if args.label:
        raise CliError("a store in a bucket has no label: leave out --label", EXIT_USAGE, path=args.store)
    try:
        open_url(args.store, create=False, read_only=True).close()
    except FileNotFoundError:
        with open_url(args.store, page_size=args.page_size) as store:
            return _report(args, store.page_size)
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), args.store)


def _report(args: argparse.Namespace, page_size: int) -> int:
    text = f"{encodable(args.store)}: frames of {size_text(page_size)}"
    print_result(args, {"store": args.store, "page_size": page_size}, text)
    return EXIT_OK
