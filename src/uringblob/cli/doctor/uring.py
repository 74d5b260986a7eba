"""The kernel's io_uring: the three calls, set-up flags, features, opcodes, and memory to register.

The calls are made by number, without the extension and without liburing.  Numbers and layouts are the
kernel's (``linux/io_uring.h``), the same on every architecture but alpha.  A call returns ``>= 0`` or ``-errno``.
Checked on Linux 6.18.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import errno
import os
import resource
import struct
import sys
from collections.abc import Iterator
from typing import Any, Final

from uringblob.buffers.slab import Slab
from uringblob.cli.doctor.facts import CheckResult, Level
from uringblob.errors import errno_name
from uringblob.ring.ops import Opcode
from uringblob.units import PAGE_SIZE

SETUP, ENTER, REGISTER = 425, 426, 427
REGISTER_BUFFERS, UNREGISTER_BUFFERS, REGISTER_PROBE = 0, 1, 8

_PARAMS_SIZE: Final = 120
_FLAGS_AT, _FEATURES_AT = 8, 20
_PROBE_OPS_MAX: Final = 256
_PROBE_HEAD, _PROBE_OP = 16, 8
_OP_SUPPORTED: Final = 1

#: Arguments that every kernel rejects, and the errnos of a kernel that checked them: setup faults on the
#: missing parameters; enter and register reject descriptor -1, which newer kernels take as "no ring".
BAD_ARGUMENTS: Final[dict[str, tuple[tuple[Any, ...], set[int]]]] = {
    "setup": ((SETUP, 0, None), {errno.EFAULT, errno.EINVAL}),
    "enter": ((ENTER, -1, 0, 0, 0, None, 0), {errno.EBADF, errno.EINVAL}),
    "register": ((REGISTER, -1, 0, None, 0), {errno.EBADF, errno.EINVAL}),
}
#: The frames that a store registers.
FRAMES: Final = 64

SETUP_FLAGS: Final = {
    "IOPOLL": 1 << 0,
    "SQPOLL": 1 << 1,
    "CLAMP": 1 << 4,
    "SUBMIT_ALL": 1 << 7,
    "COOP_TASKRUN": 1 << 8,
    "SQE128": 1 << 10,
    "CQE32": 1 << 11,
    "SINGLE_ISSUER": 1 << 12,
    "DEFER_TASKRUN": 1 << 12 | 1 << 13,  # it requires SINGLE_ISSUER
    "NO_SQARRAY": 1 << 16,
}
FEATURES: Final = """
    SINGLE_MMAP NODROP SUBMIT_STABLE RW_CUR_POS CUR_PERSONALITY FAST_POLL POLL_32BITS SQPOLL_NONFIXED
    EXT_ARG NATIVE_WORKERS RSRC_TAGS CQE_SKIP LINKED_FILE REG_REG_RING RECVSEND_BUNDLE MIN_TIMEOUT
    RW_ATTR NO_IOWAIT
""".split()


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


def check_calls() -> CheckResult:
    """Whether each call reaches the kernel's own checks; bad arguments, so that nothing is made."""
    answers = {name: -call(*arguments) for name, (arguments, _) in BAD_ARGUMENTS.items()}
    refused = {name: 0 if answer in BAD_ARGUMENTS[name][1] else answer for name, answer in answers.items()}
    words = [
        f"{name} {answer_text(-answer)} ({'refused' if refused[name] else 'allowed'})"
        for name, answer in answers.items()
    ]
    level = Level.BAD if any(refused.values()) else Level.GOOD
    return CheckResult(", ".join(words), level, refused, answers)


def check_ring() -> CheckResult:
    """Make a ring; name its features and opcodes, and the set-up flags that work."""
    with raw_ring(8) as (fd, features):
        if fd < 0:
            return CheckResult(f"refused: {errno_name(-fd)}", Level.BAD, {"ring": -fd})
        opcodes = probe(fd)
    ours = {op.name: not isinstance(opcodes, int) and int(op) in opcodes for op in Opcode}
    lacking = [name for name, there in ours.items() if not there]
    count = f"no probe ({errno_name(-opcodes)})" if isinstance(opcodes, int) else f"{len(opcodes)} opcodes"
    text = f"made; {count}, of ours " + (f"without {' '.join(lacking)}" if lacking else f"all {len(ours)}")
    detail = {
        "setup_flags": {name: _flag_answer(value) for name, value in SETUP_FLAGS.items()},
        "features": [name for bit, name in enumerate(FEATURES) if features >> bit & 1],
        "opcodes": ours,
    }
    return CheckResult(text, Level.NOTE if lacking else Level.GOOD, {"ring": 0}, detail)


def _flag_answer(flags: int) -> str:
    with raw_ring(1, flags) as (fd, _):
        return "yes" if fd >= 0 else answer_text(fd)


def check_memory() -> CheckResult:
    """The limit of locked memory, and how many frames really register."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    unlimited = limit == resource.RLIM_INFINITY
    fit, refusal = _frames_that_fit()
    facts = {
        "memlock_bytes": -1 if unlimited else limit,
        "frames_asked": FRAMES,
        "frames_fit": fit,
        "frames_errno": refusal,
    }
    words = "unlimited" if unlimited else f"{limit >> 10} KiB"
    why = f": {errno_name(refusal)}" if refusal else ""
    text = f"limit {words}; {fit} of {FRAMES} frames of {PAGE_SIZE >> 10} KiB register{why}"
    return CheckResult(text, Level.NOTE if refusal else Level.GOOD, facts)


def _frames_that_fit() -> tuple[int, int]:
    """Return how many frames register at once, and the errno of one frame more (0: all register)."""
    slab = Slab(PAGE_SIZE, FRAMES)
    with raw_ring() as (fd, _):

        def refusal(count: int) -> int:
            return -try_register_memory(fd, slab.address, count * PAGE_SIZE)

        number = -fd if fd < 0 else refusal(FRAMES)
        if fd < 0 or not number:
            return (0 if number else FRAMES), number
        return bisect.bisect_left(range(1, FRAMES), True, key=lambda count: refusal(count) > 0), number
