"""What the README and the documentation show works when pasted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_interpreter  # plain use of the library, which the others' suites cover

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
FIRST_SCREEN_LINES = 45


def python_blocks(document):
    return re.findall(r"^```python\n(.*?)^```$", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)


PYTHON_BLOCKS = python_blocks(ROOT / "README.md")
EVERY_BLOCK = [
    pytest.param(block, id=f"{document.relative_to(ROOT)}:{number}")
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for number, block in enumerate(python_blocks(document))
]


@pytest.mark.parametrize("block", EVERY_BLOCK)
def test_each_block_runs_by_itself(block, disk_dir, request):
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
    sources = [*root.glob("*.py"), *root.glob("src/**/*.py")]
    text = "".join(path.read_text("utf-8") for path in sources)
    for variable in set(re.findall(r"URINGBLOB_\w+", README)):
        assert variable in text, f"{variable} is read nowhere"
