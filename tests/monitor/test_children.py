"""What tests start is watched as well: a bug in a child process is found, whichever way the child came to be."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from behaviour import children as helper
from behaviour.test_kill import zygote  # noqa: F401 - a fixture
from monitor import children, install
from monitor.child_broken import PAGE, commit, commit_in_a_fork

pytestmark = pytest.mark.one_interpreter

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BROKEN = "monitor.child_broken:"


@pytest.fixture
def planted(monkeypatch):
    """Every child acknowledges without a flush."""
    monkeypatch.setenv(children.PLANTED, "monitor.planted:no_fsync_before_acknowledging")


def command(*words):
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def the_helpers_child(path, request):
    helper.run(BROKEN + "commit", path)


def one_that_is_killed(path, request):
    with pytest.raises(helper.ChildFailed):
        helper.run(BROKEN + "commit_and_die", path)


def a_fork_of_a_child(path, request):
    helper.run(BROKEN + "commit_in_a_fork", path)


def a_fork_of_the_kill_loop(path, request):
    job = {"path": path, "seed": 1, "face": "sync", "way": "commit", "first": 1, "page_size": PAGE}
    job["options"] = {"engine": "pread", "page_size": PAGE}
    pid, reports = request.getfixturevalue("zygote").start(job)
    reports.wait(20, 60)
    os.kill(pid, 9)
    reports.drain()
    reports.close()


def the_command_line(path, request):
    with install.switched_off():
        commit(path)
    frame = Path(path).with_name("frame")
    frame.write_bytes(b"x" * PAGE)
    command("-m", "uringblob", "put", path, str(frame))


def an_example(path, request):
    command(str(EXAMPLES / "buffer_manager.py"), path, "--words", "1000", "--page-size", str(PAGE))


def a_spawned_process(path, request):
    process = multiprocessing.get_context("spawn").Process(target=commit, args=(path,))
    process.start()
    process.join()


WAYS = [
    the_helpers_child,
    one_that_is_killed,
    a_fork_of_a_child,
    a_fork_of_the_kill_loop,
    the_command_line,
    an_example,
    a_spawned_process,
]


@pytest.mark.leaks("multiprocessing's resource tracker lives as long as the interpreter")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_bug_in_a_child_is_found(planted, way, disk_dir, request):
    way(str(disk_dir / "store.blobs"), request)
    found = install.take()
    assert any("order: rule " in line for line in found), found
    assert all(line.startswith("in child process ") for line in found)


def test_a_fork_of_the_tests_process_tells_it(store_path):
    """It has this process's monitors, and nobody takes what it finds there."""
    before = install.known_children().stores
    commit_in_a_fork(store_path)
    assert install.take() == []
    assert install.known_children().stores == before + 1


def test_a_child_without_the_bug_is_watched_and_nothing_is_found(store_path):
    before = install.known_children().stores
    helper.run(BROKEN + "commit", store_path)
    assert install.take() == []
    assert install.known_children().stores == before + 1


DEAF = {
    "its environment lacks": ([], {"PATH": os.environ["PATH"]}),
    "its flags say": (["-I"], None),
}


@pytest.mark.parametrize("words", DEAF)
def test_a_child_that_is_started_unwatched_fails_the_test(words):
    flags, environment = DEAF[words]
    subprocess.run([sys.executable, *flags, "-c", ""], check=True, env=environment)
    [found] = install.take()
    assert words in found


def test_a_child_may_be_unwatched_for_a_reason(store_path):
    before = install.known_children().stores
    environment = children.unwatched({**os.environ, "PYTHONPATH": str(helper.TESTS)}, "this test is about it")
    code = f"from monitor.child_broken import commit; commit({store_path!r})"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert install.take() == []
    assert install.known_children().stores == before
