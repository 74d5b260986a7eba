"""XXH3 in C: the bits of the Python package ``xxhash``, for every length and alignment."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import xxhash

from uringblob import _native
from uringblob.buffers.iobuf import address_of, ffi

NATIVE = Path(__file__).resolve().parents[2] / "src" / "uringblob" / "_native"
MIB = 1 << 20
DATA = os.urandom(MIB + 4096)


@pytest.fixture
def lib():
    if _native.lib is None:
        pytest.skip(f"n/a: {_native.unavailable_reason}")
    if not _native.lib.ub_has_xxh3():
        pytest.skip("n/a: built without xxhash.h (Debian: libxxhash-dev)")
    return _native.lib


@pytest.fixture(scope="module")
def memory():
    return ffi.from_buffer("char[]", DATA)


@pytest.fixture
def agree(lib, memory):
    view = memoryview(DATA)
    start = address_of(memory)

    def check(length, shift=0):
        want = xxhash.xxh3_64_intdigest(view[shift : shift + length])
        assert lib.ub_xxh3(start + shift, length) == want, (length, shift)

    return check


def test_every_length_up_to_a_page(agree):
    for length in range(4097):
        agree(length)


def test_pages_up_to_a_mebibyte(agree):
    for length in range(4096, MIB + 1, 4096):
        agree(length)


def test_any_length_at_any_address(agree):
    chosen = random.Random(3)
    for shift in range(64):
        agree(524288, shift)
        agree(chosen.randrange(MIB), shift)
        agree(chosen.randrange(1024), chosen.randrange(4096))


def test_nothing_at_no_address(lib):
    assert lib.ub_xxh3(0, 0) == xxhash.xxh3_64_intdigest(b"")


PROGRAM = """
#include <stdio.h>
#include "ub_checksum.h"
int main(void) { printf("%d\\n", ub_has_xxh3()); return 0; }
"""


@pytest.mark.one_interpreter
def test_without_the_header_it_compiles_and_says_so(tmp_path):
    """Neither without the header, nor with one whose XXH3 was not final yet."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("n/a: no C compiler here")
    (tmp_path / "main.c").write_text(PROGRAM)
    old = tmp_path / "old"
    old.mkdir()
    (old / "xxhash.h").write_text("#define XXH_VERSION_NUMBER 704\n")
    sources = [tmp_path / "main.c", *(set(NATIVE.glob("ub_checksum*.c")) - {NATIVE / "ub_checksum_pool.c"})]
    for flag in ("-DUB_WITHOUT_XXHASH", f"-I{old}"):
        program = tmp_path / "program"
        command = [compiler, "-std=gnu11", "-O2", "-Wall", "-Werror", f"-I{NATIVE}", flag, "-pthread"]
        subprocess.run([*command, *map(str, sources), "-o", str(program)], check=True)
        assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == "0\n"
