"""The pages on the command line, on backups and on running it for years show what works, and the exit codes there are."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

from uringblob import INCOMPLETE
from uringblob.cli import errors

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "users" / "reference" / "cli.md").read_text("utf-8")
YEARS = (DOCS / "operators" / "years.md").read_text("utf-8")
BACKUP = (DOCS / "operators" / "backup.md").read_text("utf-8")


def run_shell_lines(page, directory):
    """Run every line of a page, from the first to the last, in one shell."""
    script = "".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    path = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]
    done = subprocess.run(
        ["sh", "-euc", script],
        cwd=directory,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_shell_lines_work(disk_dir):
    assert " 6\n" in run_shell_lines(PAGE, disk_dir)


def test_the_shell_lines_of_the_page_on_backups_work(disk_dir):
    printed = run_shell_lines(BACKUP, disk_dir)
    assert printed.count("equal\n") == 3
    assert "manifest.json" in printed


def test_the_shell_lines_of_the_page_on_years_work(disk_dir):
    printed = run_shell_lines(YEARS, disk_dir)
    assert printed.endswith("equal\n")
    assert printed.count(" 0 bad") == 3


def test_the_page_on_backups_names_the_blob_of_an_incomplete_one():
    assert str(INCOMPLETE) in BACKUP


def test_it_lists_every_exit_code():
    codes = {
        value for name, value in vars(errors).items() if name.startswith("EXIT_") and isinstance(value, int)
    }
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == codes
    assert {int(code) for code in re.findall(r"^  (\d+) ", errors.EXIT_CODES, re.MULTILINE)} == codes
