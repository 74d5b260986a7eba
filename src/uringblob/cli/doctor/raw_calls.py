"""io_uring's three system calls, bare: they can be asked without the extension, and without liburing.

Numbers and layouts are the kernel's (``linux/io_uring.h``), the same on every architecture but alpha.
Everything returns ``>= 0`` or ``-errno``.  Checked on Linux 6.18.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import Any, Final, NamedTuple

SETUP: Final = 425
ENTER: Final = 426
REGISTER: Final = 427

REGISTER_BUFFERS, UNREGISTER_BUFFERS, REGISTER_PROBE = 0, 1, 8

_PARAMS_SIZE = 120
_FLAGS_AT, _FEATURES_AT = 8, 20
_PROBE_OPS_MAX = 256
_PROBE_HEAD, _PROBE_OP = 16, 8
_OP_SUPPORTED = 1


def call(number: int, *arguments: Any) -> int:
    """Make one system call; on any other system these numbers mean something else, and none is made."""
    if not sys.platform.startswith("linux"):
        return -errno.ENOSYS
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    ctypes.set_errno(0)
    answer = int(libc.syscall(ctypes.c_long(number), *passed))
    return answer if answer >= 0 else -ctypes.get_errno()


class RawRing(NamedTuple):
    """A ring that nobody uses: its descriptor, or ``-errno``, and the kernel's features."""

    fd: int
    features: int = 0

    def close(self) -> None:
        """Close it, if it was made."""
        if self.fd >= 0:
            os.close(self.fd)


def make_ring(entries: int = 1, flags: int = 0) -> RawRing:
    """Ask the kernel for a ring with exactly these ``IORING_SETUP_*`` flags."""
    params = ctypes.create_string_buffer(_PARAMS_SIZE)
    struct.pack_into("=I", params, _FLAGS_AT, flags)
    fd = call(SETUP, entries, ctypes.byref(params))
    return RawRing(fd, struct.unpack_from("=I", params, _FEATURES_AT)[0]) if fd >= 0 else RawRing(fd)


def probe(fd: int) -> frozenset[int] | int:
    """Return the opcodes that the kernel has, or ``-errno``."""
    answer = ctypes.create_string_buffer(_PROBE_HEAD + _PROBE_OPS_MAX * _PROBE_OP)
    rc = call(REGISTER, fd, REGISTER_PROBE, ctypes.byref(answer), _PROBE_OPS_MAX)
    if rc < 0:
        return rc
    count = struct.unpack_from("=B", answer, 1)[0]
    entries = (struct.unpack_from("=BBH", answer, _PROBE_HEAD + _PROBE_OP * i) for i in range(count))
    return frozenset(opcode for opcode, _, flags in entries if flags & _OP_SUPPORTED)


def register_memory(fd: int, address: int, size_bytes: int) -> int:
    """Register one stretch of memory; 0 or ``-errno``."""
    stretch = ctypes.create_string_buffer(struct.pack("=QQ", address, size_bytes), 16)
    return call(REGISTER, fd, REGISTER_BUFFERS, ctypes.byref(stretch), 1)


def unregister_memory(fd: int) -> int:
    """Let go of what :func:`register_memory` registered."""
    return call(REGISTER, fd, UNREGISTER_BUFFERS, None, 0)
