"""``uringblob import-holt``: copy the blobs of a directory of holt into a store."""

from __future__ import annotations

import argparse

from uringblob.cli.arguments import add_engine, must_be_file
from uringblob.cli.errors import EXIT_NO, EXIT_OK
from uringblob.cli.output import print_result, progress_bar
from uringblob.errors import encodable
from uringblob.holt import import_holt, read_manifest
from uringblob.sync.file_store import FileBlobStore
from uringblob.units import PAGE_SIZE

EXAMPLES = """\
  uringblob import-holt /srv/holt frames.blobs
  uringblob import-holt /srv/holt frames.blobs --json | jq -r '.bad[].guid'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("directory", metavar="DIR", help="holt's directory, which no program may have open")
    parser.add_argument("target", metavar="TARGET", help="path of the store; it is made if there is none")
    add_engine(parser)


def run(args: argparse.Namespace) -> int:
    """Import, and name each blob that could not be."""
    must_be_file(args.target, "import-holt")
    read_manifest(args.directory)  # before a store is made for nothing
    options = {"page_size": PAGE_SIZE, "engine": args.engine}
    with FileBlobStore.open(args.target, **options) as store, progress_bar(args, "importing") as progress:
        report = import_holt(args.directory, store, progress)
    value = {
        "ok": report.ok,
        "imported": report.imported,
        "skipped": report.skipped,
        "bad": [{"guid": str(guid), "error": str(error)} for guid, error in report.bad],
        "torn_bytes": report.torn_bytes,
    }
    lines = [
        f"{encodable(args.target)}: {report.imported} blobs imported, {report.skipped} were there already"
    ]
    if report.torn_bytes:
        lines.append(f"the last record of manifest.log is incomplete: {report.torn_bytes} bytes are left out")
    lines += [f"bad: {guid}: {error}" for guid, error in report.bad]
    print_result(args, value, "\n".join(lines))
    return EXIT_OK if report.ok else EXIT_NO
