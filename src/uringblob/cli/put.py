"""``uringblob put``: one frame from a file or from standard input."""

from __future__ import annotations

import argparse
import os
import sys

from uringblob.cli.arguments import add_store, must_exist, open_to_change, parse_guid
from uringblob.cli.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, CliError
from uringblob.cli.output import print_result
from uringblob.cli.stdio import STDIN, STDOUT, naming_file, read_all
from uringblob.guid import BlobGuid
from uringblob.units import PAGE_SIZE_MAX

EXAMPLES = """\
  uringblob put frames.blobs picture.raw                       # prints the new guid
  uringblob put frames.blobs picture.raw --guid 6f9619ff8b86d011b42d00cf4fc964ff
  uringblob put frames.blobs picture.raw --meta image/x-raw        # 'uringblob ls --meta' shows it
  head -c 1000 /dev/urandom | uringblob put frames.blobs - --pad   # prints the true length, too
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_store(parser)
    parser.add_argument("file", metavar="FILE", help="exactly one frame; - is standard input")
    parser.add_argument(
        "--guid", type=parse_guid, help="hex or UUID; an existing blob is replaced (default: a random one)"
    )
    parser.add_argument(
        "--meta", default="", metavar="TEXT", help="up to 255 bytes that are kept with the blob, as UTF-8"
    )
    parser.add_argument(
        "--pad",
        action="store_true",
        help="fill a short input with zeros; the true length is printed, and is yours to keep",
    )


def run(args: argparse.Namespace) -> int:
    """Commit one frame: when the guid is printed, the frame is durable.

    The input is read before the store is opened, because it may come from a command that opens the
    same store, or take long.
    """
    must_exist(args.store)
    name = STDIN if args.file == "-" else args.file
    data = _read(args.file)
    guid = args.guid or BlobGuid.random()
    with open_to_change(args) as store:
        _check_length(args, name, len(data), store.page_size)
        with store.alloc_blob_buf_zeroed() as buf:
            buf.view[: len(data)] = data
            store.commit([(guid, buf, os.fsencode(args.meta))])
        padded = len(data) < store.page_size
    result = {"guid": str(guid), "length": len(data)}
    try:
        print_result(args, result, f"{guid} {len(data)}" if padded else str(guid))
    except OSError as error:
        text = f"the frame is stored as {guid}, which could not be printed: {error.strerror}"
        raise CliError(text, EXIT_FAILED, path=STDOUT, guid=guid) from error
    return EXIT_OK


def _check_length(args: argparse.Namespace, name: str, length: int, page_size: int) -> None:
    if length > page_size:
        text = (
            f"{name} is longer than a frame, which has {page_size} bytes: put it in parts, or into a store "
            "of larger frames ('uringblob create --page-size')"
        )
        raise CliError(text, EXIT_USAGE, path=name)
    if length < page_size and not args.pad:
        text = f"{name} has {length} bytes, a frame has {page_size}: --pad fills it with zeros"
        raise CliError(text, EXIT_USAGE, path=name)


def _read(file: str) -> bytes:
    """Return the input; one byte more than the largest frame is enough to refuse it."""
    if file == "-":
        with naming_file(STDIN):
            return read_all(sys.stdin.buffer, PAGE_SIZE_MAX + 1)
    with open(file, "rb") as opened:
        return read_all(opened, PAGE_SIZE_MAX + 1)
