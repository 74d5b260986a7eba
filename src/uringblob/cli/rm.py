"""``uringblob rm``: delete blobs, all or none."""

from __future__ import annotations

import argparse

from uringblob.cli import exits
from uringblob.cli.guids import parse_guid
from uringblob.cli.opening import add_store, open_store
from uringblob.cli.output import Output
from uringblob.failures import CommandFailed

HELP = "delete blobs, durably, all of them or none"
EXAMPLES = """\
  uringblob rm frames.blobs 6f9619ff-8b86-d011-b42d-00cf4fc964ff
  uringblob ls frames.blobs | xargs uringblob rm frames.blobs --force
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_store(parser)
    parser.add_argument("guids", type=parse_guid, metavar="GUID", nargs="+", help="hex or UUID")
    parser.add_argument("-f", "--force", action="store_true", help="do not mind names that are not there")


def run(args: argparse.Namespace, out: Output) -> int:
    """Delete in one commit; a name that is not there stops it before anything is deleted."""
    with open_store(args, read_only=False) as store:
        named = list(dict.fromkeys(args.guids))
        there = [guid for guid in named if store.has_blob(guid)]
        missing = [guid for guid in named if not store.has_blob(guid)]
        if missing and not args.force:
            text = f"no blob {missing[0]} in {args.store}; nothing was deleted"
            raise CommandFailed(text, exits.NO, guid=missing[0])
        store.commit(deletes=there)
    out.result({"deleted": [str(guid) for guid in there], "missing": [str(guid) for guid in missing]})
    return exits.OK
