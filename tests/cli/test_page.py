"""The page on the command line shows what works, and the exit codes there are."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

from uringblob.cli import errors

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "users" / "reference" / "cli.md").read_text("utf-8")


def test_its_shell_lines_work(disk_dir):
    (script,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    path = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]
    done = subprocess.run(
        ["sh", "-euc", script],
        cwd=disk_dir,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert " 6\n" in done.stdout


def test_it_lists_every_exit_code():
    codes = {
        value for name, value in vars(errors).items() if name.startswith("EXIT_") and isinstance(value, int)
    }
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == codes
    assert {int(code) for code in re.findall(r"^  (\d+) ", errors.EXIT_CODES, re.MULTILINE)} == codes
