"""`get` leaves the whole frame under the file's name, or whatever was there before.

It used to write under the name itself: Ctrl-C or a full disk left half a frame there.
Then it wrote to a temporary file, which a SIGKILL left behind; now to a file without a name, where the
file system has that.  Every test runs both ways: with such files, and with O_TMPFILE refused.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from monitor.children import unwatched
from uringblob.cli.atomic_file import atomic_write

PAGE = 4096
#: What a child runs first where O_TMPFILE is refused; so does this process.
REFUSE = """\
import errno, os
real_open = os.open

def open_refusing(path, flags, *others, **options):
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
    return real_open(path, flags, *others, **options)

os.open = open_refusing
"""
MKSTEMP = tempfile.mkstemp
MAIN = "import sys; from uringblob.__main__ import main; sys.exit(main())"


def has_nameless(directory):
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR)
    except OSError:
        return False
    os.close(descriptor)
    return True


@pytest.fixture(params=["nameless", "named"], autouse=True)
def way(request, tmp_path, monkeypatch):
    """How the file comes into being; what a child must run first for it to be so there, too."""
    if request.param == "named":
        monkeypatch.setattr(os, "open", os.open)  # to be put back
        exec(REFUSE, {})
        assert not has_nameless(tmp_path)
        return REFUSE
    if not has_nameless(tmp_path):
        pytest.skip("n/a: this file system has no files without a name")
    # With it, the test would also pass if the link failed.
    monkeypatch.delattr(tempfile, "mkstemp")
    return ""


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def at_most_half_a_frame_fits():
    """Give what a child's `preexec_fn` does; Python turns SIGXFSZ into EFBIG."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE // 2, PAGE // 2))


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_get_that_fails_in_the_middle_changes_no_file(
    store, guids, tmp_path, before, at_most_half_a_frame_fits, way
):
    target = tmp_path / "frame.raw"
    if before is not None:
        target.write_bytes(before)
    done = subprocess.run(
        # -B: byte code would be cut as well, and CPython before 3.14 takes the half for the whole.
        [sys.executable, "-B", "-c", f"{way}\n{MAIN}", "get", store, str(guids[1]), str(target)],
        preexec_fn=at_most_half_a_frame_fits,
        # A record of coverage would not fit, either.
        env=unwatched(
            {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
            "the monitor's record does not fit into a file of half a frame",
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr == f"uringblob get: {target}: File too large\n"
    assert contents(tmp_path) == ({} if before is None else {"frame.raw": before})


@pytest.mark.parametrize("before", [None, b"old"])
def test_ctrl_c_in_the_middle_changes_no_file(tmp_path, before):
    target = tmp_path / "frame.raw"
    if before is not None:
        target.write_bytes(before)
    with pytest.raises(KeyboardInterrupt), atomic_write(str(target)) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert contents(tmp_path) == ({} if before is None else {"frame.raw": before})


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_sigkill_in_the_middle_leaves_nothing_beside(tmp_path, before, way):
    """Where the file system has files without a name; elsewhere the temporary file stays, and the target is whole."""
    target = tmp_path / "frame.raw"
    if before is not None:
        target.write_bytes(before)
    code = (
        f"{way}\nimport os, signal; from uringblob.cli.atomic_file import atomic_write\n"
        f"with atomic_write({str(target)!r}) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    left = contents(tmp_path)
    assert left.pop("frame.raw", None) == before
    assert list(left.values()) == ([b"half"] if way else [])


@pytest.mark.parametrize("before", [None, b"old"])
def test_the_target_appears_only_when_it_is_complete(tmp_path, before, way):
    target = tmp_path / "frame.raw"
    if before is not None:
        target.write_bytes(before)
    with atomic_write(str(target)) as file:
        file.write(b"half")
        names = os.listdir(tmp_path)
        assert len(names) == (before is not None) + bool(way)
        file.write(b" and half")
    assert contents(tmp_path) == {"frame.raw": b"half and half"}


def test_an_interrupt_just_before_the_rename_changes_no_file(tmp_path, monkeypatch):
    """The one moment at which a file without a name has one of its own."""
    target = tmp_path / "frame.raw"
    target.write_bytes(b"old")
    seen = []

    def interrupted(source, destination):
        seen.append((Path(source).read_bytes(), destination))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_write(str(target)) as file:
        file.write(b"new")
    assert seen == [(b"new", str(target))]
    assert contents(tmp_path) == {"frame.raw": b"old"}


def test_a_file_that_came_in_between_is_replaced_whole(tmp_path):
    """linkat(2) alone cannot replace it: that would be an error after all was read."""
    target = tmp_path / "frame.raw"
    with atomic_write(str(target)) as file:
        file.write(b"mine")
        target.write_bytes(b"another's")
    assert contents(tmp_path) == {"frame.raw": b"mine"}


@pytest.mark.parametrize("before", [None, b"old"])
def test_where_a_nameless_file_cannot_be_linked_it_is_copied(tmp_path, monkeypatch, before):
    def refused(*_args, **_options):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    target = tmp_path / "frame.raw"
    if before is not None:
        target.write_bytes(before)
    monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(tempfile, "mkstemp", MKSTEMP, raising=False)
    with atomic_write(str(target)) as file:
        file.write(b"whole")
    assert contents(tmp_path) == {"frame.raw": b"whole"}


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
