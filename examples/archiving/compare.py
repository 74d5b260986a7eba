"""Two trees, file by file: names, kinds, modes, link targets, and every file's SHA-256."""

from __future__ import annotations

import hashlib
import os

from archiving.concurrency import for_each, in_thread
from archiving.tree import FILE, Entry, Tree

HASHES_AT_ONCE = 4
CHUNK_SIZE = 1 << 20


async def differences(left_root: str, left: Tree, right_root: str, right: Tree) -> list[str]:
    """Return one line for each difference between the trees; empty if they are equal."""
    mine = {entry.path: entry for entry in left.entries}
    theirs = {entry.path: entry for entry in right.entries}
    found = [f"only in {left_root}: {path}" for path in mine.keys() - theirs.keys()]
    found += [f"only in {right_root}: {path}" for path in theirs.keys() - mine.keys()]
    common = sorted(mine.keys() & theirs.keys())
    found += [f"not alike: {mine[path]} and {theirs[path]}" for path in common if mine[path] != theirs[path]]

    async def compare_contents(entry: Entry) -> None:
        ours, other = await in_thread(_digests, entry.path, left_root, right_root)
        if ours != other:
            found.append(f"contents differ: {entry.path}: SHA-256 {ours} and {other}")

    files = [mine[path] for path in common if mine[path].kind == theirs[path].kind == FILE]
    await for_each(files, compare_contents, at_once=HASHES_AT_ONCE)
    return sorted(found)


def _digests(path: str, *roots: str) -> tuple[str, ...]:
    return tuple(sha256_of(os.path.join(root, path)) for root in roots)


def sha256_of(path: str) -> str:
    """Return the SHA-256 of a file's contents in hex."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK_SIZE):
            digest.update(chunk)
    return digest.hexdigest()
