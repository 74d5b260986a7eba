"""From facts to causes, the verdict and the exit code.

Who refused a call cannot be deduced from its errno alone (checked on Linux 6.18, and against filters with
several errnos):

* the sysctl answers EPERM, and to ``io_uring_setup`` only; enter and register still check their descriptor;
* a seccomp filter answers any errno, to any of the three, and ``Seccomp:`` in ``/proc/self/status`` is 2;
* a kernel without io_uring answers ENOSYS to all three, and has no ``kernel.io_uring_disabled``
  (from Linux 6.6 on, a kernel with io_uring has it);
* EPERM or EACCES without a filter, on a kernel whose sysctl is 0, comes from a security module or from
  an emulated kernel.

Where both sysctl and filter may refuse ``setup``, the one that is certain is named; after its remedy
the next run names the other.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from uringblob.cli.doctor import remedies
from uringblob.cli.doctor.facts import CAP_IPC_LOCK, SECCOMP_OFF, Facts
from uringblob.errors import encodable, errno_name

EXIT_URING: Final = 0
EXIT_FALLBACK: Final = 1
EXIT_UNUSABLE: Final = 2

#: Answers about resources; the kernel gives them only after it permitted the call.
RESOURCE_ERRNOS: Final = frozenset({errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE})
#: The first kernels with io_uring, and with its sysctl.
_KERNEL_WITH_RING, _KERNEL_WITH_SYSCTL = (5, 1), (6, 6)
#: File systems without a device.
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs", "rootfs"})

Text = str | Callable[[Facts], str]


class Cause(NamedTuple):
    """One row: when it applies, what it means (a template, or made from the facts), and the remedy, if any."""

    key: str
    applies: Callable[[Facts], bool]
    why: Text
    remedy: Text = ""


class FoundCause(NamedTuple):
    """A cause that applies; ``command`` is its remedy, or empty."""

    key: str
    why: str
    command: str


class Diagnosis(NamedTuple):
    """The exit code, the verdict in one line, and every cause; the first is the verdict's."""

    exit_code: int
    verdict: str
    causes: tuple[FoundCause, ...] = ()

    @property
    def command(self) -> str:
        """The remedy of the first cause; empty where there is none."""
        return self.causes[0].command if self.causes else ""


def _kernel_lacks_it(facts: Facts) -> bool:
    if {facts.setup, facts.enter, facts.register} != {errno.ENOSYS} or facts.container == "gvisor":
        return False
    if facts.seccomp == SECCOMP_OFF or (0, 0) < facts.kernel < _KERNEL_WITH_RING:
        return True
    return facts.kernel >= _KERNEL_WITH_SYSCTL and facts.uring_disabled < 0


def _sandbox_lacks_it(facts: Facts) -> bool:
    return facts.container == "gvisor" and facts.setup != 0


def _filter_refused(facts: Facts) -> bool:
    if facts.seccomp == SECCOMP_OFF or _kernel_lacks_it(facts) or _sandbox_lacks_it(facts):
        return False
    if facts.enter or facts.register:
        return True
    if facts.setup:
        return not (facts.setup == errno.EPERM and facts.sysctl_refuses)
    # The filter passes calls with bad arguments, and may still refuse some requests.
    return facts.extension and facts.ring == 0 and _is_refusal(facts.uring_store)


def _filter_refused_memory(facts: Facts) -> bool:
    return facts.seccomp != SECCOMP_OFF and facts.ring == 0 and _is_refusal(facts.frames_errno)


def _module_refused(facts: Facts) -> bool:
    # By none of the above.
    explained = _kernel_lacks_it(facts) or _sandbox_lacks_it(facts) or _filter_refused(facts)
    return bool(facts.setup or facts.enter or facts.register) and not (explained or facts.sysctl_refuses)


def _is_refusal(number: int) -> bool:
    return number > 0 and number not in RESOURCE_ERRNOS


def _memlock_binds(facts: Facts, number: int) -> bool:
    bounded = facts.memlock_bytes >= 0 and not facts.has(CAP_IPC_LOCK)
    return bounded and number in {errno.ENOMEM, errno.EAGAIN}


def _ring_errno(facts: Facts) -> int:
    return facts.ring or (0 if facts.uring_stage == "import" else facts.uring_store)


def _answers(facts: Facts) -> str:
    numbers = {"setup": facts.setup, "enter": facts.enter, "register": facts.register}
    answers = [f"{name} {errno_name(number).split()[0]}" for name, number in numbers.items() if number]
    return ", ".join(answers) or f"{facts.uring_stage}: {errno_name(facts.uring_store)}"


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


def _few_frames(facts: Facts) -> str:
    return f"only {facts.frames_fit} of {facts.frames_asked} frames register"


# The tables.  Order is importance: the first cause that applies gives the verdict.

#: No store can be made here.
UNUSABLE: Final = (
    Cause(
        "engine unknown",
        lambda f: f.engine_unknown,
        lambda f: f"no store opens by itself: URINGBLOB_ENGINE={encodable(f.engine_variable)} is no engine",
        "unset URINGBLOB_ENGINE",
    ),
    Cause("directory", lambda f: f.pread_store > 0, "{f.pread_text}", remedies.fix_directory),
    Cause("pread", lambda f: f.pread_store != 0, "{f.pread_text}", remedies.OTHER_DIRECTORY),
)

#: Stores work, but not with io_uring.  What the kernel refuses comes before a missing extension:
#: building the extension would not help.
REFUSALS: Final = (
    Cause("not linux", lambda f: not f.linux, "io_uring exists on Linux only"),
    Cause(
        "sandbox",
        _sandbox_lacks_it,
        "gVisor has a kernel of its own, without io_uring",
        "run it under another runtime (docker run --runtime runc ...)",
    ),
    Cause(
        "kernel",
        lambda f: f.linux and _kernel_lacks_it(f),
        "the kernel ({f.kernel[0]}.{f.kernel[1]}) has no io_uring: too old, or built without",
        "boot a kernel of 5.6 or newer with CONFIG_IO_URING=y",
    ),
    Cause(
        "seccomp",
        lambda f: f.linux and _filter_refused(f),
        lambda f: f"a seccomp filter refuses io_uring ({_answers(f)})",
        remedies.allow_in_seccomp,
    ),
    Cause("sysctl", lambda f: f.linux and f.sysctl_refuses, _sysctl_words, remedies.switch_sysctl),
    Cause(
        "security module",
        lambda f: f.linux and _module_refused(f),
        lambda f: (
            f"io_uring is refused ({_answers(f)}), not by seccomp and not by sysctl: a security module "
            "(SELinux, AppArmor) or a sandbox does it"
        ),
        "sudo journalctl -k --grep 'avc|apparmor|io_uring'   # names the rule",
    ),
    Cause(
        "memlock",
        lambda f: _memlock_binds(f, _ring_errno(f)),
        lambda f: f"no locked memory is left for a ring: {_limit_words(f)}",
        remedies.raise_memlock,
    ),
    Cause(
        "descriptors",
        lambda f: _ring_errno(f) in {errno.EMFILE, errno.ENFILE},
        lambda f: f"no descriptor is left ({errno_name(_ring_errno(f))})",
        remedies.MORE_DESCRIPTORS,
    ),
    Cause(
        "extension", lambda f: f.linux and not f.extension, "{f.extension_reason}", remedies.build_extension
    ),
    Cause("unexplained", lambda f: f.uring_store != 0, "{f.uring_text}"),
)

#: io_uring works, and could work better.
LIMITS: Final = (
    Cause(
        "engine variable",
        lambda f: f.engine_variable == "pread",
        "io_uring works, but URINGBLOB_ENGINE=pread turns it off",
        "unset URINGBLOB_ENGINE",
    ),
    Cause(
        "seccomp buffers",
        _filter_refused_memory,
        lambda f: f"a seccomp filter refuses to register memory ({errno_name(f.frames_errno)})",
        remedies.allow_in_seccomp,
    ),
    Cause(
        "memlock frames",
        lambda f: _memlock_binds(f, f.frames_errno),
        lambda f: f"{_few_frames(f)}: {_limit_words(f)}",
        remedies.raise_memlock,
    ),
    Cause(
        "frames",
        lambda f: f.frames_fit < f.frames_asked,
        lambda f: f"{_few_frames(f)} ({errno_name(f.frames_errno)})",
    ),
    Cause(
        "in memory",
        lambda f: f.file_system in IN_MEMORY,
        "{f.directory} lies in memory ({f.file_system}): nothing there outlives a power cut",
        remedies.OTHER_DIRECTORY,
    ),
    Cause(
        "direct",
        lambda f: not f.direct,
        "no O_DIRECT in {f.directory}: {f.direct_reason}",
        remedies.OTHER_DIRECTORY,
    ),
    Cause(
        "copied",
        lambda f: bool(f.copied),
        "on a full disk even a deletion may be refused in {f.copied}: {f.copied_why}",
        remedies.overwrite_in_place,
    ),
)
#: Rows that are named only if no other row applies.
LAST_RESORTS: Final = frozenset({"unexplained", "frames", "pread"})


def diagnose(facts: Facts) -> Diagnosis:
    """Return the verdict: the exit code by the store that worked, the causes from the tables."""
    if facts.engine_unknown or (facts.pread_store and facts.uring_store):
        return _verdict(EXIT_UNUSABLE, "unusable", UNUSABLE, facts)
    if facts.uring_store:
        return _verdict(EXIT_FALLBACK, "the pread engine works here, io_uring does not", REFUSALS, facts)
    if facts.engine_variable == "pread":
        return _verdict(EXIT_FALLBACK, "the pread engine is used", LIMITS, facts)
    limited = _verdict(EXIT_URING, "io_uring works here, with a limit", LIMITS, facts)
    return limited if limited.causes else Diagnosis(EXIT_URING, "io_uring works here")


def _verdict(exit_code: int, verdict: str, table: Sequence[Cause], facts: Facts) -> Diagnosis:
    applying = [cause for cause in table if cause.applies(facts)]
    explained = [cause for cause in applying if cause.key not in LAST_RESORTS] or applying
    causes = tuple(FoundCause(c.key, _why(c, facts), _remedy(c, facts)) for c in explained)
    return Diagnosis(exit_code, f"{verdict}: {causes[0].why}" if causes else verdict, causes)


def _why(cause: Cause, facts: Facts) -> str:
    return cause.why.format(f=facts) if isinstance(cause.why, str) else cause.why(facts)


def _remedy(cause: Cause, facts: Facts) -> str:
    return cause.remedy if isinstance(cause.remedy, str) else cause.remedy(facts)
