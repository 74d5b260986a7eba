"""Making a ring: set-up flags as a ladder, and the probe.

Checked on Linux 6.18 with liburing 2.3.  The ladder steps down on any refusal, because an old
kernel answers EINVAL to a flag it does not know and a filter may answer anything.  The C half says
which flags its queues can be used with, and all others are refused by name.  Never on the ladder:

* ``NO_SQARRAY`` (1 << 16): older liburing does not know it, and entry 0 is then sent for ever;
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
    """``IORING_SETUP_*``, those that are used here."""

    NONE = 0
    CLAMP = 1 << 4
    SUBMIT_ALL = 1 << 7  # Linux 5.18
    COOP_TASKRUN = 1 << 8  # Linux 5.19
    TASKRUN_FLAG = 1 << 9  # Linux 5.19, with COOP_TASKRUN


#: Tried in order; the first that the kernel takes is used.
SETUP_LADDER: Final[tuple[SetupFlags, ...]] = (
    SetupFlags.CLAMP | SetupFlags.SUBMIT_ALL | SetupFlags.COOP_TASKRUN,
    SetupFlags.CLAMP | SetupFlags.SUBMIT_ALL,
    SetupFlags.CLAMP,
    SetupFlags.NONE,
)


def blank_core(ffi: Ffi) -> CRing:
    """Return the memory of a ring that is not open.

    It has no destructor.  In a garbage cycle cffi's run in any order with the finalizers of
    Python's objects, and a ring's finalizer that comes second would use freed memory (seen as
    "corrupted double-linked list" at an interrupted program's end).  Plain memory is freed when
    nobody refers to it, and all finalizers have run by then.
    """
    core: CRing = ffi.new("struct ub_ring *")
    core.fd = -1
    return core


def open_core(
    ffi: Ffi, lib: Lib, core: CRing, entries: int, ladder: Sequence[SetupFlags] = SETUP_LADDER
) -> Any:
    """Open ``core`` and return its inbox, which whoever reaps must keep.

    :raises OSError: the kernel refuses every rung; ``core`` is as it was.
    :raises ValueError: there is no rung, or one has a flag that no ring here can have.
    """
    rungs = [_checked(ffi, lib, flags) for flags in ladder]
    if not rungs:
        raise ValueError("the setup ladder is empty: give at least one set of flags, such as SetupFlags.NONE")
    rc = 0
    for flags in rungs:
        rc = lib.ub_open(core, entries, flags)
        if rc >= 0:
            break
    check_rc(rc, f"io_uring_setup of {entries} entries")
    core.inbox = inbox = ffi.new("struct ub_completion[]", core.cq_entries)
    return inbox


def _checked(ffi: Ffi, lib: Lib, flags: int) -> int:
    """Return one rung of a ladder, unless it asks for what the C half cannot serve.

    A bit without a name is left to ``ub_open``, which refuses it as a kernel does that does not know it.
    """
    number = operator.index(flags)
    if not 0 <= number < 1 << 32:
        raise ValueError(f"setup flags are 32 bits, not {number:#x}")
    unserved = lib.ub_unserved_flags(number)
    names = [lib.ub_setup_flag_name(bit) for bit in range(32) if unserved >> bit & 1]
    known = [ffi.string(name).decode() for name in names if name != ffi.NULL]
    if known:
        served = ", ".join(flag.name or "" for flag in SetupFlags if flag)
        raise ValueError(
            f"a Ring cannot be set up with {', '.join(known)}, for which its queues are not made: leave it out "
            f"of setup_ladder, where {served} may be"
        )
    return number


def probe_opcodes(ffi: Ffi, lib: Lib, core: CRing) -> frozenset[int]:
    """Return the opcodes that this kernel has; empty where it cannot be asked (before 5.6)."""
    supported = ffi.new("uint8_t[]", OPCODES_PROBED)
    if lib.ub_probe(core, supported, OPCODES_PROBED) < 0:
        return frozenset()
    return frozenset(opcode for opcode in range(OPCODES_PROBED) if supported[opcode])
