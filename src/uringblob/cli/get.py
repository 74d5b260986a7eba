"""``uringblob get``: one frame into a file or to standard output."""

from __future__ import annotations

import argparse
import os

from uringblob.cli import exits
from uringblob.cli.atomic_file import whole_file
from uringblob.cli.errors import CliError
from uringblob.cli.guids import parse_guid
from uringblob.cli.opening import add_store, open_store
from uringblob.cli.output import Output

HELP = "read one frame, its checksum checked, into a file or to standard output"
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


def run(args: argparse.Namespace, out: Output) -> int:
    """Write nothing unless the whole frame was read and is good; then all of it or nothing."""
    refusal = _refusal(args)
    if refusal:
        raise CliError(refusal, exits.USAGE, guid=args.guid)
    with open_store(args, read_only=True) as store:
        length = store.page_size if args.length is None else args.length
        if not 0 <= length <= store.page_size:
            text = f"--length {length} is not within a frame of {store.page_size}"
            raise CliError(text, exits.USAGE, guid=args.guid)
        with store.alloc_blob_buf_uninit() as buf:
            store.read_blob(args.guid, buf)
            data = bytes(buf.view[:length])
    if args.file == "-":
        out.frame(data)
        return exits.OK
    _write(args.file, data)
    out.result({"guid": str(args.guid), "length": length, "file": args.file})
    return exits.OK


def _refusal(args: argparse.Namespace) -> str:
    if args.file == "-":
        return "--json and - both want standard output: name a FILE" if args.json else ""
    if os.path.exists(args.file) and os.path.exists(args.store) and os.path.samefile(args.file, args.store):
        return f"{args.file} is the store itself, which the frame would replace"
    return ""


def _write(path: str, data: bytes) -> None:
    try:
        with whole_file(path) as file:
            done = 0
            while done < len(data):
                done += file.write(data[done:])
    except OSError as error:
        # Neither a failed write nor the temporary file's own name says which file it was.
        raise OSError(error.errno, error.strerror, path) from error
