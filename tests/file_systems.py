"""File systems of a test's own, in a file through a loop device: which of them there are, full, over quota.

Each is a context manager that yields the mounted directory and leaves no mount, no loop device and no
image behind.  Where a machine cannot have one, the test is skipped with the reason.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from behaviour.mounts import MIB, ext4, mounted, tmpfs

__all__ = [
    "MIB",
    "btrfs",
    "copy_sharing_blocks",
    "ext4",
    "fill_to_the_last_block",
    "full_steps",
    "mounted",
    "quota_of",
    "snapshot_below",
    "tmpfs",
    "xfs",
]

#: The least that mkfs makes one of.
BTRFS_MIN = 128 * MIB
XFS_MIN = 300 * MIB


def btrfs(directory, size=BTRFS_MIN, *options):
    """A btrfs of ``size`` bytes; its metadata are kept once, so that most of it is for data."""
    make = ["mkfs.btrfs", "-q", "-f", "-m", "single"]
    return _in_image(directory, size, "btrfs", make, "btrfs-progs", options)


def xfs(directory, size=XFS_MIN, *options):
    """An xfs of ``size`` bytes in which files can share blocks."""
    return _in_image(directory, size, "xfs", ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"], "xfsprogs", options)


@contextlib.contextmanager
def _in_image(directory, size, kind, make, package, options) -> Iterator[pathlib.Path]:
    if shutil.which(make[0]) is None:
        pytest.skip(f"no {make[0]} here (Debian: {package})")
    image = directory.with_suffix(".image")
    with open(image, "wb") as file:
        file.truncate(size)
    try:
        run([*make, image])
        with mounted(directory, kind, "loop", *options, source=str(image)):
            yield directory
    finally:
        image.unlink()


def run(command) -> str:
    """Run a command that must succeed; returns what it printed."""
    ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise AssertionError(f"{command}: {ran.stderr.strip() or ran.stdout.strip()}")
    return ran.stdout


def fill_to_the_last_block(directory, name="ballast") -> pathlib.Path:
    """Take all room there is; returns the file that has it: unlink it to free the room.

    What it holds cannot be compressed, and it is flushed, so that nothing waits for its room.
    """
    ballast = directory / name
    with open(ballast, "ab", buffering=0) as file:
        for _ in range(2):  # what the first flush shows to be free
            for step in (MIB, 65536, 4096):
                _append_until_full(file, step)
            with contextlib.suppress(OSError):
                os.fsync(file.fileno())
    return ballast


def _append_until_full(file, step) -> None:
    try:
        while file.write(os.urandom(step)) == step:
            pass
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def full_steps(ballast, steps, size=4096) -> Iterator[int]:
    """Yield 0, 1, … and free ``size`` bytes of ``ballast`` before each but the first."""
    for step in range(steps):
        if step:
            os.truncate(ballast, max(0, os.path.getsize(ballast) - size))
            with open(ballast, "rb") as file:
                os.fsync(file.fileno())
        yield step


def snapshot_below(directory, name="snapshot") -> pathlib.Path:
    """Take a snapshot of the btrfs at ``directory``: every block there is shared from now on."""
    run(["btrfs", "subvolume", "snapshot", directory, directory / name])
    return directory / name


def copy_sharing_blocks(source, target) -> pathlib.Path:
    """Copy a file without its blocks: each is shared until one of the two files overwrites it."""
    target.touch()
    if "C" in run(["lsattr", source]).split()[0]:
        run(["chattr", "+C", target])  # btrfs shares no blocks between files of different kinds
    run(["cp", "--reflink=always", source, target])
    return target


@contextlib.contextmanager
def quota_of(directory, limit_bytes, make) -> Iterator[pathlib.Path]:
    """The file system of ``make``, with a limit of ``limit_bytes`` that root is held to as well.

    btrfs: a limit on what its top directory refers to.  xfs and ext4: a project quota.
    """
    if make is btrfs:
        with btrfs(directory) as place:
            run(["btrfs", "quota", "enable", place])
            run(["btrfs", "qgroup", "limit", limit_bytes, place])
            yield place
        return
    if shutil.which("setquota") is None:
        pytest.skip("no setquota here (Debian: quota)")
    with _with_project_quota(directory, make) as place:
        run(["chattr", "-p", "42", "+P", place])
        run(["setquota", "-P", "42", "0", limit_bytes // 1024, "0", "0", place])
        yield place


def _with_project_quota(directory, make):
    if make is xfs:
        return xfs(directory, XFS_MIN, "prjquota")
    make_it = ["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "quota,project", "-E", "quotatype=prjquota"]
    return _in_image(directory, 64 * MIB, "ext4", make_it, "e2fsprogs", ("prjquota",))
