"""io_uring refused, as containers and hardened kernels do it: somewhere, with some errno."""

from __future__ import annotations

import errno

import pytest

from behaviour import children

#: One interpreter: the kernel refuses, whoever asks.
pytestmark = [pytest.mark.one_interpreter, pytest.mark.usefixtures("needs_uring")]

ERRNOS = ["EPERM", "ENOSYS", "EOPNOTSUPP"]
#: What is refused, and the stage of starting up at which that shows.
STAGES = {"setup": "setup", "enter": "nop", "register": "register files"}
CURES = {"EPERM": "kernel.io_uring_disabled", "ENOSYS": "gVisor", "EOPNOTSUPP": "seccomp profile"}


def outcome(path, place, name):
    return children.run("behaviour.child_refused:open_both_ways", path, place, getattr(errno, name))


@pytest.mark.parametrize("name", ERRNOS)
@pytest.mark.parametrize("place", STAGES)
def test_the_ring_is_refused(store_path, place, name):
    seen = outcome(store_path, place, name)
    auto, named = seen["auto"], seen["named"]

    assert auto["engine"] == "pread"
    assert f"refused at {STAGES[place]}: {name} " in auto["reason"]
    assert [level for level, _ in auto["log"]] == ["WARNING", "WARNING"]  # two openings
    assert auto["reason"] in auto["log"][0][1]

    assert (named["stage"], named["errno"]) == (STAGES[place], getattr(errno, name))
    assert f"{STAGES[place]}: {name} " in named["message"]
    assert CURES[name] in named["message"]
    assert "engine='auto'" in named["message"]


@pytest.mark.parametrize("name", ERRNOS)
def test_only_the_registration_of_buffers_is_refused(store_path, name):
    seen = outcome(store_path, "register buffers", name)
    for way in ("auto", "named"):
        assert seen[way]["engine"] == "io_uring"
        assert "register buffers" in seen[way]["buffers_reason"]
        assert name in seen[way]["buffers_reason"]
        assert CURES[name] in seen[way]["buffers_reason"]
        # That is not what is in the way, so it must not send the reader there.
        assert "RLIMIT_MEMLOCK" not in seen[way]["buffers_reason"]
    assert seen["auto"]["registered"] == 0
