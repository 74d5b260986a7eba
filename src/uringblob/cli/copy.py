"""``uringblob copy``: a new store with the same blobs, of another frame size too."""

from __future__ import annotations

import argparse
import dataclasses
import os

from uringblob.api.blob_stat import BlobStat
from uringblob.api.sync_store import BlobStore
from uringblob.buffers.views import BlobBuffer, writable_view
from uringblob.cli.arguments import OpenStore, add_store, is_url, open_path, open_store, parse_size
from uringblob.cli.copying import CopySource, add_rate, copy_store, refuse_blobs, refuse_incomplete
from uringblob.cli.errors import EXIT_OK, EXIT_USAGE, CliError
from uringblob.cli.output import size_text
from uringblob.cli.stdio import print_line
from uringblob.errors import encodable
from uringblob.guid import BlobGuid, GuidLike

EXAMPLES = """\
  uringblob copy frames.blobs moved.blobs
  uringblob copy frames.blobs larger.blobs --page-size 1m --pad
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_store(parser, "SRC")
    parser.add_argument("target", metavar="DST", help="path or URL of the new store")
    parser.add_argument(
        "--page-size",
        type=parse_size,
        metavar="SIZE",
        help="frame size of DST: a larger one needs --pad; a smaller one is possible only while SRC is empty, "
        "because a frame is not divided",
    )
    parser.add_argument(
        "--compact", action="store_true", help="leave no room in DST to grow into, and say what that saves"
    )
    parser.add_argument("--pad", action="store_true", help="fill each frame with zeros up to --page-size")
    add_rate(parser)


def run(args: argparse.Namespace) -> int:
    """Copy a snapshot of SRC into a store that holds nothing else; interrupted, the next call goes on."""
    with open_store(args, read_only=True) as store:
        refuse_incomplete(store, args.store)
        refuse_blobs(args, args.target, "give another DST; 'uringblob backup' brings a copy up to date")
        size = store.page_size if args.page_size is None else args.page_size
        source = store if size == store.page_size else _resized(args, store, size)
        code = copy_store(args, source, args.target, name=args.target, what="copying")
    in_bucket = any(map(is_url, (args.store, args.target)))
    if args.compact and code == EXIT_OK and not in_bucket:
        with open_path(args, args.target, read_only=False) as copy:
            copy.vacuum()
    if args.compact and not args.json and not in_bucket:
        before, after = (size_text(os.stat(path).st_size) for path in (args.store, args.target))
        print_line(f"{encodable(args.target)} has {after}, {encodable(args.store)} has {before}")
    return code


def _resized(args: argparse.Namespace, store: OpenStore, size: int) -> BlobStore:
    if len(store) and size < store.page_size:
        text = (
            f"{args.store} has frames of {store.page_size} bytes, which a store of --page-size {size} cannot hold: "
            "give that size or a larger one"
        )
        raise CliError(text, EXIT_USAGE, path=args.store)
    if len(store) and not args.pad:
        text = (
            f"{args.store} has frames of {store.page_size} bytes, and a frame of DST would have {size}: "
            "--pad fills them with zeros"
        )
        raise CliError(text, EXIT_USAGE, path=args.store)
    return _PaddedStore(store, size, args.engine)


class _PaddedStore(CopySource):
    """The frames of a store, each with zeros behind it."""

    def __init__(self, store: OpenStore, page_size: int, engine: str) -> None:
        super().__init__(page_size, engine)
        self._store = store

    def read_blob(self, guid: GuidLike, dst: BlobBuffer) -> None:
        with writable_view(dst, self._page_size) as view:
            size = self._store.page_size
            view[size:] = bytes(self._page_size - size)
            with view[:size] as frame:
                self._store.read_blob(guid, frame)

    def list_blobs(self) -> list[BlobGuid]:
        return self._store.list_blobs()

    def has_blob(self, guid: GuidLike) -> bool:
        return self._store.has_blob(guid)

    def stat_blob(self, guid: GuidLike) -> BlobStat:
        return dataclasses.replace(super().stat_blob(guid), meta=self._store.stat_blob(guid).meta)
