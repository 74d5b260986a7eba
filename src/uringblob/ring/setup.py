"""Opening a ring: a ladder of set-up flags, and the probe.

Checked on Linux 6.18 with liburing 2.3.  The ladder steps down on any refusal, because an old kernel
answers EINVAL to a flag it does not know, and a seccomp filter may answer anything.  Not on the ladder:

* ``NO_SQARRAY`` (1 << 16): older liburing does not know it, and resubmits entry 0 for ever;
* ``SINGLE_ISSUER``, ``DEFER_TASKRUN``: they bind the ring to the thread that made it;
* ``SQPOLL``: a kernel thread that spins, for a library that submits once per tick.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Sequence
from typing import Any, Final

from uringblob._native.types import CRing, Ffi, Lib
from uringblob.errors import check_rc

OPCODES_PROBED: Final = 128


class SetupFlags(enum.IntFlag):
    """``IORING_SETUP_*``: those that a ring here can have."""

    NONE = 0
    CLAMP = 1 << 4
    SUBMIT_ALL = 1 << 7  # Linux 5.18
    COOP_TASKRUN = 1 << 8  # Linux 5.19
    TASKRUN_FLAG = 1 << 9  # Linux 5.19, with COOP_TASKRUN


#: Tried in order; the first that the kernel accepts is used.
SETUP_LADDER: Final[tuple[SetupFlags, ...]] = (
    SetupFlags.CLAMP | SetupFlags.SUBMIT_ALL | SetupFlags.COOP_TASKRUN,
    SetupFlags.CLAMP | SetupFlags.SUBMIT_ALL,
    SetupFlags.CLAMP,
    SetupFlags.NONE,
)

#: ``IORING_SETUP_*``, by bit (Linux 6.18), that the queues of ``ub_ring.c`` do not support.
_UNSUPPORTED: Final = dict(enumerate("IOPOLL SQPOLL SQ_AFF CQSIZE".split())) | dict(
    enumerate(
        "SQE128 CQE32 SINGLE_ISSUER DEFER_TASKRUN NO_MMAP REGISTERED_FD_ONLY NO_SQARRAY HYBRID_IOPOLL "
        "CQE_MIXED SQE_MIXED".split(),
        start=10,
    )
)
_UNSUPPORTED.update({5: "ATTACH_WQ", 6: "R_DISABLED"})


def blank_ring(ffi: Ffi) -> CRing:
    """Return the memory of a ring that is not open.

    It has no destructor.  In a garbage cycle cffi's destructors and Python's finalizers run in any
    order, and a ring's finalizer would use freed memory (seen as "corrupted double-linked list" at
    interpreter exit).  Plain memory is freed with its last reference, after all finalizers.
    """
    c_ring: CRing = ffi.new("struct ub_ring *")
    c_ring.fd = -1
    return c_ring


def open_ring(
    ffi: Ffi, lib: Lib, c_ring: CRing, entries: int, ladder: Sequence[SetupFlags] = SETUP_LADDER
) -> Any:
    """Open ``c_ring`` and return its ``cqe_buffer``, which the caller keeps alive.

    :raises OSError: the kernel refuses every rung; ``c_ring`` is unchanged.
    :raises ValueError: there is no rung, or one has a flag that no ring here can have.
    """
    rungs = [_checked(flags) for flags in ladder]
    if not rungs:
        raise ValueError("the setup ladder is empty: give at least one set of flags, such as SetupFlags.NONE")
    rc = 0
    for flags in rungs:
        rc = lib.ub_open(c_ring, entries, flags)
        if rc >= 0:
            break
    check_rc(rc, f"io_uring_setup of {entries} entries")
    c_ring.cqe_buffer = cqe_buffer = ffi.new("struct ub_completion[]", c_ring.cq_entries)
    return cqe_buffer


def _checked(flags: int) -> int:
    """Return one rung; ``ub_open`` answers EINVAL to a bit without a name, as a kernel does."""
    number = operator.index(flags)
    if not 0 <= number < 1 << 32:
        raise ValueError(f"setup flags are 32 bits, not {number:#x}")
    refused = [name for bit, name in _UNSUPPORTED.items() if number >> bit & 1]
    if refused:
        served = ", ".join(flag.name or "" for flag in SetupFlags if flag)
        raise ValueError(
            f"a Ring cannot be set up with {', '.join(refused)}, for which its queues are not made: leave it out "
            f"of setup_ladder, where {served} may be"
        )
    return number


def probe_opcodes(ffi: Ffi, lib: Lib, c_ring: CRing) -> frozenset[int]:
    """Return the opcodes of this kernel; empty where it has no probe (before 5.6)."""
    supported = ffi.new("uint8_t[]", OPCODES_PROBED)
    if lib.ub_probe(c_ring, supported, OPCODES_PROBED) < 0:
        return frozenset()
    return frozenset(opcode for opcode in range(OPCODES_PROBED) if supported[opcode])
