"""io_uring itself: the three calls, set-up flags, features, opcodes, and memory to register."""

from __future__ import annotations

import errno
import resource
import sys
from typing import Any, Final

from uringblob.buffers.slab import Slab
from uringblob.cli.doctor import raw_calls
from uringblob.cli.doctor.check_result import CheckResult, Level
from uringblob.errors import errno_name
from uringblob.ring.ops import Opcode
from uringblob.units import PAGE_SIZE

#: Asked with arguments that no kernel accepts; these are the answers of one that looked at them.
#: (Setup faults on the missing parameters; enter and register see descriptor -1, which newer kernels
#: take as "no ring" and refuse as an argument.)
BAD_ARGUMENTS: Final[dict[str, tuple[tuple[Any, ...], set[int]]]] = {
    "setup": ((raw_calls.SETUP, 0, None), {errno.EFAULT, errno.EINVAL}),
    "enter": ((raw_calls.ENTER, -1, 0, 0, 0, None, 0), {errno.EBADF, errno.EINVAL}),
    "register": ((raw_calls.REGISTER, -1, 0, None, 0), {errno.EBADF, errno.EINVAL}),
}
#: How many frames a store asks for.
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
    "DEFER_TASKRUN": 1 << 12 | 1 << 13,  # it needs the one before
    "NO_SQARRAY": 1 << 16,
}
FEATURES: Final = """
    SINGLE_MMAP NODROP SUBMIT_STABLE RW_CUR_POS CUR_PERSONALITY FAST_POLL POLL_32BITS SQPOLL_NONFIXED
    EXT_ARG NATIVE_WORKERS RSRC_TAGS CQE_SKIP LINKED_FILE REG_REG_RING RECVSEND_BUNDLE MIN_TIMEOUT
    RW_ATTR NO_IOWAIT
""".split()


def check_calls() -> CheckResult:
    """Each call with bad arguments, so that nothing is made: did the kernel look at them?"""
    if not sys.platform.startswith("linux"):
        return CheckResult(
            "system calls", "none: not Linux", Level.NOTE, dict.fromkeys(BAD_ARGUMENTS, errno.ENOSYS)
        )
    answers = {name: -raw_calls.call(*arguments) for name, (arguments, _) in BAD_ARGUMENTS.items()}
    refused = {name: 0 if answer in BAD_ARGUMENTS[name][1] else answer for name, answer in answers.items()}
    words = [
        f"{name} {errno_name(answer).split()[0]}" + (" (refused)" if refused[name] else " (allowed)")
        for name, answer in answers.items()
    ]
    level = Level.BAD if any(refused.values()) else Level.GOOD
    return CheckResult("system calls", ", ".join(words), level, refused, answers)


def check_ring() -> CheckResult:
    """A real ring, then every flag, feature and opcode of it."""
    if not sys.platform.startswith("linux"):
        return CheckResult("ring", "none: not Linux", Level.NOTE, {"ring": errno.ENOSYS})
    ring = raw_calls.make_ring(8)
    if ring.fd < 0:
        return CheckResult("ring", f"refused: {errno_name(-ring.fd)}", Level.BAD, {"ring": -ring.fd})
    try:
        opcodes = raw_calls.probe(ring.fd)
    finally:
        ring.close()
    flags = {name: _flag_answer(value) for name, value in SETUP_FLAGS.items()}
    features = [name for bit, name in enumerate(FEATURES) if ring.features >> bit & 1]
    ours = {op.name: not isinstance(opcodes, int) and int(op) in opcodes for op in Opcode}
    lacking = [name for name, there in ours.items() if not there]
    count = f"no probe ({errno_name(-opcodes)})" if isinstance(opcodes, int) else f"{len(opcodes)} opcodes"
    text = f"made; {count}, of ours " + (f"without {' '.join(lacking)}" if lacking else f"all {len(ours)}")
    detail = {"setup_flags": flags, "features": features, "opcodes": ours}
    return CheckResult("ring", text, Level.NOTE if lacking else Level.GOOD, {"ring": 0}, detail)


def _flag_answer(flags: int) -> str:
    """Make a ring with these flags: ``yes`` or the errno's name."""
    ring = raw_calls.make_ring(1, flags)
    ring.close()
    return "yes" if ring.fd >= 0 else errno_name(-ring.fd).split()[0]


def check_memory() -> CheckResult:
    """The limit of locked memory, and how many frames really register."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    words = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit >> 10} KiB"
    fits, refusal = _frames_that_fit(FRAMES, PAGE_SIZE)
    facts = {
        "memlock_bytes": -1 if limit == resource.RLIM_INFINITY else limit,
        "frames_asked": FRAMES,
        "frames_fit": fits,
        "frames_errno": refusal,
    }
    why = f": {errno_name(refusal)}" if refusal else ""
    text = f"limit {words}; {fits} of {FRAMES} frames of {PAGE_SIZE >> 10} KiB register{why}"
    return CheckResult("locked memory", text, Level.NOTE if refusal else Level.GOOD, facts)


def _frames_that_fit(count: int, frame_size: int) -> tuple[int, int]:
    """Return how many frames register at once, and the errno that stopped more (0: all did)."""
    ring = raw_calls.make_ring()
    if ring.fd < 0:
        return 0, -ring.fd
    slab = Slab(frame_size, count)
    try:
        refusal = -_try_register(ring.fd, slab, count)
        if not refusal:
            return count, 0
        fits, too_many = 0, count
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            fits, too_many = (
                (middle, too_many) if not _try_register(ring.fd, slab, middle) else (fits, middle)
            )
        return fits, refusal
    finally:
        ring.close()


def _try_register(fd: int, slab: Slab, count: int) -> int:
    rc = raw_calls.register_memory(fd, slab.address, count * slab.frame_size)
    if rc >= 0:
        raw_calls.unregister_memory(fd)
        return 0
    return rc
