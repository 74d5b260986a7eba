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


@pytest.fixture
def tree(tmp_path):
    """What an extension is built from, and nothing that was built."""
    if not sys.platform.startswith("linux"):
        pytest.skip("n/a: the extension is Linux's")
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("n/a: no setuptools here")
    for name in ("setup.py", "build_ffi.py"):
        shutil.copy(ROOT / name, tmp_path)
    native = "src/uringblob/_native"
    shutil.copytree(ROOT / native, tmp_path / native, ignore=shutil.ignore_patterns("*.so", "_uringblob.c"))
    return tmp_path


def test_what_an_earlier_build_left_does_not_stand_in_for_the_extension(tree):
    """A leftover ``build/`` was packed, and the compiler that was required was never run."""
    done = build(tree)
    assert done.returncode == 0, done.stderr
    assert list(tree.glob("build/lib*/uringblob/_native/_uringblob*.so"))
    assert build(tree, CC="false").returncode != 0


WITHOUT_XXHASH = """
import importlib.util, sys
name = "uringblob._native._uringblob"
spec = importlib.util.spec_from_file_location(name, sys.argv[1])
sys.modules[name] = built = importlib.util.module_from_spec(spec)
spec.loader.exec_module(built)
import xxhash
from uringblob import _native
from uringblob.buffers.checksum import frame_checksum, frame_checksums
from uringblob.buffers.iobuf import IoBuffer, address_of, ffi
data = bytes(range(256)) * 4096
frame = IoBuffer(memoryview(data), address_of(ffi.from_buffer("char[]", data)), len(data))
right = xxhash.xxh3_64_intdigest(data)
print(_native.lib.ub_has_xxh3(), frame_checksum(data) == right, frame_checksums([frame, frame]) == [right] * 2)
"""


def test_without_xxhashs_header_the_extension_builds_and_python_makes_the_checksums(tree):
    done = build(tree, CFLAGS="-DUB_WITHOUT_XXHASH")
    assert done.returncode == 0, done.stderr
    (extension,) = tree.glob("build/lib*/uringblob/_native/_uringblob*.so")
    command = [sys.executable, "-c", WITHOUT_XXHASH, str(extension)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0 True True\n"


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
