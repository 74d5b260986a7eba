"""Building the extension: what ``URINGBLOB_EXT=require`` promises, and which interpreters are promised."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_interpreter

ROOT = Path(__file__).resolve().parent.parent


def build(tree, **environment):
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext"],
        cwd=tree,
        env={**os.environ, "URINGBLOB_EXT": "require", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="n/a: the extension is Linux's")
@pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="n/a: no setuptools here")
def test_what_an_earlier_build_left_does_not_stand_in_for_the_extension(tmp_path):
    """A leftover ``build/`` was packed, and the compiler that was required was never run."""
    for name in ("setup.py", "build_ffi.py"):
        shutil.copy(ROOT / name, tmp_path)
    native = "src/uringblob/_native"
    shutil.copytree(ROOT / native, tmp_path / native, ignore=shutil.ignore_patterns("*.so", "_uringblob.c"))
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("build/lib*/uringblob/_native/_uringblob*.so"))
    assert build(tmp_path, CC="false").returncode != 0


@pytest.fixture
def other_pythons(monkeypatch):
    spec = importlib.util.spec_from_file_location("other_pythons", ROOT / "tools" / "other_pythons.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "other_pythons", module)  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


def test_promised_interpreters_that_are_not_here_are_named_once(other_pythons, tmp_path, monkeypatch, capsys):
    (tmp_path / "x.whl").touch()
    promised = other_pythons.versions_promised()
    assert (3, 10) in promised
    found = [other_pythons.Interpreter("", version, "") for version in promised[:-1]]
    monkeypatch.setattr(other_pythons, "other_interpreters", lambda: found)
    monkeypatch.setattr(other_pythons, "run_suite", lambda *_: 0)
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path)])
    assert other_pythons.main() == 0
    major, minor = promised[-1]
    assert capsys.readouterr().out.count(f"not tested on it: CPython {major}.{minor}\n") == 1
    found.append(other_pythons.Interpreter("", promised[-1], ""))
    other_pythons.main()
    assert "not on this machine" not in capsys.readouterr().out
