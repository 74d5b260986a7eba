"""What the commands that copy stores share: what they may overwrite, the run, the report."""

from __future__ import annotations

import argparse
import os

from uringblob.api.backup import INCOMPLETE
from uringblob.api.open_options import StorePath
from uringblob.api.sync_store import BlobStore
from uringblob.cli.arguments import is_url, open_path, open_url, parse_size
from uringblob.cli.errors import EXIT_NO, EXIT_OK, EXIT_USAGE, CliError
from uringblob.cli.output import print_result, progress_bar, size_text
from uringblob.errors import encodable
from uringblob.guid import BlobGuid
from uringblob.sync.file_store import FileBlobStore


def add_rate(parser: argparse.ArgumentParser) -> None:
    """Add ``--rate``."""
    parser.add_argument(
        "--rate", type=parse_size, metavar="SIZE", help="bytes per second to copy at most, such as 50m"
    )


def add_replace(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--replace``."""
    parser.add_argument("--replace", action="store_true", help=text)


def complete_blobs(args: argparse.Namespace, path: str) -> list[BlobGuid]:
    """Return the blobs of the store at ``path``; none where there is no store, or an incomplete copy."""
    if not is_url(path) and not os.path.exists(path):
        return []
    try:
        with open_path(args, path, read_only=True) as store:
            return [] if store.has_blob(INCOMPLETE) else store.list_blobs()
    except FileNotFoundError:
        if is_url(path):
            return []
        raise


class Destination(os.PathLike[str]):
    """A path or a URL that opens itself: where source or target of a copy are in a bucket."""

    def __init__(self, args: argparse.Namespace, path: str, page_size: int) -> None:
        self._args, self._path, self._page_size = args, path, page_size

    def __fspath__(self) -> str:
        return self._path

    def __call__(self) -> BlobStore:
        """Open the store, made if there is none."""
        if is_url(self._path):
            return open_url(self._path, page_size=self._page_size)
        return FileBlobStore.open(self._path, page_size=self._page_size, engine=self._args.engine)


def refuse_blobs(args: argparse.Namespace, path: str, remedy: str) -> None:
    """Raise if the store at ``path`` holds blobs that are no rest of an interrupted copy."""
    blobs = complete_blobs(args, path)
    if blobs:
        raise CliError(f"{path} is a store of {len(blobs)} blobs: {remedy}", EXIT_USAGE, path=path)


def refuse_incomplete(store: BlobStore, path: str) -> None:
    """Raise if ``store`` is a backup that did not come to its end."""
    if store.has_blob(INCOMPLETE):
        text = (
            f"{path} is an incomplete backup: run the backup again. If its source is lost, "
            f"'uringblob rm {path} {INCOMPLETE}' makes a store of what is there"
        )
        raise CliError(text, EXIT_NO, path=path)


def copy_store(
    args: argparse.Namespace, store: BlobStore, target: BlobStore | StorePath, *, name: str, what: str
) -> int:
    """Copy ``store`` into ``target``, print the report, and return the exit code.

    :param name: the target, for people.
    """
    if isinstance(target, str) and (is_url(target) or is_url(getattr(store, "path", ""))):
        target = Destination(args, target, store.page_size)
    with progress_bar(args, what) as progress:
        report = store.backup(target, progress, getattr(args, "rate", None))
    value = {
        "ok": report.ok,
        "target": name,
        "copied": report.copied,
        "skipped": report.skipped,
        "deleted": report.deleted,
        "bytes": report.bytes,
        "bad": [
            {"guid": str(guid), "error": str(error), "offset": getattr(error, "offset", None)}
            for guid, error in report.bad
        ],
    }
    text = f"{report} ({size_text(report.bytes)} of frames)" if report.ok else _incomplete(str(report), name)
    print_result(args, value, text)
    return EXIT_OK if report.ok else EXIT_NO


def _incomplete(report: str, name: str) -> str:
    return (
        f"{report}\n{encodable(name)} is incomplete, or still the earlier backup if it was one: write these "
        "blobs again or delete them, and run the command again"
    )
