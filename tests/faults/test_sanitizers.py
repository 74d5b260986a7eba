"""The C half under AddressSanitizer and UndefinedBehaviorSanitizer, over the whole native test file and the ring's.

The package is copied to a scratch place and its extension built there with the sanitizers; a child
process runs the tests on it.  A planted overflow shows that the sanitizer is really on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import uringblob

pytestmark = [pytest.mark.one_interpreter, pytest.mark.usefixtures("needs_uring")]

ROOT = Path(__file__).resolve().parents[2]
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1"
SUITES = ["tests/native/test_native.py", "tests/ring/test_submission.py", "tests/ring/test_operations.py"]
#: ``cqe_buffer`` is one completion too short.
PLANTED = ("for (; ring->buffered < ready && bytes", "for (; ring->buffered <= ready && bytes")


def libasan():
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here (Debian: build-essential)")
    found = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=False
    )
    path = found.stdout.strip()
    if not os.path.isabs(path):
        pytest.skip("gcc has no libasan here (Debian: gcc)")
    return path


def build(directory, planted=None):
    """Copy the package into ``directory`` and build its extension there, with the sanitizers."""
    package = directory / "src" / "uringblob"
    shutil.copytree(ROOT / "src" / "uringblob", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    if planted:
        source = package / "_native" / "ub_ring.c"
        text = source.read_text()
        assert planted[0] in text
        source.write_text(text.replace(*planted))
    native = package / "_native"
    make = f"import build_ffi; build_ffi.make_ffibuilder().emit_c_code({str(directory / 'door.c')!r})"
    subprocess.run([sys.executable, "-c", make], cwd=ROOT, check=True)
    include = sysconfig.get_paths()["include"]
    command = ["gcc", "-shared", "-fPIC", *FLAGS.split(), "-DPy_LIMITED_API=0x030A0000", f"-I{include}"]
    sources = [f"-I{native}", str(directory / "door.c"), *map(str, sorted(native.glob("*.c"))), "-luring"]
    subprocess.run([*command, *sources, "-o", str(native / "_uringblob.abi3.so")], check=True)
    return directory / "src"


def run(source, command, **environment):
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
            "PYTHONPATH": os.pathsep.join([str(source), os.environ["PYTHONPATH"]]),
            "LD_PRELOAD": libasan(),
            # The interpreter itself keeps memory until its end; malloc shows each block to the sanitizer.
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
            **environment,
        },
    )


@pytest.mark.slow
def test_native_and_ring_tests_are_clean_under_the_sanitizers(disk_dir):
    libasan()
    source = build(disk_dir)
    where = run(source, ["-c", "import uringblob._native._uringblob as m; print(m.__file__)"])
    assert where.stdout.startswith(str(source)), where
    assert not uringblob.__file__.startswith(str(source))
    done = run(source, ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *SUITES])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "Sanitizer" not in done.stderr + done.stdout
    assert " passed" in done.stdout


def test_a_planted_overflow_is_found(disk_dir):
    libasan()
    source = build(disk_dir, PLANTED)
    fill = "from uringblob.ring import Ring; r = Ring(8); [r.nop() for _ in range(16)]; r._queue.flush(); r.flush()"
    done = run(source, ["-c", fill])
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
