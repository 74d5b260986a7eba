"""``uringblob rm``: delete blobs, all or none."""

from __future__ import annotations

import argparse
import sys

from uringblob.cli import exits
from uringblob.cli.errors import CliError
from uringblob.cli.guids import parse_guid
from uringblob.cli.opening import add_store, must_exist, open_store
from uringblob.cli.output import Output
from uringblob.cli.stdio import STDIN, named, read_whole_input
from uringblob.guid import BlobGuid

HELP = "delete blobs, durably, all of them or none"
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
    parser.add_argument("-f", "--force", action="store_true", help="do not mind names that are not there")


def run(args: argparse.Namespace, out: Output) -> int:
    """Delete in one commit; a name that is not there stops it before anything is deleted.

    Standard input is read before the store is opened: it may come from a command that opens it, too.
    """
    must_exist(args.store)
    if not args.guids and not args.stdin:
        raise CliError("no GUID is given: name some, or give --stdin", exits.USAGE)
    asked = [*args.guids, *(_read_guids() if args.stdin else ())]
    with open_store(args, read_only=False) as store:
        unique = list(dict.fromkeys(asked))
        there = [guid for guid in unique if store.has_blob(guid)]
        missing = [guid for guid in unique if not store.has_blob(guid)]
        if missing and not args.force:
            text = (
                f"no blob {missing[0]} in {args.store}; nothing was deleted: 'uringblob ls' names the blobs, "
                "--force passes over names that are not there"
            )
            raise CliError(text, exits.NO, guid=missing[0])
        if there:
            store.commit(deletes=there)
    out.result({"deleted": [str(guid) for guid in there], "missing": [str(guid) for guid in missing]})
    return exits.OK


def _read_guids() -> list[BlobGuid]:
    with named(STDIN):
        lines = (
            read_whole_input(sys.stdin.buffer, sys.maxsize).decode("utf-8", "backslashreplace").splitlines()
        )
    guids = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                guids.append(parse_guid(line.strip()))
            except argparse.ArgumentTypeError as error:
                text = f"{STDIN}, line {number}: {error}; nothing was deleted"
                raise CliError(text, exits.USAGE, path=STDIN) from error
    return guids
