"""Under ``--json`` an error is one JSON object on standard error, with the same exit code as in words.

Before, it was words, and a program that read the results had to parse sentences for the reason.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from uringblob import BlobCorrupt, BlobGuid, BlobStoreIOError, FileBlobStore, StorePoisoned
from uringblob.cli.doctor import command as doctor_command
from uringblob.cli.errors import asks_json
from uringblob.cli.main import COMMANDS
from uringblob.logs import logger

KEYS = {"error", "kind", "command", "exit_code", "path", "guid", "offset", "errno", "errno_name"}
UNKNOWN = str(BlobGuid(b"\xee" * 16))


def failure_in(result):
    """Return the object; there is nothing else on either stream."""
    assert result.out == b""
    (line,) = result.err.splitlines()
    failure = json.loads(line)
    assert set(failure) == KEYS
    assert failure["exit_code"] == result.code != 0
    return failure


@pytest.mark.parametrize(
    ("argv", "code", "known"),
    [
        ([], 2, {"kind": "UsageError", "command": None}),
        (["nonsense"], 2, {"kind": "UsageError"}),
        (["ls"], 2, {"kind": "UsageError", "command": "ls"}),
        (["ls", "STORE", "--nonsense"], 2, {"kind": "UsageError"}),
        (["get", "STORE", "no guid", "x"], 2, {"kind": "UsageError", "command": "get"}),
        (["create", "NEW", "--page-size", "5000"], 2, {"command": "create"}),
        (["create", "STORE"], 3, {"errno": errno.EEXIST, "errno_name": "EEXIST", "path": "STORE"}),
        (["ls", "NEW"], 3, {"kind": "FileNotFoundError", "errno": errno.ENOENT, "path": "NEW"}),
        (["info", "/"], 3, {"command": "info"}),
        (["verify", "NEW"], 3, {"command": "verify", "path": "NEW"}),
        (["vacuum", "NEW"], 3, {"command": "vacuum", "path": "NEW"}),
        (["vacuum", "STORE", "--max-time", "-1"], 2, {"kind": "ValueError", "path": "STORE"}),
        (["repair", "NEW", "SAVED"], 3, {"command": "repair", "path": "NEW"}),
        (["repair", "STORE", "STORE"], 3, {"errno": errno.EEXIST, "path": "STORE"}),
        (["import-holt", "NEW", "STORE"], 3, {"command": "import-holt", "path": "NEW/manifest.bin"}),
        (["put", "STORE", "NEW"], 3, {"errno": errno.ENOENT, "path": "NEW"}),
        (["put", "STORE", os.devnull], 2, {"kind": "CliError", "path": os.devnull}),
        (["get", "STORE", UNKNOWN, "NEW"], 1, {"kind": "BlobNotFound", "guid": UNKNOWN, "path": "STORE"}),
        (["get", "STORE", "GUID", "NEW", "--length", "-1"], 2, {"guid": "GUID", "path": "STORE"}),
        (["get", "STORE", "GUID", "-"], 2, {"guid": "GUID"}),
        (["get", "STORE", "GUID", "STORE"], 2, {"guid": "GUID"}),
        (["get", "STORE", "GUID", "NEW/x"], 3, {"path": "NEW/x", "errno": errno.ENOENT}),
        (["rm", "STORE", UNKNOWN], 1, {"guid": UNKNOWN, "path": "STORE"}),
        (["backup", "NEW", "STORE"], 3, {"path": "NEW", "errno": errno.ENOENT}),
        (["backup", "STORE", "STORE"], 2, {"kind": "ValueError", "path": "STORE"}),
        (["restore", "STORE", "STORE"], 2, {"kind": "CliError", "path": "STORE"}),
        (["diff", "STORE", "NEW"], 3, {"path": "NEW", "errno": errno.ENOENT}),
        (["copy", "STORE", "NEW", "--page-size", "8k"], 2, {"kind": "CliError", "path": "STORE"}),
        (["export", "STORE", "NEW/x"], 3, {"path": "NEW/x", "errno": errno.ENOENT}),
        (["import", "NEW", "STORE"], 3, {"path": "NEW/manifest.json", "errno": errno.ENOENT}),
        (["doctor", ""], 2, {"kind": "UsageError", "command": "doctor"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_of_every_command_is_one_object(run, store, guids, tmp_path, argv, code, known):
    def filled(text):
        for word, path in {"STORE": store, "NEW": tmp_path / "new", "GUID": guids[0]}.items():
            text = text.replace(word, str(path))
        return text

    words = [filled(word) for word in argv]
    failure = failure_in(run(*words, "--json"))
    assert failure["exit_code"] == code == run(*words).code if argv[-1:] != ["-"] else 2
    wanted = {key: filled(value) if isinstance(value, str) else value for key, value in known.items()}
    assert {key: failure[key] for key in known} == wanted


def test_every_command_has_its_errors_here():
    asked = {"create", "info", "ls", "put", "get", "rm", "verify", "repair", "import-holt", "doctor"}
    asked |= {"vacuum", "backup", "restore", "diff", "copy", "export", "import"}
    assert set(COMMANDS) == asked


def test_an_error_of_the_disk_has_its_offset_and_errno(run, store, guids, monkeypatch):
    def commit(store, writes):
        raise BlobStoreIOError(errno.EIO, "writing: EIO", guid=guids[1], offset=8192, applied=None)

    monkeypatch.setattr(FileBlobStore, "commit", commit)
    failure = failure_in(run("put", store, "-", "--json", stdin=bytes(4096)))
    assert failure["error"] == "writing: EIO"
    assert (failure["path"], failure["offset"], failure["guid"]) == (store, 8192, str(guids[1]))
    assert (failure["errno"], failure["errno_name"], failure["exit_code"]) == (errno.EIO, "EIO", 3)


def test_a_poisoned_store_has_the_first_errno(run, store, monkeypatch):
    def commit(store, writes):
        raise StorePoisoned("poisoned") from BlobStoreIOError(errno.ENOSPC, "full", offset=4096)

    monkeypatch.setattr(FileBlobStore, "commit", commit)
    failure = failure_in(run("put", store, "-", "--json", stdin=bytes(4096)))
    assert (failure["errno_name"], failure["offset"]) == ("ENOSPC", 4096)


def test_a_bad_blob_is_named(run, store, guids, monkeypatch):
    def read_blob(store, guid, buf):
        raise BlobCorrupt("bad", guid)

    monkeypatch.setattr(FileBlobStore, "read_blob", read_blob)
    failure = failure_in(run("get", store, guids[2], f"{store}.out", "--json"))
    assert (failure["kind"], failure["guid"], failure["exit_code"]) == ("BlobCorrupt", str(guids[2]), 1)


@pytest.mark.parametrize("command", ["ls", "doctor"])
def test_an_interrupt_is_an_object_too(run, store, monkeypatch, command):
    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(FileBlobStore, "open", interrupted)
    monkeypatch.setattr(doctor_command, "run_checks", interrupted)
    failure = failure_in(run(command, *([store] if command == "ls" else []), "--json"))
    assert (failure["kind"], failure["exit_code"]) == ("KeyboardInterrupt", signal.SIGINT + 128)


def test_output_that_cannot_be_written_is_no_path(store):
    with open("/dev/full", "wb") as full:
        done = _child("-m", "uringblob", "ls", store, "--json", stdout=full)
    failure = json.loads(done.stderr)
    assert (done.returncode, failure["errno_name"], failure["path"]) == (3, "ENOSPC", None)
    assert failure["error"].startswith("standard output: ")


def test_a_closed_pipe_is_reported(store):
    reader, writer = os.pipe()
    os.close(reader)
    done = _child("-m", "uringblob", "ls", store, "--json", stdout=writer)
    os.close(writer)
    assert (done.returncode, json.loads(done.stderr)["errno_name"]) == (3, "EPIPE")


def _child(*argv, stdout=subprocess.PIPE):
    return subprocess.run([sys.executable, *argv], stdout=stdout, stderr=subprocess.PIPE, check=False)


def test_warnings_of_the_log_are_json_lines_of_their_own(run, store, monkeypatch):
    """Without a handler Python prints them as words, and the object would not be alone any more."""

    def opened(*_args, **_options):
        logger.warning("io_uring was refused", extra={"event": "engine_fallback", "errno": errno.EPERM})
        raise BlobStoreIOError(errno.EIO, "then this")

    monkeypatch.setattr(FileBlobStore, "open", opened)
    result = run("ls", store, "--json")
    warning, failure = map(json.loads, result.err.splitlines())
    assert warning == {"warning": "io_uring was refused", "event": "engine_fallback", "errno": errno.EPERM}
    assert failure["error"] == "then this"
    assert not logger.handlers


@pytest.mark.parametrize(
    ("words", "asks"),
    [
        (["ls", "s", "--json"], True),
        (["ls", "s", "--js"], True),
        (["bench", "--json=file"], True),
        (["ls", "s"], False),
        (["rm", "s", "--", "--json"], False),
        (["ls", "--"], False),
        (["ls", "--lock-timeout", "1"], False),
    ],
)
def test_json_is_recognized_in_an_invalid_line(words, asks):
    assert asks_json(words) is asks
