"""``uringblob copy``: a new store with the same blobs, of another frame size too."""

from __future__ import annotations

import argparse
import dataclasses
import os

from uringblob.api.blob_stat import BlobStat
from uringblob.api.open_options import StorePath
from uringblob.api.sync_store import BlobStore
from uringblob.buffers.views import BlobBuffer, writable_view
from uringblob.cli.arguments import OpenStore, add_store, is_url, open_store, parse_size
from uringblob.cli.copying import add_rate, copy_store, refuse_blobs, refuse_incomplete
from uringblob.cli.errors import EXIT_USAGE, CliError
from uringblob.cli.output import size_text
from uringblob.cli.stdio import print_line
from uringblob.errors import StoreReadOnly, encodable
from uringblob.guid import BlobGuid, GuidLike
from uringblob.sync.file_store import FileBlobStore

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
        "--compact", action="store_true", help="say what DST saves: a copy has what is live and no more"
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
    if args.compact and not args.json and not any(map(is_url, (args.store, args.target))):
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


class _PaddedStore(BlobStore):
    """The frames of a store, each with zeros behind it."""

    def __init__(self, store: OpenStore, page_size: int, engine: str) -> None:
        self._store = store
        self._engine = engine
        self._page_size = page_size

    @property
    def page_size(self) -> int:
        return self._page_size

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

    def write_blob(self, guid: GuidLike, src: BlobBuffer, meta: bytes = b"") -> None:  # noqa: ARG002 - the trait's
        raise StoreReadOnly(f"{self!r} is only read")

    def delete_blob(self, guid: GuidLike) -> None:  # noqa: ARG002 - the trait's signature
        raise StoreReadOnly(f"{self!r} is only read")

    def flush(self) -> None:
        """Do nothing."""

    def _open_backup(self, path: StorePath) -> BlobStore:
        return FileBlobStore.open(path, page_size=self._page_size, engine=self._engine)
