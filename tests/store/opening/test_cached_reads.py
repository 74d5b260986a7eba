"""Whether reads show the medium: asked of real file systems, each mounted for its test."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess

import pytest

from behaviour.mounts import MIB, ext4, mounted, tmpfs
from uringblob.store.opening import cached_reads
from uringblob.store.opening.cached_reads import why_cached

SERVED = "the file system serves direct reads from a cache"


@contextlib.contextmanager
def in_image(place, kind, size, *make):
    """A file system that the command ``make`` makes in a file of ``size`` bytes."""
    if shutil.which(make[0]) is None:
        pytest.skip(f"no {make[0]} here (Debian: btrfs-progs, xfsprogs)")
    image = place.with_suffix(".image")
    with open(image, "wb") as file:
        file.truncate(size)
    try:
        subprocess.run([*make, str(image)], check=True, capture_output=True)
        with mounted(place, kind, "loop", source=str(image)) as directory:
            yield directory
    finally:
        image.unlink()


def btrfs(place):
    return in_image(place, "btrfs", 110 * MIB, "mkfs.btrfs", "-q", "--mixed")


def xfs(place):
    return in_image(place, "xfs", 300 * MIB, "mkfs.xfs", "-q")


@contextlib.contextmanager
def btrfs_in_place(place):
    with btrfs(place) as directory:
        subprocess.run(["chattr", "+C", str(directory)], check=True)
        yield directory


@contextlib.contextmanager
def overlay(place):
    layers = [place.with_name(name) for name in ("lower", "upper", "work")]
    for layer in layers:
        layer.mkdir()
    options = [f"{name}dir={layer}" for name, layer in zip(("lower", "upper", "work"), layers, strict=True)]
    with mounted(place, "overlay", *options) as directory:
        yield directory


FILE_SYSTEMS = {
    "ext4": (lambda place: ext4(place, 16 * MIB), ""),
    "ext4 that journals data": (lambda place: ext4(place, 16 * MIB, "data=journal"), SERVED),
    "xfs": (xfs, ""),
    "btrfs": (btrfs, SERVED),
    "btrfs that overwrites in place": (btrfs_in_place, ""),
    "overlay": (overlay, ""),
    "tmpfs": (lambda place: tmpfs(place, 16 * MIB), ""),
}


@contextlib.contextmanager
def opened(path, *, direct):
    """A descriptor of the file at ``path`` that reads only."""
    path.write_bytes(os.urandom(65536))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
        if direct:
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            try:
                fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
            except OSError as error:
                pytest.skip(f"n/a: no O_DIRECT here ({error.strerror})")
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_a_flag_proves_nothing_and_a_read_of_one_byte_does(needs_root, needs_direct, disk_dir, kind):
    make, why = FILE_SYSTEMS[kind]
    with make(disk_dir / "place") as directory, opened(directory / "file", direct=True) as descriptor:
        assert why_cached(descriptor, direct_io=True, flushed=True) == why


@pytest.mark.parametrize(("kind", "why"), [("tmpfs", ""), ("ext4", "it was read through the page cache")])
def test_what_is_read_through_the_page_cache_is_the_medium_only_in_memory(needs_root, disk_dir, kind, why):
    with (
        FILE_SYSTEMS[kind][0](disk_dir / "place") as directory,
        opened(directory / "file", direct=False) as descriptor,
    ):
        assert why_cached(descriptor, direct_io=False, flushed=True) == why


def test_a_file_system_that_refuses_to_flush_proves_nothing(needs_direct, disk_dir):
    """ext4 that turned read-only because a write had failed answers EROFS."""
    with opened(disk_dir / "file", direct=True) as descriptor:
        assert why_cached(descriptor, direct_io=True, flushed=False) == "the file system refused to flush"


def test_what_was_never_written_was_never_lost(monkeypatch, disk_dir):
    with opened(disk_dir / "file", direct=False) as descriptor:
        monkeypatch.setattr(cached_reads, "file_system", lambda _fd: "squashfs")
        assert why_cached(descriptor, direct_io=False, flushed=False) == ""


def test_a_read_that_fails_for_another_reason_proves_nothing(monkeypatch, disk_dir):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(disk_dir / "file", direct=False) as descriptor:
        monkeypatch.setattr(cached_reads, "file_system", lambda _fd: "")
        monkeypatch.setattr(os, "pread", fail)
        assert why_cached(descriptor, direct_io=True, flushed=True) == SERVED
