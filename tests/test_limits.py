"""What limits threads and memory is said as it is here."""

from __future__ import annotations

import errno
import resource

import pytest

from uringblob import limits
from uringblob.engines.unavailable import RingUnavailable


@pytest.fixture
def address_space(monkeypatch):
    """Let RLIMIT_AS leave so many bytes."""

    def leave(size_bytes):
        used = limits._address_space_used()
        real = resource.getrlimit
        monkeypatch.setattr(
            resource,
            "getrlimit",
            lambda which: (used + size_bytes,) * 2 if which == resource.RLIMIT_AS else real(which),
        )

    return leave


def test_a_lack_of_address_space_is_not_blamed_on_locked_memory(address_space):
    address_space(1 << 20)
    remedy = RingUnavailable("setup", errno.ENOMEM).remedy
    assert "RLIMIT_AS" in remedy
    assert "MEMLOCK" not in remedy
    assert "RLIMIT_AS" in limits.memory_limits()
    assert "RLIMIT_AS" in limits.thread_limits(), "a stack needs some, too"


def test_where_there_is_enough_of_it_it_is_not_blamed(address_space):
    address_space(1 << 40)
    assert "RLIMIT_MEMLOCK" in RingUnavailable("setup", errno.ENOMEM).remedy
    assert "RLIMIT_AS" not in limits.memory_limits()


CGROUPS = {
    "version 2": ("0::/a/b\n", ""),
    "version 1": ("3:cpu:/x\n2:pids,cpu:/a/b\n", "pids"),
}


@pytest.mark.parametrize(("lines", "mount"), CGROUPS.values(), ids=CGROUPS)
@pytest.mark.parametrize("level", ["a/b", "a", ""])
def test_the_nearest_cgroup_that_limits_threads_is_named(tmp_path, monkeypatch, lines, mount, level):
    (tmp_path / mount / "a" / "b").mkdir(parents=True)
    (tmp_path / mount / "a" / "b" / "pids.max").write_text("max\n")
    (tmp_path / mount / level / "pids.max").write_text("100\n")
    (tmp_path / mount / level / "pids.current").write_text("99\n")
    (tmp_path / "cgroup").write_text(lines)
    monkeypatch.setattr(limits, "_CGROUPS", str(tmp_path))
    monkeypatch.setattr(limits, "_MY_CGROUPS", str(tmp_path / "cgroup"))
    said = limits.thread_limits()
    assert "pids.max of the cgroup" in said
    assert "allows 100, of which 99 are in use" in said


def test_where_no_cgroup_limits_threads_none_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_CGROUPS", str(tmp_path))
    assert "pids.max" not in limits.thread_limits()
    monkeypatch.setattr(limits, "_MY_CGROUPS", str(tmp_path / "none"))
    assert "RLIMIT_NPROC allows this user" in limits.thread_limits()
