"""The C half by itself: built as promised, agreeing with the kernel's header, small and clean."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from uringblob import _native
from uringblob.ring import Opcode, SetupFlags, SqeFlags

#: The sources, also where the package that is tested is installed elsewhere.
NATIVE = Path(__file__).resolve().parents[2] / "src" / "uringblob" / "_native"
HEADER = Path("/usr/include/liburing/io_uring.h")


@pytest.fixture
def lib(needs_uring):
    return _native.lib


@pytest.fixture
def compiler():
    found = shutil.which("cc") or shutil.which("gcc")
    if not found or not HEADER.exists():
        pytest.skip("no C compiler or no liburing-dev here")
    return found


@pytest.mark.one_interpreter
def test_the_c_compiles_without_a_warning(compiler, tmp_path):
    command = [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    sources = sorted(NATIVE.glob("ub_*.c"))
    assert sources
    for source in sources:
        subprocess.run([*command, "-c", str(source), "-o", str(tmp_path / "object.o")], check=True)


def test_the_extension_is_one_for_every_python_and_needs_no_liburing_at_run_time(lib):
    [extension] = Path(_native.__file__).parent.glob("_uringblob*.so")  # the one that is imported
    assert extension.name == "_uringblob.abi3.so"
    content = extension.read_bytes()
    if b"liburing.so" in content:
        pytest.skip("n/a: there was no liburing.a to link when this was built")


def header_numbers(pattern):
    return dict(re.findall(pattern, HEADER.read_text()))


@pytest.mark.one_interpreter
def test_numbers_are_those_of_the_kernels_header(compiler, tmp_path):
    known = [name for name in Opcode.__members__ if re.search(rf"\bIORING_OP_{name}\b", HEADER.read_text())]
    lines = [f'printf("{name} %d\\n", (int)IORING_OP_{name});' for name in known]
    lines += [f'printf("IOSQE_{flag.name} %d\\n", (int)IOSQE_{flag.name});' for flag in SqeFlags if flag]
    lines += [
        f'printf("SETUP_{flag.name} %d\\n", (int)IORING_SETUP_{flag.name});' for flag in SetupFlags if flag
    ]
    source = tmp_path / "numbers.c"
    source.write_text(
        "#include <stdio.h>\n#include <liburing.h>\nint main(void) {" + "\n".join(lines) + "return 0; }"
    )
    subprocess.run([compiler, str(source), "-o", str(tmp_path / "numbers")], check=True)
    printed = subprocess.run([str(tmp_path / "numbers")], capture_output=True, text=True, check=True).stdout
    numbers = {name: int(value) for name, value in (line.split() for line in printed.splitlines())}
    ours = {name: int(Opcode[name]) for name in known}
    ours |= {f"IOSQE_{flag.name}": int(flag) for flag in SqeFlags if flag}
    ours |= {f"SETUP_{flag.name}": int(flag) for flag in SetupFlags if flag}
    assert numbers == ours
    assert "NOP" in known


def test_build_ffi_contains_no_c():
    build_ffi = NATIVE.parents[2] / "build_ffi.py"
    assert "{" not in re.sub(r'f"[^"]*"', "", build_ffi.read_text())
    assert not re.search(r"\b(int|void|struct|uint\d+_t) \w+\(", build_ffi.read_text())


def test_a_closed_ring_answers_ebadf_to_everything(lib):
    ffi = _native.ffi
    ring = ffi.new("struct ub_ring *")
    assert lib.ub_open(ring, 8, 0) == 0
    lib.ub_close(ring)
    lib.ub_close(ring)
    assert ring.fd == -1
    answers = [
        lib.ub_submit(ring, ffi.NULL, 0),
        lib.ub_reap(ring, 1),
        lib.ub_wait(ring),
        lib.ub_probe(ring, ffi.NULL, 0),
        lib.ub_register_files(ring, [], 0),
        lib.ub_register_buffers(ring, ffi.NULL, 0),
    ]
    assert set(answers) == {-errno.EBADF}
    assert lib.ub_unregister_files(ring) == lib.ub_unregister_buffers(ring) == 0


def test_more_than_the_queue_holds_is_refused_whole(lib):
    ffi = _native.ffi
    ring = ffi.new("struct ub_ring *")
    assert lib.ub_open(ring, 8, 0) == 0
    cqe_buffer = ring.cqe_buffer = ffi.new("struct ub_completion[]", ring.cq_entries)
    assert lib.ub_submit(ring, ffi.new("struct ub_op[9]"), 9) == -errno.EINVAL
    assert lib.ub_submit(ring, ffi.new("struct ub_op[8]"), 8) == 8
    assert lib.ub_reap(ring, 1) == 8
    assert lib.ub_reap(ring, 1) == 8  # not consumed: the same again
    assert ring.reaped == 0
    ring.consumed = 1
    assert lib.ub_reap(ring, 1) == 0
    assert (ring.accepted, ring.passed, ring.reaped) == (8, 8, 8)
    assert len(cqe_buffer) >= 8
    lib.ub_close(ring)


def test_dioalign(lib, disk_dir, needs_direct):
    ffi = _native.ffi
    fd = os.open(disk_dir / "file", os.O_RDWR | os.O_CREAT)
    memory, offset = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    rc = lib.ub_dioalign(fd, memory, offset)
    os.close(fd)
    assert rc in {0, -errno.EOPNOTSUPP}
    if rc == 0:
        assert memory[0] & (memory[0] - 1) == 0
        assert offset[0] & (offset[0] - 1) == 0
    assert lib.ub_dioalign(-1, memory, offset) == -errno.EBADF


def test_rename_noreplace(lib, disk_dir):
    old, new = disk_dir / "old", disk_dir / "new"
    old.write_text("old")
    new.write_text("new")
    assert lib.ub_rename_noreplace(os.fsencode(old), os.fsencode(new)) == -errno.EEXIST
    assert (old.read_text(), new.read_text()) == ("old", "new")
    new.unlink()
    assert lib.ub_rename_noreplace(os.fsencode(old), os.fsencode(new)) == 0
    assert new.read_text() == "old"


HIDDEN = {
    "by the environment": ({"URINGBLOB_NO_EXT": "1"}, "", "hidden by the environment variable"),
    "on another system": ({}, "import sys; sys.platform = 'darwin'", "Linux only, not on darwin"),
    "not built": ({}, "import sys; sys.modules['uringblob._native._uringblob'] = None", "is not built"),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_the_door_says_why_it_is_closed(case):
    environment, prelude, reason = HIDDEN[case]
    code = f"""{prelude}
from uringblob import _native
from uringblob.ring import Ring
assert _native.lib is None and _native.ffi is None
try:
    Ring(8)
except OSError as error:
    assert str(error) == _native.unavailable_reason, error
    print(error)
"""
    child = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert reason in child.stdout
