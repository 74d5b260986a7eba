"""Standard streams that are closed, full, or tied to another command on the same store."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from uringblob import FileBlobStore

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
    ("line", "said"),
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
def test_a_stream_that_is_closed_or_full_is_named(shell, store, guids, line, said):
    """It was a traceback and exit code 1, which says "no such blob"; or an errno that blamed the store."""
    done = shell(line, STORE=store, GUID=guids[0])
    assert (done.returncode, done.stderr) == (3, said)


def test_a_store_never_gets_the_descriptor_of_a_closed_stream(shell, store, guids):
    """Whatever prints an error there, the C library too, would write into the file."""
    line = "uringblob verify $STORE 2>&- >&- <&-; uringblob put $STORE frame 2>&- >&- <&-; uringblob verify $STORE"
    done = shell(f"head -c {PAGE} /dev/zero > frame; {line}", STORE=store)
    assert done.returncode == 0
    assert done.stdout.startswith(b"4 blobs checked, 0 bad")


def test_a_frame_whose_name_could_not_be_printed_is_told_of(shell, store):
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


def test_the_doctor_alone_ends_quietly_when_nobody_reads(shell):
    done = shell(f"{sys.executable} -W error -m uringblob.doctor | true; exit ${{PIPESTATUS[0]}}")
    assert done.stderr == b""
    assert done.returncode in {0, 1, 2}
