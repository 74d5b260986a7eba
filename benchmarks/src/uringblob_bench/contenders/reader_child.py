"""A process that has a store open for reading, and goes on to its newest state now and then."""

from __future__ import annotations

import select
import sys

from uringblob import FileBlobStore

REFRESH_S = 1.0
READY = b"ready\n"


def main(path: str) -> None:
    """Read until standard input ends."""
    with FileBlobStore.open(path, read_only=True) as store:
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()
        while not select.select([sys.stdin], [], [], REFRESH_S)[0]:
            store.refresh()


if __name__ == "__main__":
    main(sys.argv[1])
