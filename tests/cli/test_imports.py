"""A command imports what it uses, and no more."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: What the package itself imports is not the command line's.
CODE = """\
import json, sys, uringblob
before = set(sys.modules)
from uringblob.cli.main import main
try:
    main({argv!r})
except SystemExit:
    pass
print(json.dumps(sorted(name for name in set(sys.modules) - before if name.startswith("uringblob."))))
"""


def imported_by(*argv):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(argv=list(argv))], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("option", ["--version", "--help", "nonsense"])
def test_without_a_command_no_command_is_imported(option):
    assert imported_by(option) == {
        "uringblob.cli",
        "uringblob.cli.errors",
        "uringblob.cli.main",
        "uringblob.cli.stdio",
    }


def test_a_command_imports_no_other():
    names = imported_by("ls", "--help")
    assert "uringblob.cli.ls" in names
    assert not names & {"uringblob.cli.get", "uringblob.cli.atomic_file", "uringblob.cli.doctor"}
