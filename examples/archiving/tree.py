"""What is in a directory tree: directories, files and symbolic links, with their modes."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Collection

DIRECTORY, FILE, SYMLINK = "directory", "file", "symlink"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One name in a tree.

    ``path`` is relative to the root, ``mode`` the permission bits (0 for a symbolic link, which
    has none of its own), ``size`` a file's length in bytes, ``target`` where a link points.
    ``start`` is where the archive keeps a file: the offset of its first byte in the row of
    frames, or -1 outside an archive.
    """

    path: str
    kind: str
    mode: int = 0
    size: int = 0
    target: str = ""
    start: int = -1


@dataclasses.dataclass(frozen=True)
class Tree:
    """A scanned tree: entries in path order (so parents come first), and what was skipped."""

    entries: list[Entry]
    left_out: list[str]

    @property
    def bytes(self) -> int:
        """The bytes of all files together."""
        return sum(entry.size for entry in self.entries)

    def count(self, kind: str) -> int:
        """Return how many entries are of ``kind``."""
        return sum(entry.kind == kind for entry in self.entries)


def scan(root: str, skip: Collection[str] = ()) -> Tree:
    """List the tree under ``root`` without following links.

    Directories with a name in ``skip``, and what is neither file, directory nor link (sockets,
    devices), are passed over and named in ``left_out``.

    :raises OSError: something cannot be looked at.
    """
    entries: list[Entry] = []
    left_out: list[str] = []
    waiting = [""]
    while waiting:
        parent = waiting.pop()
        with os.scandir(os.path.join(root, parent)) as found:
            for item in found:
                path = os.path.join(parent, item.name)
                is_directory = item.is_dir(follow_symlinks=False)
                entry = None if is_directory and item.name in skip else entry_at(root, path)
                if entry is None:
                    left_out.append(path)
                    continue
                entries.append(entry)
                if is_directory:
                    waiting.append(path)
    return Tree(sorted(entries, key=lambda entry: entry.path), sorted(left_out))


def entry_at(root: str, path: str) -> Entry | None:
    """Return the entry of ``path`` under ``root``; ``None`` for sockets, devices and the like."""
    full_path = os.path.join(root, path)
    status = os.lstat(full_path)
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, SYMLINK, target=os.readlink(full_path))
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, DIRECTORY, stat.S_IMODE(status.st_mode))
    if stat.S_ISREG(status.st_mode):
        return Entry(path, FILE, stat.S_IMODE(status.st_mode), status.st_size)
    return None
