"""io_uring's three system calls by number: without the extension and without liburing.

Numbers and layouts are the kernel's (``linux/io_uring.h``), the same on every architecture but alpha.
Everything returns ``>= 0`` or ``-errno``.  Checked on Linux 6.18.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any, Final

from uringblob.errors import errno_name

SETUP, ENTER, REGISTER = 425, 426, 427
REGISTER_BUFFERS, UNREGISTER_BUFFERS, REGISTER_PROBE = 0, 1, 8

_PARAMS_SIZE: Final = 120
_FLAGS_AT, _FEATURES_AT = 8, 20
_PROBE_OPS_MAX: Final = 256
_PROBE_HEAD, _PROBE_OP = 16, 8
_OP_SUPPORTED: Final = 1


def call(number: int, *arguments: Any) -> int:
    """Make one system call; only on Linux, because elsewhere the numbers are those of other calls."""
    if not sys.platform.startswith("linux"):
        return -errno.ENOSYS
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    ctypes.set_errno(0)
    answer = int(libc.syscall(ctypes.c_long(number), *passed))
    return answer if answer >= 0 else -ctypes.get_errno()


def answer_text(answer: int) -> str:
    """Return the number, or the errno's name."""
    return str(answer) if answer >= 0 else errno_name(-answer).split()[0]


@contextlib.contextmanager
def raw_ring(entries: int = 1, flags: int = 0) -> Iterator[tuple[int, int]]:
    """Make a ring with these ``IORING_SETUP_*`` flags; yield its descriptor or ``-errno``, and its features."""
    params = ctypes.create_string_buffer(_PARAMS_SIZE)
    struct.pack_into("=I", params, _FLAGS_AT, flags)
    fd = call(SETUP, entries, ctypes.byref(params))
    try:
        yield fd, struct.unpack_from("=I", params, _FEATURES_AT)[0]
    finally:
        if fd >= 0:
            os.close(fd)


def probe(fd: int) -> frozenset[int] | int:
    """Return the opcodes that the kernel supports, or ``-errno``."""
    answer = ctypes.create_string_buffer(_PROBE_HEAD + _PROBE_OPS_MAX * _PROBE_OP)
    rc = call(REGISTER, fd, REGISTER_PROBE, ctypes.byref(answer), _PROBE_OPS_MAX)
    if rc < 0:
        return rc
    count = struct.unpack_from("=B", answer, 1)[0]
    entries = (struct.unpack_from("=BBH", answer, _PROBE_HEAD + _PROBE_OP * i) for i in range(count))
    return frozenset(opcode for opcode, _, flags in entries if flags & _OP_SUPPORTED)


def try_register_memory(fd: int, address: int, size_bytes: int) -> int:
    """Register one buffer and unregister it; return 0 or ``-errno``."""
    iovec = ctypes.create_string_buffer(struct.pack("=QQ", address, size_bytes), 16)
    rc = call(REGISTER, fd, REGISTER_BUFFERS, ctypes.byref(iovec), 1)
    if rc >= 0:
        call(REGISTER, fd, UNREGISTER_BUFFERS, None, 0)
    return rc
