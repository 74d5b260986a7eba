"""``uringblob get``: one frame into a file or to standard output."""

from __future__ import annotations

import argparse
import os

from uringblob.cli.arguments import add_store, open_store, parse_guid
from uringblob.cli.atomic_file import atomic_write
from uringblob.cli.errors import EXIT_OK, EXIT_USAGE, CliError
from uringblob.cli.output import print_result
from uringblob.cli.stdio import naming_file, print_bytes

EXAMPLES = """\
  uringblob get frames.blobs 6f9619ff-8b86-d011-b42d-00cf4fc964ff picture.raw
  uringblob get frames.blobs 6f9619ff8b86d011b42d00cf4fc964ff - --length 1000 | sha256sum
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_store(parser)
    parser.add_argument("guid", type=parse_guid, metavar="GUID", help="hex or UUID")
    parser.add_argument("file", metavar="FILE", help="where to; - is standard output")
    parser.add_argument(
        "--length", type=int, metavar="BYTES", help="only the first BYTES, where the frame was padded"
    )


def run(args: argparse.Namespace) -> int:
    """Read and check the whole frame, then write all of it or nothing."""
    _check(args)
    with open_store(args, read_only=True) as store:
        length = store.page_size if args.length is None else args.length
        if not 0 <= length <= store.page_size:
            text = f"--length {length} is not within a frame of {store.page_size}"
            raise CliError(text, EXIT_USAGE, guid=args.guid)
        with store.alloc_blob_buf_uninit() as buf:
            store.read_blob(args.guid, buf)
            data = bytes(buf.view[:length])
    if args.file == "-":
        print_bytes(data)
        return EXIT_OK
    # A failed write names no file, or the temporary one.
    with naming_file(args.file), atomic_write(args.file) as file:
        file.write(data)
    print_result(args, {"guid": str(args.guid), "length": length, "file": args.file})
    return EXIT_OK


def _check(args: argparse.Namespace) -> None:
    if args.file == "-" and args.json:
        raise CliError("--json and - both want standard output: name a FILE", EXIT_USAGE, guid=args.guid)
    if os.path.exists(args.file) and os.path.exists(args.store) and os.path.samefile(args.file, args.store):
        text = f"{args.file} is the store itself, which the frame would replace"
        raise CliError(text, EXIT_USAGE, guid=args.guid)
