"""`get` leaves the whole frame under the file's name, or whatever was there before.

It used to write under the name itself: Ctrl-C or a full disk left half a frame there.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading

import pytest

from monitor.children import unwatched
from uringblob.cli.whole_file import whole_file

PAGE = 4096


@pytest.fixture
def at_most_half_a_frame_fits():
    """Give what a child's `preexec_fn` does; Python turns SIGXFSZ into EFBIG."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE // 2, PAGE // 2))


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_get_that_fails_in_the_middle_changes_no_file(
    store, guids, tmp_path, before, at_most_half_a_frame_fits
):
    target = tmp_path / "frame.raw"
    if before is not None:
        target.write_bytes(before)
    done = subprocess.run(
        [sys.executable, "-m", "uringblob", "get", store, str(guids[1]), str(target)],
        preexec_fn=at_most_half_a_frame_fits,
        # A record of coverage would not fit, either.
        env=unwatched(
            {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
            "what the monitor has to tell does not fit into a file of half a frame",
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr == f"uringblob get: {target}: File too large\n"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == (
        {} if before is None else {"frame.raw": before}
    )


@pytest.mark.parametrize("before", [None, b"old"])
def test_ctrl_c_in_the_middle_changes_no_file(tmp_path, before):
    target = tmp_path / "frame.raw"
    if before is not None:
        target.write_bytes(before)
    with pytest.raises(KeyboardInterrupt), whole_file(str(target)) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == (
        {} if before is None else {"frame.raw": before}
    )


def test_a_new_file_has_the_usual_permissions_and_an_old_one_keeps_its_own(run, store, guids, tmp_path):
    umask = os.umask(0o027)
    try:
        assert run("get", store, guids[1], tmp_path / "new").code == 0
    finally:
        os.umask(umask)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
    (tmp_path / "old").touch()
    (tmp_path / "old").chmod(0o604)
    assert run("get", store, guids[1], tmp_path / "old").code == 0
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o604
    assert (tmp_path / "old").read_bytes() == b"\x01" * PAGE


def test_a_link_goes_on_pointing_to_the_file_that_is_replaced(run, store, guids, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/file")
    assert run("get", store, guids[1], tmp_path / "link").code == 0
    assert os.readlink(tmp_path / "link") == "elsewhere/file"
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"\x01" * PAGE


def test_a_pipe_is_written_not_replaced(run, store, guids, tmp_path):
    """Nor is /dev/null, which root could replace."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert run("get", store, guids[1], pipe).code == 0
    reader.join()
    assert read == [b"\x01" * PAGE]
    assert os.listdir(tmp_path) == ["pipe"]
