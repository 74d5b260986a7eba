"""``uringblob repair``: save what can be saved of a damaged store."""

from __future__ import annotations

import argparse

from uringblob.cli.arguments import add_store, must_be_file, must_exist
from uringblob.cli.errors import EXIT_NO, EXIT_OK
from uringblob.cli.output import print_result, progress_bar, size_text
from uringblob.errors import encodable
from uringblob.salvage.repair import RepairReport, repair

EXAMPLES = """\
  uringblob repair broken.blobs saved.blobs
  uringblob repair broken.blobs saved.blobs --json | jq -r '.lost[].guid'
"""
EXIT_CODES = """\
exit codes:
  0    every blob was saved as it last was, for certain
  1    what could be saved was saved; the output names what is lost, missing or perhaps out of date
  2    wrong usage
  3    nothing can be saved, a writer has STORE open, TARGET exists, or an I/O failed
  130  interrupted
after 2, 3 or 130 TARGET, if it was made, is not whole: remove it; STORE is never changed
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_store(parser)
    parser.add_argument("target", metavar="TARGET", help="path of the new store")
    parser.add_argument(
        "--older",
        action="store_true",
        help="where a blob's newest frame is damaged, save the newest one that is intact: data that was replaced",
    )
    parser.add_argument(
        "--store-id",
        type=bytes.fromhex,
        metavar="HEX",
        help="which store to save, where an error says that log blocks of several are there",
    )


def run(args: argparse.Namespace) -> int:
    """Save what can be saved, and report the rest."""
    must_be_file(args.store, "repair")
    must_exist(args.store)
    with progress_bar(args, "saving") as progress:
        report = repair(
            args.store,
            args.target,
            older=args.older,
            store_id=args.store_id,
            engine=args.engine,
            lock_timeout=args.lock_timeout,
            progress=progress,
        )
    value = {
        "complete": report.complete,
        "target": args.target,
        "page_size": report.page_size,
        "saved": report.saved,
        "lost": [
            {"guid": str(blob.guid), "slot": blob.slot, "offset": blob.offset, "error": blob.why}
            for blob in report.lost
        ],
        "missing_groups": [list(gap) for gap in report.gaps],
        "last_group": report.last_group,
        "end_known": report.end_known,
        "unproved": [str(guid) for guid in report.unproved],
        "older": [str(guid) for guid in report.older],
        "notes": list(report.notes),
    }
    print_result(args, value, _text(args.target, report))
    return EXIT_OK if report.complete else EXIT_NO


def _text(target: str, report: RepairReport) -> str:
    lines = [f"{encodable(target)}: {report.saved} blobs saved, of {size_text(report.page_size)} each"]
    lines += report.notes
    lines += [
        f"lost: {blob.guid}, slot {blob.slot} (offset {blob.offset}): {blob.why}" for blob in report.lost
    ]
    lines += [f"older: {guid} is saved in a version before the damaged one" for guid in report.older]
    lines += [f"missing: groups {first} to {last} of the log cannot be read" for first, last in report.gaps]
    if report.unproved:
        lines.append(
            f"{len(report.unproved)} of the saved blobs may have been replaced or deleted by a missing group:"
        )
        lines += [f"unproved: {guid}" for guid in report.unproved]
    return "\n".join(lines)
