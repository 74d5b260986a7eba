"""A doctor that is killed: what it leaves, and what removes it.

The check of O_DIRECT left a file, for good; the smoke test leaves a directory, which a doctor removes
an hour later if no running one holds its lock.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile

import pytest

from uringblob.cli.doctor import smoke_test
from uringblob.cli.doctor.disk import check_direct
from uringblob.cli.doctor.smoke_test import STALE_AFTER_S, check_store, remove_stale

KILL = "import os, signal; kill = lambda *_args, **_options: os.kill(os.getpid(), signal.SIGKILL)"


def killed(code, directory):
    """Run a child that ``kill`` ends."""
    done = subprocess.run([sys.executable, "-c", f"{KILL}; place = {str(directory)!r}; {code}"], check=False)
    assert done.returncode == -signal.SIGKILL


def make_old(path):
    then = path.stat().st_mtime - 2 * STALE_AFTER_S
    os.utime(path, (then, then))


@pytest.fixture
def left(disk_dir):
    """The old directory of a doctor that was killed in its smoke test."""
    code = "from uringblob.cli.doctor import smoke_test; smoke_test._commit_and_read = kill"
    killed(f"{code}; smoke_test.check_store('pread', place)", disk_dir)
    (path,) = disk_dir.iterdir()
    (path / "trial.blobs").touch()
    (path / ".0123456789abcdef.uringblob.new").touch()
    make_old(path)
    return path


def test_a_kill_in_the_check_of_direct_io_leaves_nothing(disk_dir):
    killed(
        "from uringblob.cli.doctor import disk; disk.enable_direct = kill; disk.check_direct(place)", disk_dir
    )
    assert os.listdir(disk_dir) == []


def test_where_files_need_a_name_the_check_of_direct_io_works_too(disk_dir, monkeypatch):
    nameless = check_direct(str(disk_dir))
    real = os.open

    def open_refusing(path, flags, *others, **options):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise IsADirectoryError(path)
        return real(path, flags, *others, **options)

    monkeypatch.setattr(tempfile, "_O_TMPFILE_WORKS", True)  # put back: tempfile remembers the refusal
    monkeypatch.setattr(os, "open", open_refusing)
    assert check_direct(str(disk_dir)) == nameless
    assert os.listdir(disk_dir) == []


def test_the_next_doctor_removes_what_a_killed_one_left(left, disk_dir):
    assert check_store("pread", str(disk_dir)).facts == {"pread_store": 0}
    assert os.listdir(disk_dir) == []


def test_a_locked_directory_is_kept(left, disk_dir):
    fd = os.open(left, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    remove_stale(str(disk_dir))
    assert left.exists()
    os.close(fd)
    remove_stale(str(disk_dir))
    assert not left.exists()


def test_a_doctor_holds_the_lock_while_it_works(disk_dir):
    with smoke_test._smoke_test_directory(str(disk_dir)) as place:
        fd = os.open(place, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)


def test_a_young_directory_is_kept(left, disk_dir):
    """Its doctor may be between making and locking it, or on another machine."""
    os.utime(left)
    remove_stale(str(disk_dir))
    assert left.exists()


def test_a_directory_with_other_files_is_kept(left, disk_dir):
    (left / "thesis.tex").touch()
    make_old(left)
    remove_stale(str(disk_dir))
    assert sorted(os.listdir(left)) == [".0123456789abcdef.uringblob.new", "thesis.tex", "trial.blobs"]


@pytest.mark.parametrize(
    "name", [".uringblob-doctor-mine", ".uringblob-doctor-", "uringblob-doctor-abcdefgh"]
)
def test_a_directory_with_another_name_is_kept(left, disk_dir, name):
    other = left.rename(disk_dir / name)
    remove_stale(str(disk_dir))
    assert len(os.listdir(other)) == 2


def test_a_link_is_not_followed(left, disk_dir):
    elsewhere = left.rename(disk_dir / "elsewhere")
    (disk_dir / left.name).symlink_to(elsewhere)
    remove_stale(str(disk_dir))
    assert len(os.listdir(elsewhere)) == 2


def test_the_directory_of_another_user_is_kept(left, disk_dir, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    remove_stale(str(disk_dir))
    assert left.exists()
