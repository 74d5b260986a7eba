"""The files under test are made once, wholly, and are gone at the end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from uringblob_bench.workdir import WorkDir

pytestmark = pytest.mark.one_interpreter


def test_a_place_is_a_fresh_directory_that_is_removed(disk_dir):
    (disk_dir / "mine").write_text("stays")
    with WorkDir(str(disk_dir)) as workdir:
        Path(workdir.path("file")).write_text("goes")
        assert len(os.listdir(disk_dir)) == 2
    assert os.listdir(disk_dir) == ["mine"]


def test_a_file_is_made_once(workdir):
    made = []
    for _ in range(2):
        path = workdir.once("x", lambda path: made.append(Path(path).write_text("whole")))
    assert (Path(path).read_text(), len(made)) == ("whole", 1)


@pytest.mark.parametrize("leave", ["a file", "a directory"])
def test_what_was_made_by_half_is_made_again(workdir, leave):
    def half(path):
        if leave == "a file":
            Path(path).write_text("half")
        else:
            Path(path).mkdir()
            (Path(path) / "part").write_text("half")
        raise OSError(28, "no room")

    with pytest.raises(OSError, match="no room"):
        workdir.once("x", half)
    assert not os.path.exists(workdir.path("x"))
    path = workdir.once("x", lambda path: Path(path).write_text("whole"))
    assert Path(path).read_text() == "whole"
    assert os.listdir(workdir.directory) == ["x"]


def test_the_raw_file_is_written_wholly_and_not_one_block_twice(workdir):
    content = Path(workdir.raw_file(10 << 20)).read_bytes()
    assert len(content) == 10 << 20
    blocks = [content[start : start + 4096] for start in range(0, len(content), 4 << 20)]
    assert len(set(blocks)) == len(blocks)
