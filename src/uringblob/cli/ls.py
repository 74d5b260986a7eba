"""``uringblob ls``: the names of all blobs."""

from __future__ import annotations

import argparse

from uringblob.cli.arguments import add_store, open_store
from uringblob.cli.errors import EXIT_OK
from uringblob.cli.output import print_result

EXAMPLES = """\
  uringblob ls frames.blobs
  uringblob ls frames.blobs --long
  uringblob ls frames.blobs --meta
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_store(parser)
    parser.add_argument("-l", "--long", action="store_true", help="with each frame's XXH3-64 checksum")
    parser.add_argument(
        "-m", "--meta", action="store_true", help="with each blob's metadata, in hex if it is no plain text"
    )


def run(args: argparse.Namespace) -> int:
    """List without reading a frame."""
    with open_store(args, read_only=True) as store:
        if not (args.long or args.meta):
            guids = sorted(store.list_blobs())
            print_result(args, [str(guid) for guid in guids], "\n".join(map(str, guids)))
            return EXIT_OK
        rows, lines = [], []
        for guid, stat in store.iter_blobs(meta=True):
            row = {"guid": str(guid)}
            words = [str(guid)]
            if args.long:
                row["xxh3_64"] = f"{stat.checksum:016x}"
                words.append(row["xxh3_64"])
            if args.meta:
                row["meta_hex"] = stat.meta.hex()
                words.append(_meta_text(stat.meta))
            rows.append(row)
            lines.append("  ".join(words).rstrip())
    print_result(args, rows, "\n".join(lines))
    return EXIT_OK


def _meta_text(meta: bytes) -> str:
    """Return metadata as it may be shown on a terminal: UTF-8 that is printable, or else hex digits."""
    try:
        text = meta.decode()
    except UnicodeDecodeError:
        return meta.hex()
    return text if text.isprintable() else meta.hex()
