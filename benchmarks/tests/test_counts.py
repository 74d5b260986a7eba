"""Counts of an operation: exact for Python and C calls, and taken between marks for system calls."""

from __future__ import annotations

import shutil

import pytest

from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.counts import OWN, Traced, calls_of, count_calls, sections_of, system_calls
from uringblob_bench.load import Load, Verb

pytestmark = pytest.mark.one_interpreter


async def operation():
    return len("four")


async def test_calls_are_counted_for_each_time():
    assert await count_calls(operation, 7) == (1, 1)
    assert await count_calls(operation, 7, __file__) == (1, 1)
    assert await count_calls(operation, 7, OWN) == (0, 0)


def test_the_stores_own_calls_are_a_part_of_all(params, workdir, needs_uring):
    own, every, c = calls_of(AsyncStore(params, workdir), Load(Verb.READ, 2))
    assert 0 < own < every
    assert c > 0


def test_a_section_has_the_calls_between_two_marks():
    lines = [
        "7 openat(1) = 1",
        "7 getppid() = 1",
        "7 io_uring_enter(5, 1, 0) = 1",
        "8 epoll_wait(3 <unfinished ...>",
        "8 <... epoll_wait resumed>) = 1",
        "7 --- SIGCHLD {} ---",
        "7 getppid( <unfinished ...>",
        "7 <... getppid resumed>) = 1",
        "7 read(1) = 0",
        "7 getppid() = 1",
        "7 getppid() = 1",
        "7 +++ exited with 0 +++",
    ]
    assert sections_of("\n".join(lines)) == [[lines[2], lines[3]], []]


@pytest.mark.parametrize("name", ["store", "bare asyncio"])
def test_system_calls_are_counted_for_each_frame(params, workdir, needs_uring, name):
    if shutil.which("strace") is None:
        pytest.skip("n/a: strace is not installed")
    counted, words = system_calls(params, workdir, name, Load(Verb.READ, 2))
    assert counted > 0, words
    assert "io_uring_enter" in words


def test_without_strace_there_are_none(params, workdir, needs_uring, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert system_calls(params, workdir, "store", Load(Verb.READ)) == (None, "strace is not installed")


def test_by_default_single_commits_are_traced():
    assert (Traced().load, Traced().calls) == (Load(Verb.COMMIT), 1)
