"""An ordinary user's locked memory: the store takes what it gets, and says so.

The account is one per user, so each test is a user of its own: two runs on one machine must not
share it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from behaviour import children

#: One interpreter: the limits are the kernel's.
pytestmark = [pytest.mark.one_interpreter, pytest.mark.usefixtures("needs_uring", "needs_root")]

MIB = 1 << 20


@pytest.fixture
def user():
    """The number of a user who owns no process but ours."""
    return 300_000 + os.getpid()


@pytest.fixture
def their_dir(user):
    """A directory of that user's own; pytest's are closed to all but root."""
    with tempfile.TemporaryDirectory(prefix="uringblob-", dir="/var/tmp") as directory:
        os.chown(directory, user, user)
        yield Path(directory)


def check_reason(registered, reason, memlock):
    assert reason.startswith(f"{registered} of 64 frames of 524288 bytes are registered")
    assert "ENOMEM" in reason
    assert f"RLIMIT_MEMLOCK is {memlock} bytes" in reason
    assert "ulimit -l" in reason


@pytest.mark.parametrize("engine", ["auto", "io_uring"])
def test_the_usual_limit_holds_some_frames(their_dir, user, engine):
    path = str(their_dir / "store")
    taken, _, registered, reason = children.run(
        "behaviour.child_limits:use_a_store", path, user, 8 * MIB, engine
    )
    assert taken == "io_uring"
    assert 0 < registered <= 16
    check_reason(registered, reason, 8 * MIB)


def test_two_processes_of_one_user_share_the_limit(their_dir, user):
    start = "behaviour.child_limits:hold_a_store"
    with (
        children.Child(start, str(their_dir / "first"), user, 8 * MIB) as first,
        children.Child(start, str(their_dir / "second"), user, 8 * MIB) as second,
    ):
        seen = [first.hear(), second.hear()]
        assert sum(registered for registered, _ in seen) <= 16
        for registered, reason in seen:
            check_reason(registered, reason, 8 * MIB)
        first.say()
        second.say()
        first.result()
        second.result()


@pytest.mark.parametrize("engine", ["auto", "io_uring"])
@pytest.mark.parametrize("memlock", [0, 65536])
def test_too_little_for_a_single_frame(their_dir, user, memlock, engine):
    """With 0 bytes Linux 6.18 refuses the ring itself, with a few it refuses only the buffers."""
    path = str(their_dir / "store")
    taken, why, registered, reason = children.run(
        "behaviour.child_limits:use_a_store", path, user, memlock, engine
    )
    assert registered == 0
    if taken == "io_uring":
        check_reason(0, reason, memlock)
    else:
        assert taken == {"auto": "pread", "io_uring": "unavailable"}[engine]
        assert "setup: ENOMEM" in why
        assert engine == "auto" or "ulimit -l" in why


# ---- threads ------------------------------------------------------------------------------------


def test_auto_takes_what_works_at_a_limit_of_threads(their_dir, user):
    """io_uring needs threads of the kernel's, for what a nop and a read do without."""
    start = "behaviour.child_limits:use_a_store_with_few_threads"
    taken, why, _, _ = children.run(start, str(their_dir / "store"), user, 1, "auto")
    assert taken == "pread"
    assert why == "io_uring refused at first read: ECANCELED (Operation canceled)"


def test_by_name_the_refusal_says_what_limits_threads(their_dir, user):
    start = "behaviour.child_limits:use_a_store_with_few_threads"
    taken, why, _, _ = children.run(start, str(their_dir / "store"), user, 1, "io_uring")
    assert taken == "unavailable"
    for word in ("store: io_uring refused", "no thread", "RLIMIT_NPROC allows this user 1", "ulimit -u"):
        assert word in why


def test_with_threads_to_be_had_auto_takes_io_uring(their_dir, user):
    start = "behaviour.child_limits:use_a_store_with_few_threads"
    assert children.run(start, str(their_dir / "store"), user, 20, "auto")[0] == "io_uring"
