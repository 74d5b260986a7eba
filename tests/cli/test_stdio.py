"""Standard streams that are closed, full, or tied to another command on the same store."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys

import pytest

from uringblob import FileBlobStore
from uringblob.cli.stdio import FullWriteStream, read_all

PAGE = 4096
URINGBLOB = f"{sys.executable} -W error -m uringblob"


@pytest.fixture
def shell(tmp_path):
    """Run a line of shell in which ``uringblob`` is the command."""

    def run(line, **names):
        words = {name: str(value) for name, value in names.items()}
        words |= {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
        script = f'uringblob() {{ {URINGBLOB} "$@"; }}\n{line}'
        return subprocess.run(
            ["bash", "-c", script], env={**words, "PATH": "/usr/bin:/bin"}, cwd=tmp_path, capture_output=True
        )

    return run


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("uringblob ls $STORE >&-", b"uringblob ls: standard output: Bad file descriptor\n"),
        ("uringblob ls $STORE >/dev/full", b"uringblob ls: standard output: No space left on device\n"),
        (
            "uringblob get $STORE $GUID - >/dev/full",
            b"uringblob get: standard output: No space left on device\n",
        ),
        ("uringblob get $STORE $GUID /dev/full", b"uringblob get: /dev/full: No space left on device\n"),
        ("uringblob doctor >/dev/full", b"uringblob doctor: standard output: No space left on device\n"),
        ("uringblob put $STORE - <&-", b"uringblob put: standard input: Bad file descriptor\n"),
        ("uringblob ls $STORE.none 2>&-", b""),
    ],
)
def test_a_stream_that_is_closed_or_full_is_named(shell, store, guids, line, expected):
    """It was a traceback and exit code 1, which says "no such blob"; or an errno that blamed the store."""
    done = shell(line, STORE=store, GUID=guids[0])
    assert (done.returncode, done.stderr) == (3, expected)


def test_a_store_never_gets_the_descriptor_of_a_closed_stream(shell, store, guids):
    """Any error message, also one of the C library, would be written into the file."""
    line = "uringblob verify $STORE 2>&- >&- <&-; uringblob put $STORE frame 2>&- >&- <&-; uringblob verify $STORE"
    done = shell(f"head -c {PAGE} /dev/zero > frame; {line}", STORE=store)
    assert done.returncode == 0
    assert done.stdout.startswith(b"4 blobs checked, 0 bad")


def test_a_guid_that_could_not_be_printed_is_in_the_error(shell, store):
    done = shell(f"head -c {PAGE} /dev/zero | uringblob put $STORE - >/dev/full", STORE=store)
    assert done.returncode == 3
    (guid,) = re.findall(rb"stored as (\S+),", done.stderr)
    with FileBlobStore.open(store) as opened:
        assert str(opened.list_blobs()[0]).encode() == guid


def test_a_frame_may_go_from_a_store_into_the_same_store(shell, store, guids):
    """``put`` held the lock while it waited for its input, which waited for the lock."""
    line = "uringblob get $STORE $GUID - --lock-timeout 60 | uringblob put $STORE - --lock-timeout 60"
    done = shell(f"set -o pipefail; {line}", STORE=store, GUID=guids[0])
    assert (done.returncode, done.stderr) == (0, b"")
    assert shell("uringblob ls $STORE", STORE=store).stdout.count(b"\n") == 4


def test_the_doctor_ends_quietly_when_its_reader_is_gone(shell):
    done = shell("uringblob doctor | true; exit ${PIPESTATUS[0]}")
    assert done.stderr == b""
    assert done.returncode in {0, 1, 2, 3}


SAYING = ["get $STORE $GUID -", "ls $STORE", "ls $STORE --long", "ls $STORE --json", "info $STORE"]
SAYING += ["verify $STORE --json", "doctor", "doctor --json", "--help", "--version", "ls --help"]


@pytest.mark.parametrize("unbuffered", ["1", ""])
@pytest.mark.parametrize("words", SAYING)
def test_output_that_cannot_be_written_fails_whatever_the_command_and_the_buffer(
    shell, store, guids, words, unbuffered
):
    line = f"PYTHONUNBUFFERED={unbuffered} uringblob {words} >/dev/full"
    done = shell(line, STORE=store, GUID=guids[0])
    assert done.returncode == 3
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["1", ""])
def test_a_frame_that_is_written_in_part_is_an_error(shell, store, guids, unbuffered):
    """With a raw standard output the part was taken for the whole, and the exit code was 0."""
    line = f"ulimit -f 2; PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED={unbuffered} uringblob get $STORE $GUID - > part"
    done = shell(f"({line}); code=$?; stat -c %s part; exit $code", STORE=store, GUID=guids[0])
    assert (done.returncode, done.stdout) == (3, b"2048\n")
    assert done.stderr == b"uringblob get: standard output: File too large\n"


@pytest.mark.parametrize("unbuffered", ["1", ""])
def test_a_pipe_that_does_not_block_gets_the_whole_frame(tmp_path, unbuffered):
    """It takes 64 KiB at once, and then nothing until the other end reads."""
    frame, path = os.urandom(1 << 20), str(tmp_path / "large.blobs")
    with FileBlobStore.open(path, page_size=len(frame)) as opened:
        opened.commit([(bytes(16), frame)])
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    command = [sys.executable, "-W", "error", "-m", "uringblob", "get", path, "0" * 32, "-"]
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, stdout=writer, env=env) as child, open(reader, "rb") as got:
        os.close(writer)
        assert got.read() == frame
    assert child.returncode == 0


class Sluggish(io.RawIOBase):
    """A raw stream that transfers three bytes a call, and in every other call nothing."""

    def __init__(self, content=b""):
        self.content, self.calls = bytearray(content), 0
        # Of a pipe both ends are ready when it is empty and its other end is closed, or has room.
        self.ends = os.pipe()

    def fileno(self):
        return self.ends[1] if self.writable() else self.ends[0]

    def turn(self):
        self.calls += 1
        return self.calls % 2

    def close(self):
        if not self.closed:
            list(map(os.close, self.ends))
        super().close()


class SluggishOutput(Sluggish):
    def writable(self):
        return True

    def write(self, data):
        if not self.turn():
            return None
        self.content += bytes(data[:3])
        return min(len(data), 3)


class SluggishInput(Sluggish):
    def __init__(self, content):
        super().__init__(content)
        os.write(self.ends[1], b"ready")

    def read(self, size):
        if not self.turn():
            return None
        part = bytes(self.content[: min(3, size)])
        del self.content[: len(part)]
        return part


@pytest.mark.parametrize("length", [0, 1, 3, 4, 1000])
def test_short_reads_and_writes_transfer_everything(length):
    data = os.urandom(length)
    with SluggishOutput() as below:
        assert FullWriteStream(below).write(data) == length
        assert below.content == data
    with SluggishInput(data) as stream:
        assert read_all(stream, 2000) == data
    with SluggishInput(data) as stream:
        assert read_all(stream, 500) == data[:500]


def test_a_write_of_zero_bytes_is_an_error():
    below = io.BytesIO()
    below.write = lambda _data: 0
    with pytest.raises(OSError, match="no byte"):
        FullWriteStream(below).write(b"x")


def test_the_exit_code_is_right_where_standard_error_is_full(shell, store):
    assert shell("uringblob ls $STORE.none 2>/dev/full", STORE=store).returncode == 3
    assert shell("uringblob ls 2>/dev/full", STORE=store).returncode == 2


def test_the_guids_to_delete_may_come_from_standard_input(shell, store, guids):
    """From a command that has the store open itself, and all in one commit."""
    line = "uringblob ls $STORE | (cat; echo; echo $STRANGE) | uringblob rm $STORE --stdin --force --json"
    done = shell(line, STORE=store, STRANGE="ee" * 16)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["deleted"] == [str(guid) for guid in sorted(guids)]
    assert len(value["missing"]) == 1
    assert shell("uringblob ls $STORE", STORE=store).stdout == b""


def test_a_line_that_is_no_guid_deletes_nothing_and_is_named(shell, store, guids):
    done = shell("(uringblob ls $STORE; echo nonsense) | uringblob rm $STORE --stdin", STORE=store)
    assert done.returncode == 2
    assert b"standard input, line 4: 'nonsense' is no guid" in done.stderr
    assert shell("uringblob ls $STORE", STORE=store).stdout.count(b"\n") == 3


def test_rm_without_a_name_is_wrong_usage(shell, store):
    done = shell("uringblob rm $STORE", STORE=store)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--stdin" in done.stderr


@pytest.mark.parametrize("command", ["ls", "create", "get"])
def test_a_path_that_is_no_utf8_is_escaped(tmp_path, command):
    """A message with it could not be encoded: a traceback, or "wrong usage"."""
    path = os.fsencode(tmp_path) + b"/caf\xe9.blobs"
    words = {"get": ["get", path, "0" * 32, "x"], "create": ["create", path], "ls": ["ls", path]}[command]
    if command == "get":
        FileBlobStore.open(path).close()
    env = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "uringblob", *words], env=env, cwd=tmp_path, capture_output=True
    )
    assert done.returncode == {"get": 1, "create": 0, "ls": 3}[command], done.stderr
    assert rb"/caf\xe9.blobs" in done.stdout + done.stderr
