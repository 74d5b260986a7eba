"""``uringblob put``: one frame from a file or from standard input."""

from __future__ import annotations

import argparse
import sys
from typing import BinaryIO

from uringblob.cli import exits
from uringblob.cli.guids import parse_guid
from uringblob.cli.opening import add_store, open_store
from uringblob.cli.output import Output
from uringblob.guid import BlobGuid

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
    """Commit one frame: when the guid is printed, the frame is durable."""
    guid = args.guid or BlobGuid.random()
    with open_store(args, read_only=False) as store, store.alloc_blob_buf_zeroed() as buf:
        length = _fill(buf.view, args.file)
        refusal = _refusal(args, length, store.page_size)
        if refusal:
            sys.stderr.write(f"uringblob put: {refusal}\n")
            return exits.USAGE
        store.commit([(guid, buf)])
    out.result(
        {"guid": str(guid), "length": length}, str(guid) if length == store.page_size else f"{guid} {length}"
    )
    return exits.OK


def _refusal(args: argparse.Namespace, length: int, page_size: int) -> str:
    if length > page_size:
        return f"{args.file} is longer than a frame of {page_size} bytes"
    if length < page_size and not args.pad:
        return f"{args.file} has {length} bytes, a frame has {page_size}: --pad fills it with zeros"
    return ""


def _fill(view: memoryview, name: str) -> int:
    """Read into ``view``; return the input's length, one more than the view's if it is longer."""
    if name == "-":
        return _read(view, sys.stdin.buffer)
    with open(name, "rb") as file:
        return _read(view, file)


def _read(view: memoryview, file: BinaryIO) -> int:
    done = 0
    while done < len(view):
        # Not readinto: a slice of the view that an exception keeps would keep the buffer.
        part = file.read(len(view) - done)
        if not part:
            return done
        view[done : done + len(part)] = part
        done += len(part)
    return done + len(file.read(1))
