"""``uringblob put``: one frame from a file or from standard input."""

from __future__ import annotations

import argparse
import sys
from typing import BinaryIO

from uringblob.cli import exits
from uringblob.cli.errors import CliError
from uringblob.cli.guids import parse_guid
from uringblob.cli.opening import add_store, must_exist, open_store
from uringblob.cli.output import Output
from uringblob.cli.stdio import STDIN, STDOUT, named, read_whole_input
from uringblob.guid import BlobGuid
from uringblob.units import PAGE_SIZE_MAX

HELP = "store one frame, durably, from a file or from standard input"
EXAMPLES = """\
  uringblob put frames.blobs picture.raw                       # prints the new guid
  uringblob put frames.blobs picture.raw --guid 6f9619ff8b86d011b42d00cf4fc964ff
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
        "--pad",
        action="store_true",
        help="fill a short input with zeros; the true length is printed, and is yours to keep",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Commit one frame: when the guid is printed, the frame is durable.

    The input is read before the store is opened: it may come from a command that opens the store,
    too, and nobody is locked out while somebody types.
    """
    must_exist(args.store)
    data = _read(args.file)
    guid = args.guid or BlobGuid.random()
    with open_store(args, read_only=False) as store:
        refusal = _refusal(args, len(data), store.page_size)
        if refusal:
            raise CliError(refusal, exits.USAGE, path=_name(args.file))
        with store.alloc_blob_buf_zeroed() as buf:
            buf.view[: len(data)] = data
            store.commit([(guid, buf)])
        padded = len(data) < store.page_size
    try:
        out.result({"guid": str(guid), "length": len(data)}, f"{guid} {len(data)}" if padded else str(guid))
    except OSError as error:
        text = f"the frame is stored as {guid}, which could not be printed: {error.strerror}"
        raise CliError(text, exits.FAILED, path=STDOUT, guid=guid) from error
    return exits.OK


def _refusal(args: argparse.Namespace, length: int, page_size: int) -> str:
    name = _name(args.file)
    if length > page_size:
        return (
            f"{name} is longer than a frame, which has {page_size} bytes: put it in parts, or into a store "
            "of larger frames ('uringblob create --page-size')"
        )
    if length < page_size and not args.pad:
        return f"{name} has {length} bytes, a frame has {page_size}: --pad fills it with zeros"
    return ""


def _name(file: str) -> str:
    return STDIN if file == "-" else file


def _read(name: str) -> bytes:
    """Return the input; of one that fits no frame at all, only so much as shows it."""
    if name != "-":
        with open(name, "rb") as file:
            return _read_stream(file)
    with named(STDIN):
        return _read_stream(sys.stdin.buffer)


def _read_stream(file: BinaryIO) -> bytes:
    return read_whole_input(file, PAGE_SIZE_MAX + 1)
