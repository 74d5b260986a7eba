"""Errors in one line, exit codes, help, pipes, colour, interrupts."""

from __future__ import annotations

import errno
import os
import pty
import signal
import subprocess
import sys
import sysconfig

import pytest

from uringblob import BlobStoreIOError, FileBlobStore
from uringblob.cli.main import COMMANDS
from uringblob.cli.output import size_text

COMMAND = [sys.executable, "-X", "faulthandler", "-W", "error", "-m", "uringblob"]


def heed_ctrl_c():
    """A job in a shell's background ignores it, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def child(*argv, **options):
    return subprocess.Popen(
        [*COMMAND, *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_ctrl_c,
        **options,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples_and_exit_codes(run, command):
    result = run(command, "--help")
    assert result.code == 0
    for words in (b"examples:", f"uringblob {command}".encode(), b"exit codes:", b"130"):
        assert words in result.out


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["ls"], 2),
        ([], 2),
        (["get", "STORE", "no guid", "-"], 2),
        # What uuid.UUID takes besides, a typing error of a user would be a name.
        (["get", "STORE", "0x" + 30 * "0", "-"], 2),
        (["get", "STORE", 28 * "0" + "-" + 4 * "0", "-"], 2),
        (["get", "STORE", 15 * "0_" + "00", "-"], 2),
        (["create", "STORE", "--page-size", "5000"], 2),
        (["ls", "NOWHERE"], 3),
        (["info", "/"], 3),
        (["put", "STORE", "NOWHERE"], 3),
    ],
)
def test_errors_are_one_line_and_a_code(run, store, tmp_path, argv, code):
    words = {"STORE": store, "NOWHERE": tmp_path / "nowhere"}
    if argv[:1] == ["create"]:
        words["STORE"] = tmp_path / "new"
    result = run(*(words.get(word, word) for word in argv))
    assert result.code == code
    assert "Traceback" not in result.err
    assert result.err.startswith(("uringblob", "usage:"))


def test_a_locked_store_is_one_line_and_code_3(run, store, guids):
    with FileBlobStore.open(store):
        result = run("rm", store, str(guids[0]), "--lock-timeout", "0")
    assert result.code == 3
    assert "locked by another opener" in result.err
    assert result.err.count("\n") == 1


def test_a_missing_store_is_reported_with_the_command_that_makes_one(run, tmp_path):
    result = run("ls", tmp_path / "nowhere")
    assert (
        result.err == f"uringblob ls: {tmp_path}/nowhere: there is no store; 'uringblob create' makes one\n"
    )


def test_the_command_is_installed():
    # Debian's own Python has its scripts elsewhere than beside itself.
    script = os.path.join(sysconfig.get_path("scripts"), "uringblob")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("uringblob ")


def test_a_closed_pipe_is_no_traceback(store, guids):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "get", store, str(guids[0]), "-"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 3


def test_an_interrupted_put_leaves_the_store_sound(store, guids):
    """It waits for the rest of its frame when Ctrl-C comes."""
    putting = child("put", store, "-", stdin=subprocess.PIPE)
    putting.stdin.write(b"half")
    putting.stdin.flush()
    while not _waits_for_input(putting):
        assert putting.poll() is None, putting.stderr.read()
    putting.send_signal(signal.SIGINT)
    _, err = putting.communicate()
    assert putting.returncode == 130, err
    assert b"interrupted" in err
    assert b"Traceback" not in err
    with FileBlobStore.open(store) as opened:
        assert sorted(opened.list_blobs()) == guids
        assert opened.verify().ok


def _waits_for_input(process):
    """Whether the child's main thread sleeps in a read of its standard input."""
    with open(f"/proc/{process.pid}/syscall") as file:
        call = file.read().split()
    # Not the call's number, which each processor has its own of: descriptor 0 is argument enough.
    return len(call) > 1 and int(call[1], 16) == 0


@pytest.mark.parametrize("wish", ["", "1"])
def test_colour_only_on_a_terminal_that_wants_it(store_path, disk_dir, wish):
    """The notes of a store that was cut short are coloured."""
    with FileBlobStore.open(store_path, page_size=4096) as opened:
        opened.commit([(bytes([n]) * 16, bytes([n]) * 4096) for n in range(9)])
        slot = opened._core._core.index.find(bytes([8]) * 16) >> 64
    os.truncate(store_path, slot * 4096)
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    if wish:
        env["NO_COLOR"] = wish
    leader, follower = pty.openpty()
    done = subprocess.run([*COMMAND, "info", store_path], stdout=follower, env=env, check=False)
    os.close(follower)
    shown = os.read(leader, 10000)
    os.close(leader)
    assert done.returncode == 0
    assert b"too short" in shown
    assert (b"\x1b[33m" in shown) is not bool(wish)
    plain = subprocess.run([*COMMAND, "info", store_path], capture_output=True, env=env, check=True)
    assert b"\x1b" not in plain.stdout


def test_an_error_of_the_disk_is_one_line_with_its_place(run, store, monkeypatch):
    def commit(store, writes):
        raise BlobStoreIOError(errno.EIO, "writing frame x: some.blobs at offset 4096: EIO")

    monkeypatch.setattr(FileBlobStore, "commit", commit)
    result = run("put", store, "-", stdin=bytes(4096))
    assert (result.code, result.out) == (3, b"")
    assert result.err == "uringblob put: writing frame x: some.blobs at offset 4096: EIO\n"


@pytest.mark.parametrize("rich", ["with rich", "without"])
def test_progress_only_on_a_terminal(store, guids, rich):
    """With the extra it is a bar that goes away; without, a line that counts; and nothing in a pipe."""
    pytest.importorskip("rich", reason="n/a: the extra [cli] is not installed")
    hidden = "" if rich == "with rich" else "sys.modules['rich'] = None; "
    code = f"import sys; {hidden}from uringblob.cli.main import main; sys.exit(main(['verify', {store!r}]))"
    leader, follower = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=follower, check=False)
    os.close(follower)
    shown = os.read(leader, 10000).decode()
    os.close(leader)
    assert done.returncode == 0
    assert done.stdout.decode() == "3 blobs checked, 0 bad (12 KiB of good frames)\n"
    assert "verifying" in shown
    if rich == "without":
        assert shown.split("\r")[1:4] == ["verifying 1/3", "verifying 2/3", "verifying 3/3"]
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert piped.stderr == b""


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (4096, "4 KiB"), (524288, "512 KiB"), (1536, "1.5 KiB"), (3 << 40, "3 TiB")],
)
def test_sizes_as_people_read_them(size, text):
    assert size_text(size) == text
