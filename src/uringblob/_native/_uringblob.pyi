"""The extension that cffi makes of ``cdef.h`` and ``ub_ring.c``."""

from uringblob._native.types import Ffi, Lib

ffi: Ffi
lib: Lib
