"""The table from facts to causes: whether it applies, why in words, and what mends it.

Order is importance: the first cause that applies is the verdict's, the others are named after it.
What the kernel refuses comes before a missing extension: an extension built in vain helps nobody.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, NamedTuple

from uringblob.cli.doctor import refusals
from uringblob.cli.doctor import remedies as mending
from uringblob.cli.doctor.facts import CAP_IPC_LOCK, Facts
from uringblob.errors import encodable, errno_name


class Cause(NamedTuple):
    """One row.  ``applies`` may assume that the store's trial with io_uring failed, where it is in
    :data:`REFUSALS`; that it worked, where it is in :data:`LIMITS`.
    """

    key: str
    applies: Callable[[Facts], bool]
    why: Callable[[Facts], str]
    mend: Callable[[Facts], str]


def _nothing(_: Facts) -> str:
    return ""


def _answers(facts: Facts) -> str:
    numbers = {"setup": facts.setup, "enter": facts.enter, "register": facts.register}
    said = [f"{name} {errno_name(number).split()[0]}" for name, number in numbers.items() if number]
    return ", ".join(said) or f"{facts.uring_stage}: {errno_name(facts.uring_store)}"


def _sysctl_words(facts: Facts) -> str:
    if facts.uring_disabled != 1:
        return f"kernel.io_uring_disabled is {facts.uring_disabled}"
    group = f"group {facts.uring_group}" if facts.uring_group >= 0 else "a group that is not set"
    return (
        f"kernel.io_uring_disabled is 1, and user {facts.uid} has no CAP_SYS_ADMIN and is not in "
        f"kernel.io_uring_group ({group})"
    )


def _limit_words(facts: Facts) -> str:
    limit = "unlimited" if facts.memlock_bytes < 0 else f"{facts.memlock_bytes >> 10} KiB"
    return f"RLIMIT_MEMLOCK is {limit} for all of user {facts.uid}'s processes, without CAP_IPC_LOCK"


def _memlock_binds(facts: Facts, number: int) -> bool:
    bounded = facts.memlock_bytes >= 0 and not facts.has(CAP_IPC_LOCK)
    return bounded and number in {errno.ENOMEM, errno.EAGAIN}


def _ring_or_store(facts: Facts) -> int:
    return facts.ring or (0 if facts.uring_stage == "import" else facts.uring_store)


#: File systems whose files are nowhere else.
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs", "rootfs"})

#: No store can be made here.
UNUSABLE: Final = (
    Cause(
        "engine unknown",
        lambda f: f.engine_unknown,
        lambda f: f"no store opens by itself: URINGBLOB_ENGINE={encodable(f.engine_variable)} is no engine",
        lambda _: "unset URINGBLOB_ENGINE",
    ),
    Cause("directory", lambda f: f.pread_store > 0, lambda f: f.pread_text, mending.mend_directory),
    Cause("pread", lambda f: f.pread_store != 0, lambda f: f.pread_text, mending.use_other_directory),
)

#: Stores work, but not with io_uring.
REFUSALS: Final = (
    Cause("not linux", lambda f: not f.linux, lambda _: "io_uring exists on Linux only", _nothing),
    Cause(
        "sandbox",
        refusals.sandbox_lacks_it,
        lambda _: "gVisor has a kernel of its own, without io_uring",
        lambda _: "run it under another runtime (docker run --runtime runc ...)",
    ),
    Cause(
        "kernel",
        lambda f: f.linux and refusals.kernel_lacks_it(f),
        lambda f: f"the kernel ({f.kernel[0]}.{f.kernel[1]}) has no io_uring: too old, or built without",
        lambda _: "boot a kernel of 5.6 or newer with CONFIG_IO_URING=y",
    ),
    Cause(
        "seccomp",
        refusals.filter_refused,
        lambda f: f"a seccomp filter refuses io_uring ({_answers(f)})",
        mending.allow_in_seccomp,
    ),
    Cause("sysctl", refusals.sysctl_refused, _sysctl_words, mending.switch_sysctl),
    Cause(
        "security module",
        refusals.module_refused,
        lambda f: (
            f"io_uring is refused ({_answers(f)}), not by seccomp and not by sysctl: a security module "
            "(SELinux, AppArmor) or a sandbox does it"
        ),
        lambda _: "sudo journalctl -k --grep 'avc|apparmor|io_uring'   # names the rule",
    ),
    Cause(
        "memlock",
        lambda f: _memlock_binds(f, _ring_or_store(f)),
        lambda f: f"no locked memory is left for a ring: {_limit_words(f)}",
        mending.raise_memlock,
    ),
    Cause(
        "descriptors",
        lambda f: _ring_or_store(f) in {errno.EMFILE, errno.ENFILE},
        lambda f: f"no descriptor is left ({errno_name(_ring_or_store(f))})",
        mending.raise_descriptors,
    ),
    Cause(
        "extension",
        lambda f: f.linux and not f.extension,
        lambda f: f.extension_reason,
        mending.build_extension,
    ),
    Cause("unexplained", lambda f: f.uring_store != 0, lambda f: f.uring_text, _nothing),
)

#: io_uring works, and could do better.
LIMITS: Final = (
    Cause(
        "engine variable",
        lambda f: f.engine_variable == "pread",
        lambda _: "io_uring works, but URINGBLOB_ENGINE=pread turns it off",
        lambda _: "unset URINGBLOB_ENGINE",
    ),
    Cause(
        "seccomp buffers",
        refusals.filter_refused_memory,
        lambda f: f"a seccomp filter refuses to register memory ({errno_name(f.frames_errno)})",
        mending.allow_in_seccomp,
    ),
    Cause(
        "memlock frames",
        lambda f: _memlock_binds(f, f.frames_errno),
        lambda f: f"only {f.frames_fit} of {f.frames_asked} frames register: {_limit_words(f)}",
        mending.raise_memlock,
    ),
    Cause(
        "frames",
        lambda f: f.frames_fit < f.frames_asked,
        lambda f: f"only {f.frames_fit} of {f.frames_asked} frames register ({errno_name(f.frames_errno)})",
        _nothing,
    ),
    Cause(
        "in memory",
        lambda f: f.file_system in IN_MEMORY,
        lambda f: f"{f.directory} lies in memory ({f.file_system}): nothing there outlives a power cut",
        mending.use_other_directory,
    ),
    Cause(
        "direct",
        lambda f: not f.direct,
        lambda f: f"no O_DIRECT in {f.directory}: {f.direct_reason}",
        mending.use_other_directory,
    ),
    Cause(
        "copied",
        lambda f: bool(f.copied),
        lambda f: f"on a full disk even a deletion may be refused in {f.copied}: {f.copied_why}",
        mending.overwrite_in_place,
    ),
)
#: Rows that stand for what no other row explains.
LAST_RESORTS: Final = frozenset({"unexplained", "frames", "pread"})
