"""The command's screen and its JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from uringblob.cli import main
from uringblob.cli.doctor import command as doctor_command
from uringblob.cli.doctor.checks import run_check
from uringblob.cli.doctor.command import screen
from uringblob.cli.doctor.diagnosis import Cause, Diagnosis
from uringblob.cli.doctor.facts import CheckResult, Level
from uringblob.cli.doctor.smoke_test import check_store
from uringblob.sync.file_store import FileBlobStore

pytestmark = pytest.mark.one_interpreter  # it looks at the machine, not at the interpreter


def run(*arguments):
    command = [sys.executable, "-m", "uringblob", "doctor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_sound_machine_fits_on_a_screen(needs_uring, disk_dir, monkeypatch):
    monkeypatch.delenv("URINGBLOB_ENGINE", raising=False)
    seen = run(disk_dir)
    assert seen.returncode == 0, seen.stdout
    lines = seen.stdout.splitlines()
    assert len(lines) < 25
    assert lines[18].startswith("io_uring works here")
    assert "could not be checked" not in seen.stdout
    assert "\x1b" not in seen.stdout


def test_json_says_the_same_and_everything(disk_dir):
    seen = run(disk_dir, "--json")
    told = json.loads(seen.stdout)
    assert told["exit_code"] == seen.returncode
    assert len(told["findings"]) == 17
    assert "setup_flags" in told["findings"]["ring"]["detail"] or seen.returncode


def test_verbose_names_flags_features_and_opcodes(needs_uring, disk_dir):
    out = run(disk_dir, "-v").stdout
    assert "CLAMP yes" in out
    assert "NODROP" in out
    assert "WRITE_FIXED yes" in out


def test_help_has_examples_and_exit_codes():
    out = run("--help").stdout
    assert "examples:" in out
    assert "exit codes:" in out


def test_a_check_that_breaks_hides_no_other():
    def broken():
        raise ZeroDivisionError("of all things")

    found = run_check(broken)
    assert found.level is Level.NOTE
    assert "ZeroDivisionError: of all things" in found.text


def test_further_causes_come_after_the_first():
    causes = (Cause("a", "first", "fix first"), Cause("b", "second", "fix second"))
    text = screen({"x": CheckResult("y")}, Diagnosis(1, "no: first", causes), coloured=True)
    assert "\x1b[32mok\x1b[0m x" in text
    assert text.splitlines()[-3:] == ["  fix it: fix first", "also: second", "  then: fix second"]


def test_a_cause_without_a_remedy_is_named():
    causes = (Cause("a", "first", ""), Cause("b", "second", "fix second"))
    text = screen({"x": CheckResult("y")}, Diagnosis(1, "no: first", causes))
    assert text.splitlines()[-3:] == ["no: first", "also: second", "  then: fix second"]


def test_a_store_that_gives_back_another_frame_is_no_store(disk_dir, monkeypatch):
    """The proof compares: an engine that reads nonsense is worse than one that is refused."""

    def read_blob(store, guid, dst):
        dst[:] = bytes(len(dst))

    monkeypatch.setattr(FileBlobStore, "read_blob", read_blob)
    found = check_store("pread", str(disk_dir))
    assert found.level is Level.BAD
    assert found.text == "no: the frame read is not the frame written"
    assert found.facts["pread_store"] == -1
    assert os.listdir(disk_dir) == []


def test_interrupted_it_says_so_in_one_line(monkeypatch, capsys):
    def run_checks(directory):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor_command, "run_checks", run_checks)
    assert main.main(["doctor"]) == 130
    assert capsys.readouterr().err == "uringblob doctor: interrupted\n"


def test_it_needs_no_extra(disk_dir):
    """The doctor alone imports nothing but the library and its two dependencies."""
    code = (
        f"import runpy, sys; sys.modules['rich'] = None; sys.argv = ['x', 'doctor', {str(disk_dir)!r}]; "
        "runpy.run_module('uringblob', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "store on pread" in done.stdout, done.stderr


def test_places_where_no_store_can_be_are_named_with_their_remedy(tmp_path):
    """``mkdir -p /proc`` and ``chown 0 /sys`` were advised, and the name of the smoke test's directory was shown."""
    for place, command in [
        ("/proc", "uringblob doctor ANOTHER_DIRECTORY"),
        (tmp_path / "no such", f"mkdir -p '{tmp_path}/no such'"),
    ]:
        seen = run(place, "--json")
        told = json.loads(seen.stdout)
        assert seen.returncode == 2
        assert told["verdict"] == f"unusable: {place}: ENOENT (No such file or directory)"
        assert told["command"].startswith(command)


def test_a_directory_must_be_named():
    """An unset variable of a script was taken for the current directory, by some of the checks."""
    assert run("").returncode == 2
    assert "DIR is empty" in run("").stderr
