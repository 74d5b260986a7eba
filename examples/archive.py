"""Archive a directory tree in a blob store, restore it elsewhere, and compare.

    python examples/archive.py                         this Python's standard library
    python examples/archive.py --source DIR --store FILE --engine pread --page-size 65536

Files are packed into frames one behind the other; a catalogue of what lies where is kept in
frames too.  Many tasks write durable batches at once; the last one makes the archive visible,
whole.  Then the store is closed and opened again, the tree restored into another directory, and
every file compared by SHA-256.  Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence

from archiving.catalogue import ArchiveError
from archiving.compare import differences
from archiving.pack import Packer
from archiving.progress import MEGABYTE, Progress
from archiving.restore import Restorer
from archiving.tree import DIRECTORY, FILE, SYMLINK, Tree, scan
from uringblob import AsyncFileBlobStore, BlobStoreError, StoreStats

#: Not part of the standard library: other packages, and caches that a running Python rewrites.
STDLIB_SKIP = ("__pycache__", "site-packages", "dist-packages")
DIFFERENCES_SHOWN = 20


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description="Archive a tree in a blob store, restore it, compare.")
    parser.add_argument("--source", help="the tree to archive (default: this Python's standard library)")
    parser.add_argument("--store", help="the store file, kept afterwards (default: a temporary one)")
    parser.add_argument("--engine", default="auto", choices=["auto", "io_uring", "pread"])
    parser.add_argument("--page-size", type=int, help="bytes in a frame of a new store (default: 524288)")
    parser.add_argument("--keep", action="store_true", help="keep the store and the restored tree")
    return parser.parse_args(arguments)


@contextlib.contextmanager
def scratch_directory(keep: bool) -> Iterator[str]:
    """Yield a new directory, on a real disk where /tmp may be memory; removed unless ``keep``."""
    parent = None if os.environ.get("TMPDIR") or not os.access("/var/tmp", os.W_OK) else "/var/tmp"
    path = tempfile.mkdtemp(prefix="uringblob-archive-", dir=parent)
    try:
        yield path
    finally:
        if keep:
            print(f"kept       {path}")
        else:
            remove_tree(path)


def remove_tree(path: str) -> None:
    """Remove a tree, directories without write permission included."""
    for directory, _names, _files in os.walk(path):
        os.chmod(directory, 0o700)
    shutil.rmtree(path)


def describe_source(source: str, tree: Tree, skip: Sequence[str]) -> None:
    """Print what will be archived."""
    counts = f"{tree.count(FILE)} files, {tree.count(DIRECTORY)} directories, {tree.count(SYMLINK)} links"
    print(f"source     {source}: {counts}, {tree.bytes / MEGABYTE:.1f} MB")
    if tree.left_out:
        what = f"every {', '.join(skip)}" if skip else ", ".join(tree.left_out[:DIFFERENCES_SHOWN])
        print(f"           left out: {what} ({len(tree.left_out)} in all)")


def describe_store(path: str, stats: StoreStats) -> None:
    """Print which engine runs, why, and with which buffers."""
    print(f"store      {path}, frames of {stats.page_size} bytes")
    print(f"engine     {stats.engine} ({stats.engine_reason})")
    access = "O_DIRECT" if stats.direct_io else "buffered I/O"
    print(f"           {access}, {stats.buffers_registered} of {stats.buffers} buffers registered")
    if stats.buffers_reason:
        print(f"           {stats.buffers_reason}")


async def pack(path: str, source: str, tree: Tree, options: argparse.Namespace) -> None:
    """Write the archive and print the figures."""
    async with AsyncFileBlobStore.open(path, engine=options.engine, page_size=options.page_size) as store:
        before = store.stats()
        describe_store(path, before)
        with Progress("packing", tree.bytes) as progress:
            batches = await Packer(store, source, progress.add).pack(tree.entries)
        after = store.stats()
    enters = (after.ring_enters - before.ring_enters) / batches
    syncs = after.syncs - before.syncs
    print(
        f"packed     {tree.bytes / MEGABYTE:.1f} MB in {progress.seconds:.2f} s: {progress.rate:.0f} MB/s in"
    )
    print(f"           {batches} durable batches, {syncs} device flushes, {enters:.1f} ring enters per batch")


async def restore(path: str, destination: str, total: int, options: argparse.Namespace) -> None:
    """Open the store again, restore the tree and print the figures."""
    async with AsyncFileBlobStore.open(path, engine=options.engine, create=False) as store:
        with Progress("restoring", total) as progress:
            await Restorer(store, destination, progress.add).restore()
    print(f"restored   {total / MEGABYTE:.1f} MB in {progress.seconds:.2f} s: {progress.rate:.0f} MB/s out")


async def run(options: argparse.Namespace, scratch: str) -> int:
    """Archive, restore, compare; return the number of differences."""
    source = options.source or sysconfig.get_path("stdlib")
    skip = () if options.source else STDLIB_SKIP
    path = options.store or os.path.join(scratch, "archive.blobs")
    destination = os.path.join(scratch, "restored")
    os.mkdir(destination)

    tree = scan(source, skip)
    describe_source(source, tree, skip)
    await pack(path, source, tree, options)
    await restore(path, destination, tree.bytes, options)
    # The source is scanned again: the restored tree must equal what is there now.
    found = await differences(source, scan(source, skip), destination, scan(destination))
    for line in found[:DIFFERENCES_SHOWN]:
        print(f"DIFFERENT  {line}")
    verdict = f"{len(found)} DIFFERENCES" if found else "no difference"
    print(f"compared   {len(tree.entries)} names, modes and links, {tree.count(FILE)} SHA-256: {verdict}")
    return len(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 only if the restored tree equals the source."""
    options = parse_arguments(arguments)
    with scratch_directory(options.keep) as scratch:
        try:
            return 1 if asyncio.run(run(options, scratch)) else 0
        except (BlobStoreError, ArchiveError, OSError, ValueError) as error:
            print(f"archive: {type(error).__name__}: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
