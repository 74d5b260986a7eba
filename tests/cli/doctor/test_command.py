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


def test_json_has_every_result(disk_dir):
    seen = run(disk_dir, "--json")
    value = json.loads(seen.stdout)
    assert value["exit_code"] == seen.returncode
    assert len(value["findings"]) == 17
    assert "setup_flags" in value["findings"]["ring"]["detail"] or seen.returncode


def test_verbose_names_flags_features_and_opcodes(needs_uring, disk_dir):
    out = run(disk_dir, "-v").stdout
    assert "CLAMP yes" in out
    assert "NODROP" in out
    assert "WRITE_FIXED yes" in out


def test_help_has_examples_and_exit_codes():
    out = run("--help").stdout
    assert "examples:" in out
    assert "exit codes:" in out


def test_an_exception_of_a_check_is_its_result():
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


def test_an_engine_that_reads_another_frame_does_not_work(disk_dir, monkeypatch):
    """The frame is compared: an engine that reads other bytes is worse than one that is refused."""

    def read_blob(store, guid, dst):
        dst[:] = bytes(len(dst))

    monkeypatch.setattr(FileBlobStore, "read_blob", read_blob)
    found = check_store("pread", str(disk_dir))
    assert found.level is Level.BAD
    assert found.text == "no: the frame read is not the frame written"
    assert found.facts["pread_store"] == -1
    assert os.listdir(disk_dir) == []


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    def run_checks(directory):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor_command, "run_checks", run_checks)
    assert main.main(["doctor"]) == 130
    assert capsys.readouterr().err == "uringblob doctor: interrupted\n"


def test_it_needs_no_extra(disk_dir):
    """The doctor imports nothing but the library and its two dependencies."""
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
        value = json.loads(seen.stdout)
        assert seen.returncode == 2
        assert value["verdict"] == f"unusable: {place}: ENOENT (No such file or directory)"
        assert value["command"].startswith(command)


def test_a_directory_must_be_named():
    """An unset variable of a script was taken for the current directory, by some of the checks."""
    assert run("").returncode == 2
    assert "DIR is empty" in run("").stderr
