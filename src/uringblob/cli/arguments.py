"""Arguments that commands share, and the store that they name."""

from __future__ import annotations

import argparse
import errno
import os
import re
from typing import TYPE_CHECKING, Union

from uringblob.cli.errors import EXIT_FAILED, EXIT_USAGE, CliError
from uringblob.guid import GUID_SIZE, BlobGuid, is_guid_text
from uringblob.sync.file_store import FileBlobStore
from uringblob.units import ENGINES

if TYPE_CHECKING:
    from uringblob.remote.sync_store import RemoteBlobStore

OpenStore = Union[FileBlobStore, "RemoteBlobStore"]

_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def add_store(
    parser: argparse.ArgumentParser,
    metavar: str = "STORE",
    text: str = "path of the store file, or s3://BUCKET/PREFIX",
) -> None:
    """Add the store's path and the options of opening it."""
    parser.add_argument("store", metavar=metavar, help=text)
    add_engine(parser)
    parser.add_argument(
        "--lock-timeout",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how long to wait for another opener (default 5)",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add ``--engine``."""
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="default: the best that works here")


def open_store(args: argparse.Namespace, *, read_only: bool) -> OpenStore:
    """Open the store that the command line names; it must exist."""
    return open_path(args, args.store, read_only=read_only)


def open_path(args: argparse.Namespace, path: str, *, read_only: bool) -> OpenStore:
    """Open the store at ``path`` or URL, which must exist, with the options of the command line."""
    if is_url(path):
        try:
            return open_url(path, create=False, read_only=read_only)
        except FileNotFoundError:
            raise _no_store(path) from None
    must_exist(path)
    options = {"engine": args.engine, "lock_timeout": args.lock_timeout}
    return FileBlobStore.open(path, create=False, read_only=read_only, **options)


def open_to_change(args: argparse.Namespace) -> OpenStore:
    """Open the store to change single blobs: a tier's local file is refused, where that would not last."""
    store = open_store(args, read_only=False)
    if isinstance(store, FileBlobStore):
        from uringblob.tiered.local_file import tier_of

        if tier_of(store) is not None:
            store.close()
            raise CliError(
                f"{args.store} is the local file of a tier: a blob that is deleted in it alone comes back from the "
                "bucket, and one that is written is taken for the tier's own: open it with TieredBlobStore",
                EXIT_FAILED,
                path=args.store,
            )
    return store


def is_url(path: str) -> bool:
    """Whether ``path`` is the URL of a bucket (or no URL that a store can have), and no path of a file."""
    return re.match("[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def must_exist(path: str) -> None:
    """Raise ``FileNotFoundError``, which names ``uringblob create``, if there is nothing at ``path``.

    What is in a bucket is known when it is opened.
    """
    if not is_url(path) and not os.path.lexists(path):
        raise _no_store(path)


def _no_store(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "there is no store; 'uringblob create' makes one", path)


def open_url(
    url: str, *, create: bool = True, read_only: bool = False, page_size: int | None = None
) -> RemoteBlobStore:
    """Open the store in a bucket that ``url`` names."""
    try:
        from uringblob.remote.sync_store import RemoteBlobStore

        return RemoteBlobStore.open(url, create=create, read_only=read_only, page_size=page_size)
    except ModuleNotFoundError as missing:
        raise CliError(str(missing), EXIT_FAILED, path=url) from missing


def must_be_file(path: str, command: str) -> None:
    """Raise if ``path`` is the URL of a bucket."""
    if is_url(path):
        raise CliError(f"{path} is no path: 'uringblob {command}' needs a store file", EXIT_USAGE, path=path)


def parse_guid(text: str) -> BlobGuid:
    """Return the guid that ``text`` spells: 32 hex digits, or the 8-4-4-4-12 form of a UUID."""
    if not is_guid_text(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no guid: give {2 * GUID_SIZE} hex digits or a UUID")
    return BlobGuid(text)


def parse_size(text: str) -> int:
    """Return a size in bytes: ``512k``, ``1GiB`` or a plain number."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?)([kmg]?)(?:ib|b)?", text.lower())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 4096, 512k, 1GiB")
    return int(float(found[1]) * _SIZE_UNITS[found[2]])


def parse_mode(text: str) -> int:
    """Return octal permission bits."""
    if not re.fullmatch("[0-7]{1,4}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no mode: write octal digits, such as 640")
    return int(text, 8)
