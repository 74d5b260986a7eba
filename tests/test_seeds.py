"""The suite's own seeds: one number for each commit, replayed by one line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import seeds
from conftest import REPOSITORY

pytestmark = pytest.mark.one_interpreter


def git(directory, *command):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", directory, *identity, *command], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    try:
        git(tmp_path, "init")
    except FileNotFoundError:
        pytest.skip("n/a: no git here, so the fallback is what counts")
    git(tmp_path, "commit", "--allow-empty", "-m", "one")
    return tmp_path


def test_each_commit_has_its_number_and_a_clone_has_the_same(repository, tmp_path_factory):
    first = seeds.of_commit(repository)
    assert seeds.of_commit(repository) == first
    clone = tmp_path_factory.mktemp("clone")
    git(clone, "clone", "--depth", "1", f"file://{repository}", "here")
    assert seeds.of_commit(clone / "here") == first
    git(repository, "commit", "--allow-empty", "-m", "two")
    assert seeds.of_commit(repository) != first


def test_a_git_hooks_environment_names_no_other_repository(repository, monkeypatch):
    expected = seeds.of_commit(repository)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert seeds.of_commit(repository) == expected


def test_without_git_or_repository_it_is_the_stated_one(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert seeds.of_commit(tmp_path) == seeds.FALLBACK
    monkeypatch.setenv("PATH", "")
    assert seeds.of_commit(REPOSITORY) == seeds.FALLBACK


PROBE = """
import random
import hypothesis, seeds
from hypothesis import strategies as st

@hypothesis.settings(max_examples=5)
@hypothesis.given(st.integers())
def test_probe(number):
    print("drew", number)

def test_fails():
    print("first", seeds.first())
    raise AssertionError("planted")
"""


def ran(directory, number):
    """What a run of the suite's own conftest prints with one number: its draws, its seeds, its lines for replay."""
    probe = directory / "test_probe.py"
    probe.write_text(PROBE)
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(probe)]
    command += ["-c", str(REPOSITORY / "pyproject.toml"), "-p", "conftest", "--rootdir", str(REPOSITORY)]
    environment = {**os.environ, seeds.VARIABLE: str(number), "CI": "true"}
    environment["PYTHONPATH"] = str(REPOSITORY / "tests")
    answer = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=REPOSITORY
    )
    assert "1 failed, 1 passed" in answer.stdout, answer.stdout + answer.stderr
    return [line for line in answer.stdout.splitlines() if line.startswith(("drew", "first", "replay:"))]


@pytest.mark.unobserved("its children install the monitor for themselves, and open no store")
def test_one_line_replays_what_failed(tmp_path):
    once = ran(tmp_path, 4711)
    assert ran(tmp_path, 4711) == once
    other = ran(tmp_path, 4712)
    assert [line for line in other if line.startswith("drew")] != [
        line for line in once if line.startswith("drew")
    ]
    replay = [line for line in once if line.startswith("replay:")]
    assert len(replay) == 1
    assert replay[0].startswith(f"replay: {seeds.VARIABLE}=4711 python -m pytest ")
    assert "::test_fails'" in replay[0]
