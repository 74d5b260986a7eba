"""``uringblob rm``: delete blobs, all or none."""

from __future__ import annotations

import argparse
import sys

from uringblob.cli.arguments import add_store, must_exist, open_to_change, parse_guid
from uringblob.cli.errors import EXIT_NO, EXIT_OK, EXIT_USAGE, CliError
from uringblob.cli.output import print_result
from uringblob.cli.stdio import STDIN, naming_file, read_all
from uringblob.guid import BlobGuid

EXAMPLES = """\
  uringblob rm frames.blobs 6f9619ff-8b86-d011-b42d-00cf4fc964ff
  uringblob ls frames.blobs | head -1000 | uringblob rm frames.blobs --stdin
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_store(parser)
    parser.add_argument("guids", type=parse_guid, metavar="GUID", nargs="*", help="hex or UUID")
    parser.add_argument(
        "--stdin", action="store_true", help="read more of them from standard input, one a line"
    )
    parser.add_argument("-f", "--force", action="store_true", help="ignore names that are not there")


def run(args: argparse.Namespace) -> int:
    """Delete in one commit, or nothing where a name is not there.

    Standard input is read before the store is opened, because it may come from a command that opens the
    same store.
    """
    must_exist(args.store)
    if not args.guids and not args.stdin:
        raise CliError("no GUID is given: name some, or give --stdin", EXIT_USAGE)
    guids = dict.fromkeys([*args.guids, *(_read_guids() if args.stdin else ())])
    with open_to_change(args) as store:
        there = [guid for guid in guids if store.has_blob(guid)]
        missing = [guid for guid in guids if not store.has_blob(guid)]
        if missing and not args.force:
            text = (
                f"no blob {missing[0]} in {args.store}; nothing was deleted: 'uringblob ls' names the blobs, "
                "--force passes over names that are not there"
            )
            raise CliError(text, EXIT_NO, guid=missing[0])
        if there:
            store.commit(deletes=there)
    result = {"deleted": [str(guid) for guid in there], "missing": [str(guid) for guid in missing]}
    print_result(args, result)
    return EXIT_OK


def _read_guids() -> list[BlobGuid]:
    with naming_file(STDIN):
        text = read_all(sys.stdin.buffer, sys.maxsize).decode("utf-8", "backslashreplace")
    guids = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                guids.append(parse_guid(line.strip()))
            except argparse.ArgumentTypeError as error:
                message = f"{STDIN}, line {number}: {error}; nothing was deleted"
                raise CliError(message, EXIT_USAGE, path=STDIN) from error
    return guids
