"""Describes the extension to cffi; contains no C.

``setup.py`` runs it; ``pip install --editable .`` builds the extension in place.  liburing is
linked statically where ``liburing.a`` is found, so that the wheel needs no library at run time.
The C asks the compiler for ``xxhash.h`` itself (``ub_xxh3.h``); without it Python makes the checksums.
Set ``URINGBLOB_EXT=require`` to turn a failed build of the extension into an error; otherwise
the package installs without it and uses the pread engine.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sysconfig

import cffi

NATIVE = "src/uringblob/_native"

SOURCES = ["ub_ring", "ub_checksum", "ub_checksum_pool", "ub_checksum_avx2", "ub_checksum_avx512"]
HEADERS = ["cdef", "ub_ring", "ub_checksum", "ub_xxh3"]

#: Warnings are errors in our own C only; cffi's generated wrapper is compiled with these too.
C_WARNINGS = ["-Wall", "-Wextra"]


def read_cdef() -> str:
    """Return the declarations for cffi."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), NATIVE, "cdef.h")) as file:
        return file.read()


def find_library(name: str) -> str | None:
    """Return the path of the library ``name`` where the C compiler finds it, or None."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    command = [*compiler, f"-print-file-name={name}"]
    try:
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    # A compiler that did not find it prints the bare name.
    return path if os.path.isabs(path) and os.path.exists(path) else None


def liburing_version() -> str:
    """Return the version in liburing's ``.pc`` file, or ``unknown``; its headers do not have it."""
    for path in filter(None, map(find_library, ("liburing.a", "liburing.so"))):
        try:
            with open(os.path.join(os.path.dirname(path), "pkgconfig", "liburing.pc")) as file:
                found = re.search(r"^Version:\s*([\w.]+)", file.read(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return found.group(1)
    return "unknown"


def make_ffibuilder() -> cffi.FFI:
    """Describe the extension ``uringblob._native._uringblob``."""
    archive = find_library("liburing.a")
    builder = cffi.FFI()
    builder.cdef(read_cdef())
    builder.set_source(
        "uringblob._native._uringblob",
        '#include "ub_ring.h"\n#include "ub_checksum.h"\n',
        sources=[f"{NATIVE}/{name}.c" for name in SOURCES],
        depends=[f"{NATIVE}/{name}.h" for name in HEADERS],
        include_dirs=[NATIVE],
        define_macros=[("UB_LIBURING_VERSION", '"' + liburing_version() + '"')],
        extra_compile_args=C_WARNINGS,
        extra_objects=[archive] if archive else [],
        libraries=[] if archive else ["uring"],
        optional=os.environ.get("URINGBLOB_EXT") != "require",
        py_limited_api=True,
    )
    return builder


ffibuilder = make_ffibuilder()
