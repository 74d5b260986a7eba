"""The doctor reports where overwriting a store takes new room."""

from __future__ import annotations

from pathlib import Path

import pytest

from file_systems import btrfs
from uringblob import FileBlobStore
from uringblob.cli.doctor import disk
from uringblob.cli.doctor.checks import run_check
from uringblob.cli.doctor.disk import check_overwriting
from uringblob.cli.doctor.facts import Level


def test_an_ordinary_directory_is_overwritten_in_place(disk_dir):
    result = check_overwriting(str(disk_dir))
    assert (result.level, result.facts) == (Level.GOOD, {})
    assert list(disk_dir.iterdir()) == []


def test_a_file_system_that_copies_what_is_new_is_named(disk_dir, monkeypatch):
    monkeypatch.setattr(disk, "why_copied", lambda _fd: "it copies")
    result = check_overwriting(str(disk_dir))
    assert result.facts == {"copied": str(disk_dir), "copied_why": "it copies"}
    assert "it copies" in result.text


def test_a_directory_without_a_test_file_is_a_note(tmp_path):
    result = run_check(lambda: check_overwriting(str(tmp_path / "missing")))
    assert result.level == Level.NOTE
    assert "ENOENT" in result.text


def test_an_older_store_in_the_directory_is_named(disk_dir, needs_root):
    with btrfs(disk_dir / "small") as directory:
        FileBlobStore.open(directory / "new", page_size=4096).close()
        assert check_overwriting(str(directory)).facts == {}
        (directory / "old").write_bytes((directory / "new").read_bytes())
        (directory / "something else").write_bytes(b"uring")
        Path(directory / "link").symlink_to("nowhere")
        result = check_overwriting(str(directory))
        assert result.facts["copied"] == str(directory / "old")
        assert "no-COW" in result.facts["copied_why"]


pytestmark = pytest.mark.one_interpreter
