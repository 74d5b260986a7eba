"""What cffi needs of setuptools, and nothing else; the rest stands in ``pyproject.toml``."""

from __future__ import annotations

import os
import sys

from setuptools import setup

if sys.platform.startswith("linux"):
    setup(
        cffi_modules=["build_ffi.py:ffibuilder"],
        # One wheel for every CPython from 3.10 on.
        options={
            "bdist_wheel": {"py_limited_api": "cp310"},
            # An extension that an earlier build left in build/ proves nothing: it is compiled again.
            "build_ext": {"force": os.environ.get("URINGBLOB_EXT") == "require"},
        },
    )
else:
    # io_uring is Linux's: elsewhere the package is pure Python and uses the pread engine.
    setup()
