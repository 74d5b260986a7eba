"""The doctor under real refusals: filters with several errnos, limits, no extension, no O_DIRECT.

Each case is a child process.  The sysctl belongs to the whole machine and is not changed; its
verdicts are tested by the table, and one of them with an answer that the kernel really gives.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile

import pytest

from behaviour import children
from behaviour.mounts import mounted

pytestmark = pytest.mark.one_interpreter

MIB = 1 << 20
CALLS = ["setup", "enter", "register"]
CHECKS = "cli.doctor.child_checks:"


def keys(seen):
    return [cause["key"] for cause in seen["causes"]]


@pytest.mark.parametrize(
    ("places", "name"),
    # Every answer to all three calls, and to each call alone an answer of its own: test_diagnosis.py has all pairs.
    [
        *((CALLS, name) for name in ("EPERM", "ENOSYS", "EACCES", "EOPNOTSUPP")),
        *((["setup"], "EPERM"), (["enter"], "ENOSYS"), (["register"], "EACCES")),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_filter_is_named_whatever_it_answers(needs_uring, disk_dir, places, name):
    seen = children.run(CHECKS + "refused", str(disk_dir), places, getattr(errno, name))
    assert (seen["exit_code"], keys(seen)) == (1, ["seccomp"])
    assert name in seen["verdict"]
    assert "seccomp" in seen["command"]
    answers = seen["findings"]["system calls"]["text"]
    for call in CALLS:
        assert (f"{call} {name} (refused)" in answers) is (call in places)
    assert os.listdir(disk_dir) == []


def test_a_filter_on_registering_memory_alone_is_a_limit(needs_uring, disk_dir):
    seen = children.run(CHECKS + "refused", str(disk_dir), ["register buffers"], errno.EPERM)
    assert (seen["exit_code"], keys(seen)) == (0, ["seccomp buffers"])
    assert seen["findings"]["locked memory"]["facts"]["frames_fit"] == 0


def test_a_filter_that_passes_io_uring_is_no_cause(needs_uring, disk_dir, needs_root):
    """A filter is on (it refuses a request that the store never makes): Seccomp reads 2, and all works."""
    seen = children.run(CHECKS + "refused", str(disk_dir), ["nobody"], errno.EPERM)
    assert seen["findings"]["seccomp"]["facts"] == {"seccomp": 2}
    assert (seen["exit_code"], keys(seen)) == (0, [])


def test_the_answer_of_the_sysctl_is_not_attributed_to_a_filter(needs_uring, disk_dir):
    seen = children.run(CHECKS + "with_sysctl_seen_as", str(disk_dir), 2, "setup", errno.EPERM)
    assert (seen["exit_code"], keys(seen)) == (1, ["sysctl"])
    assert "sysctl -w kernel.io_uring_disabled=0" in seen["command"]


@pytest.fixture
def user():
    """A user with no process but ours: locked memory is one account per user."""
    return 400_000 + os.getpid()


@pytest.fixture
def their_dir(user):
    with tempfile.TemporaryDirectory(prefix="uringblob-", dir="/var/tmp") as directory:
        os.chown(directory, user, user)
        yield directory


def test_the_usual_memlock_is_a_limit_with_its_number(needs_uring, needs_root, their_dir, user):
    seen = children.run(CHECKS + "as_user", their_dir, user, 8 * MIB)
    fit = seen["findings"]["locked memory"]["facts"]["frames_fit"]
    assert 0 < fit <= 16
    assert (seen["exit_code"], keys(seen)) == (0, ["memlock frames"])
    assert f"only {fit} of 64 frames" in seen["verdict"]
    assert "memlock" in seen["command"].lower()


def test_no_memlock_at_all(needs_uring, needs_root, their_dir, user):
    """Linux 6.18 refuses the ring itself with ENOMEM then."""
    seen = children.run(CHECKS + "as_user", their_dir, user, 0)
    assert keys(seen)[0] in {"memlock", "memlock frames"}
    assert "memlock" in seen["command"].lower()


def test_a_directory_of_another_user(needs_uring, needs_root, disk_dir, user):
    seen = children.run(CHECKS + "as_user", str(disk_dir), user, 8 * MIB)
    assert (seen["exit_code"], keys(seen)) == (2, ["directory"])
    assert "chown" not in seen["command"]
    assert "chmod" not in seen["command"]
    place = re.fullmatch(r"mkdir -p (\S+) && uringblob doctor \1", seen["command"])[1]
    assert not place.startswith(str(disk_dir))


def test_a_masked_sys_is_reported(needs_root, their_dir, user):
    """podman masks /sys/dev/block; the check broke on it, for every user but root."""
    os.mkdir(f"{their_dir}/block", 0)
    seen = children.run(CHECKS + "device_as_user", their_dir, user, f"{their_dir}/block")
    assert seen["text"] == f"{their_dir}/block is closed to this user, as in podman's containers"


def doctor(directory, **environment):
    command = [sys.executable, "-m", "uringblob", "doctor", str(directory)]
    environment = {**os.environ, "URINGBLOB_ENGINE": "", **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_extension_hidden(disk_dir):
    seen = doctor(disk_dir, URINGBLOB_NO_EXT="1")
    assert seen.returncode == 1
    assert seen.stderr == ""
    assert "unset URINGBLOB_NO_EXT" in seen.stdout


def test_no_o_direct(needs_uring, needs_root, disk_dir):
    with mounted(disk_dir / "place", "ramfs") as place:
        seen = doctor(place)
        assert os.listdir(place) == []
    assert seen.returncode == 0
    assert "with a limit: " in seen.stdout
    assert "lies in memory" in seen.stdout
    assert "also: no O_DIRECT" in seen.stdout
    assert "ramfs at" in seen.stdout


def test_a_read_only_mount(needs_root, disk_dir):
    with mounted(disk_dir / "place", "tmpfs") as place:
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        seen = doctor(place)
    assert seen.returncode == 2
    assert f"mount -o remount,rw {place}" in seen.stdout


def test_no_such_directory(disk_dir):
    seen = doctor(disk_dir / "missing")
    assert seen.returncode == 2
    assert f"mkdir -p {disk_dir / 'missing'}" in seen.stdout


def test_on_another_system_there_is_no_remedy(disk_dir):
    seen = children.run("cli.doctor.child_elsewhere:checked_elsewhere", str(disk_dir))
    assert (seen["exit_code"], keys(seen), seen["command"]) == (1, ["not linux"], "")
    assert not [f for f in seen["findings"].values() if "could not be checked" in f["text"]]
