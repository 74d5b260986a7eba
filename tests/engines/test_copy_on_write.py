"""Whether overwriting takes new room: what the system is asked, and what is made of what it does not know."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from uringblob.engines import copy_on_write
from uringblob.engines.copy_on_write import make_no_cow, why_copied

pytestmark = pytest.mark.one_interpreter


@pytest.fixture
def fd(disk_dir):
    fd = os.open(disk_dir / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def proc_of(tmp_path, fd, kind):
    """A /proc that says that ``fd`` lies on a file system of this kind."""
    (tmp_path / "fdinfo").mkdir()
    (tmp_path / "fdinfo" / str(fd)).write_text("pos:\t0\nflags:\t02\nmnt_id:\t77\n")
    lines = ["7 1 8:1 / / rw - ext4 /dev/a rw", f"77 1 0:30 / /m rw shared:1 - {kind} /dev/b rw,x=- y", ""]
    (tmp_path / "mountinfo").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "flags", "why"),
    [
        ("btrfs", 0, "btrfs copies"),
        ("btrfs", 0x800000, ""),
        ("zfs", None, "zfs copies"),
        ("ext4", 0, ""),
        ("xfs", 0, ""),
    ],
)
def test_the_kind_of_file_system_and_the_flag_decide(fd, tmp_path, monkeypatch, kind, flags, why):
    def ioctl(_fd, request, answer, *_):
        if request != copy_on_write._GETFLAGS or flags is None:
            raise OSError(errno.ENOTTY, "not here")
        answer[0] = flags

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    said = why_copied(fd, proc_of(tmp_path, fd, kind))
    assert said.startswith(why) if why else said == ""


@pytest.mark.parametrize(
    "content", [None, "", "mnt_id:\t9999999\n"], ids=["no fdinfo", "no mnt_id", "no such mount"]
)
def test_where_proc_does_not_tell_nothing_is_claimed(fd, tmp_path, content):
    proc = proc_of(tmp_path, fd, "btrfs")
    file = proc / "fdinfo" / str(fd)
    file.unlink() if content is None else file.write_text(content)
    assert why_copied(fd, proc) == ""


@pytest.mark.parametrize(
    ("before", "calls"),
    [
        (0x0, [0x800000]),
        (0x4, [0x0, 0x800000]),  # btrfs takes the flags of compression and of no copies one by one only
        (0x800000, []),  # mounted with nodatacow
    ],
    ids=["plain", "compressed", "no-COW already"],
)
def test_a_new_file_is_asked_to_be_overwritten_in_place(fd, monkeypatch, before, calls):
    made = []

    def ioctl(_fd, request, flags, *_):
        if request == copy_on_write._GETFLAGS:
            flags[0] = before
        else:
            made.append(flags[0])

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    make_no_cow(fd)
    assert made == calls


@pytest.mark.parametrize(
    "number", [errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM], ids=errno.errorcode.get
)
def test_a_file_system_that_refuses_gets_its_store_all_the_same(fd, monkeypatch, number):
    def ioctl(*_):
        raise OSError(number, "refused")

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    make_no_cow(fd)
    os.write(fd, b"x")


def test_elsewhere_than_on_linux_nothing_is_asked(fd, monkeypatch):
    monkeypatch.setattr(copy_on_write.sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "ioctl", None)
    make_no_cow(fd)
    assert why_copied(fd) == ""
