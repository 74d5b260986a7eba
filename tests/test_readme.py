"""What the README shows works when pasted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")
PYTHON_BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
FIRST_SCREEN_LINES = 45


@pytest.mark.parametrize("number", range(len(PYTHON_BLOCKS)))
def test_each_block_runs_by_itself(number, disk_dir, request):
    block = PYTHON_BLOCKS[number]
    if "uringblob.ring" in block:
        request.getfixturevalue("needs_uring")
    command = [sys.executable, "-W", "error", "-c", block]
    done = subprocess.run(command, cwd=disk_dir, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_first_screen_has_the_two_commands_and_twenty_lines():
    first_screen = "\n".join(README.splitlines()[:FIRST_SCREEN_LINES])
    assert "make demo" in first_screen
    assert "make test" in first_screen
    assert PYTHON_BLOCKS[0] in first_screen
    assert len(PYTHON_BLOCKS[0].splitlines()) <= 22


def test_every_option_and_variable_it_names_is_read_somewhere():
    root = Path(__file__).resolve().parent.parent
    sources = [*root.glob("*.py"), *root.glob("src/**/*.py"), *root.glob("tests/conftest.py")]
    text = "".join(path.read_text("utf-8") for path in sources)
    for variable in set(re.findall(r"URINGBLOB_\w+", README)):
        assert variable in text, f"{variable} is read nowhere"
