"""The arguments that commands share, and the store they open."""

from __future__ import annotations

import argparse
import errno
import os

from uringblob.sync.file_store import FileBlobStore
from uringblob.units import ENGINES


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the store's path and the options of opening it."""
    parser.add_argument("store", metavar="STORE", help="path of the store file")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="default: the best that works here")
    parser.add_argument(
        "--lock-timeout",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how long to wait for another opener (default 5)",
    )


def open_store(args: argparse.Namespace, *, read_only: bool) -> FileBlobStore:
    """Open the store that the command line names; it must exist.

    Raises what :meth:`uringblob.FileBlobStore.open` raises.
    """
    must_exist(args.store)
    return FileBlobStore.open(
        args.store,
        create=False,
        read_only=read_only,
        engine=args.engine,
        lock_timeout=args.lock_timeout,
    )


def must_exist(path: str) -> None:
    """Say how to make the store where there is none.

    :raises FileNotFoundError: there is nothing at ``path``.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(errno.ENOENT, "there is no store; 'uringblob create' makes one", path)
