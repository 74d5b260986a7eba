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
FIRST_SCREEN_LINES = 54


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


def test_the_first_screen_has_the_alternatives_the_two_commands_the_code_and_the_figures():
    first_screen = "\n".join(README.splitlines()[:FIRST_SCREEN_LINES])
    assert "pip install ." in first_screen
    assert "make demo" in first_screen
    for other in ("SQLite", "LMDB", "plain files", "obstore"):
        assert f"| {other} |" in first_screen
    assert PYTHON_BLOCKS[0] in first_screen
    assert len(PYTHON_BLOCKS[0].splitlines()) <= 22
    assert "(benchmarks/peers.png)" in first_screen
    assert len(re.findall(r"^- .*(?:MB/s|µs)", first_screen, re.MULTILINE)) == 5


def test_the_figures_on_the_first_screen_are_those_of_the_last_run():
    results = "".join(page.read_text("utf-8") for page in (ROOT / "benchmarks").glob("*.md"))
    peers = re.findall(r"^\| ([\w -]+) \|((?: [\d,]+ \|){4})", results, re.MULTILINE)
    table = {name: figures.split() for name, figures in peers}
    lines = re.findall(r"^- (.*MB/s.*)$", README, re.MULTILINE)
    for column, line in zip((0, 2, 4), lines, strict=True):
        assert f"{table['store'][column]} MB/s" in line
        for words, name in {"thread pool": "thread pool", "LMDB": "py-lmdb", "SQLite": "sqlite3"}.items():
            assert re.search(rf"{words}\b[^,]* {table[name][column]}[,.]", line), f"{name}: {line}"


def test_its_links_lead_somewhere():
    used = set(re.findall(r"\]\[([\w ]+)\]", README))
    given = dict(re.findall(r"^\[([\w ]+)\]: (\S+)$", README, re.MULTILINE))
    assert used == set(given)
    for target in given.values():
        assert "://" in target or (ROOT / target).exists(), target


def test_every_option_and_variable_it_names_is_read_somewhere():
    root = Path(__file__).resolve().parent.parent
    sources = [*root.glob("*.py"), *root.glob("src/**/*.py")]
    text = "".join(path.read_text("utf-8") for path in sources)
    for variable in set(re.findall(r"URINGBLOB_\w+", README)):
        assert variable in text, f"{variable} is read nowhere"
