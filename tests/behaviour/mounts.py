"""Small file systems of a test's own, mounted for its time."""

from __future__ import annotations

import contextlib
import shutil
import subprocess

import pytest

from conftest import NOT_APPLICABLE

MIB = 1 << 20


@contextlib.contextmanager
def mounted(directory, kind, *options, source="none"):
    """Mount a file system of ``kind`` at ``directory``, which is made; yields it."""
    directory.mkdir()
    command = ["mount", "-t", kind, *(["-o", ",".join(options)] if options else []), source, str(directory)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"{NOT_APPLICABLE} no {kind} here: {made.stderr.strip()}")
    try:
        directory.chmod(0o777)
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True, capture_output=True)


def tmpfs(directory, size):
    """A tmpfs of ``size`` bytes."""
    return mounted(directory, "tmpfs", f"size={size}")


@contextlib.contextmanager
def ext4(directory, size, *options):
    """An ext4 of ``size`` bytes in a file beside ``directory``, through a loop device."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4 here (Debian: e2fsprogs)")
    image = directory.with_suffix(".image")
    with open(image, "wb") as file:
        file.truncate(size)
    make = ["mkfs.ext4", "-q", "-F", "-m", "0", str(image)]
    subprocess.run(make, check=True, capture_output=True)
    try:
        with mounted(directory, "ext4", "loop", *options, source=str(image)):
            yield directory
    finally:
        image.unlink()


def fill_up(directory):
    """Take all room there is with a file ``ballast``; returns its path: unlink it to free the room."""
    ballast = directory / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        for step in (MIB, 65536, 4096):
            with contextlib.suppress(OSError):
                while file.write(bytes(step)) == step:
                    pass
    return ballast
