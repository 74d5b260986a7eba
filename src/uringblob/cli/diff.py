"""``uringblob diff``: which blobs two stores do not share."""

from __future__ import annotations

import argparse

from uringblob.cli.arguments import add_store, open_path, open_store
from uringblob.cli.errors import EXIT_NO, EXIT_OK
from uringblob.cli.output import print_result

EXAMPLES = """\
  uringblob diff frames.blobs /mnt/backup/frames.blobs && echo equal
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_store(parser, "A")
    parser.add_argument("other", metavar="B", help="path or URL of the other one")


def run(args: argparse.Namespace) -> int:
    """Compare guids and checksums as the two maps have them; no frame is read (``verify`` does that).

    A line ``-`` is a blob of A alone, ``+`` of B alone, ``!`` of both with different frames.  The exit codes
    are those of diff(1): 0 equal, 1 different, more is trouble.
    """
    with open_store(args, read_only=True) as a, open_path(args, args.other, read_only=True) as b:
        in_a, in_b = set(a.list_blobs()), set(b.list_blobs())
        same_size = a.page_size == b.page_size
        different = [
            guid for guid in sorted(in_a & in_b) if not same_size or a.checksum(guid) != b.checksum(guid)
        ]
        sizes = [a.page_size, b.page_size]
    marks = {"-": sorted(in_a - in_b), "+": sorted(in_b - in_a), "!": different}
    equal = same_size and not any(marks.values())
    value = {
        "equal": equal,
        "page_sizes": sizes,
        **{
            name: [str(guid) for guid in guids]
            for name, guids in zip(("only_in_a", "only_in_b", "different"), marks.values(), strict=True)
        },
    }
    lines = [f"{mark} {guid}" for mark, guids in marks.items() for guid in guids]
    if not same_size:
        lines.insert(0, f"frames of {sizes[0]} bytes in A, of {sizes[1]} in B")
    print_result(args, value, "\n".join(lines))
    return EXIT_OK if equal else EXIT_NO
