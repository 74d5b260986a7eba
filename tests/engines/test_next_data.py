"""Where a hole ends, as engines ask the system."""

from __future__ import annotations

import errno
import os

import pytest

from uringblob.engines.posix_calls import next_data

MIB = 1 << 20


@pytest.fixture
def fd(disk_dir):
    """A file with 1 MiB of data, a hole of 2 MiB, 1 MiB of data, and a hole of 4 MiB."""
    fd = os.open(disk_dir / "file", os.O_RDWR | os.O_CREAT, 0o600)
    for offset in (0, 3 * MIB):
        os.pwrite(fd, b"x" * MIB, offset)
    os.ftruncate(fd, 8 * MIB)
    yield fd
    os.close(fd)


def test_data_is_where_it_is_asked_for_or_behind_a_hole(fd):
    assert next_data(fd, 4096) == 4096
    # A file system may keep a part of a hole as zeros, or know of none.
    assert MIB <= next_data(fd, MIB) <= 3 * MIB
    assert next_data(fd, 3 * MIB) == 3 * MIB
    assert next_data(fd, 4 * MIB) in {-errno.ENXIO, *range(4 * MIB, 8 * MIB, 4096)}
    assert next_data(fd, 8 * MIB) == -errno.ENXIO


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
def test_where_the_system_knows_of_no_holes_nothing_is_in_one(fd, monkeypatch, code):
    def lseek(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "lseek", lseek)
    assert next_data(fd, MIB) == MIB


def test_any_other_failure_is_its_number(fd):
    assert next_data(-1, 0) == -errno.EBADF
