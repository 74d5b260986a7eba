"""From facts to causes, the verdict and the exit code.

Who refused a call cannot be deduced from its errno alone (checked on Linux 6.18, and against filters with
several errnos):

* the sysctl causes EPERM, of ``io_uring_setup`` only; enter and register still check their descriptor;
* a seccomp filter returns any errno, from any of the three, and ``Seccomp:`` in ``/proc/self/status`` is 2;
* a kernel without io_uring returns ENOSYS from all three, and has no ``kernel.io_uring_disabled``
  (from Linux 6.6 on, a kernel with io_uring has it);
* EPERM or EACCES without a filter, on a kernel whose sysctl is 0, comes from a security module or from
  an emulated kernel.

Where both sysctl and filter may refuse ``setup``, the one that is certain is named; after its remedy
the next run names the other.
"""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from uringblob.cli.doctor import remedies
from uringblob.cli.doctor.facts import CAP_IPC_LOCK, SECCOMP_OFF, Facts
from uringblob.errors import encodable, errno_name

EXIT_URING, EXIT_FALLBACK, EXIT_UNUSABLE = 0, 1, 2

#: Errnos about resources; the kernel returns them only after it permitted the call.
_RESOURCE_ERRNOS: Final = frozenset({errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE})
#: The first kernels with io_uring, and with its sysctl.
_KERNEL_WITH_RING, _KERNEL_WITH_SYSCTL = (5, 1), (6, 6)
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs", "rootfs"})


class Cause(NamedTuple):
    """Why something does not work, and the command that fixes it, or ""."""

    key: str
    why: str
    command: str = ""


class Diagnosis(NamedTuple):
    """The exit code, the verdict in one line, and every cause; the first is the verdict's."""

    exit_code: int
    verdict: str
    causes: tuple[Cause, ...] = ()

    @property
    def command(self) -> str:
        """The command of the first cause; empty where there is none."""
        return self.causes[0].command if self.causes else ""


def diagnose(facts: Facts) -> Diagnosis:
    """Return the verdict; the exit code depends only on which stores worked."""
    if facts.engine_unknown or (facts.pread_store and facts.uring_store):
        return _verdict(EXIT_UNUSABLE, "unusable", why_unusable(facts))
    if facts.uring_store:
        return _verdict(EXIT_FALLBACK, "the pread engine works here, io_uring does not", why_no_uring(facts))
    limits = why_limited(facts)
    if facts.engine_variable == "pread":
        return _verdict(EXIT_FALLBACK, "the pread engine is used", limits)
    if limits:
        return _verdict(EXIT_URING, "io_uring works here, with a limit", limits)
    return Diagnosis(EXIT_URING, "io_uring works here")


def _verdict(exit_code: int, verdict: str, causes: list[Cause]) -> Diagnosis:
    return Diagnosis(exit_code, f"{verdict}: {causes[0].why}", tuple(causes))


# In each of these functions the order is importance: the first cause that applies gives the verdict.


def why_unusable(facts: Facts) -> list[Cause]:
    """Return why no store can be made here."""
    causes = []
    if facts.engine_unknown:
        variable = f"URINGBLOB_ENGINE={encodable(facts.engine_variable)}"
        why = f"no store opens by itself: {variable} is no engine"
        causes.append(Cause("engine unknown", why, "unset URINGBLOB_ENGINE"))
    if facts.pread_store > 0:
        causes.append(Cause("directory", facts.pread_text, remedies.fix_directory(facts)))
    return causes or [Cause("pread", facts.pread_text, remedies.OTHER_DIRECTORY)]


def why_no_uring(facts: Facts) -> list[Cause]:
    """Return why stores work, but not with io_uring.

    What the kernel refuses comes before a missing extension: building it would not help.
    """
    if not facts.linux:
        return [Cause("not linux", "io_uring exists on Linux only")]
    causes = _refusals(facts)
    number = facts.ring or (0 if facts.uring_stage == "import" else facts.uring_store)
    if _memlock_binds(facts, number):
        why = f"no locked memory is left for a ring: {_memlock_text(facts)}"
        causes.append(Cause("memlock", why, remedies.raise_memlock(facts)))
    if number in {errno.EMFILE, errno.ENFILE}:
        why = f"no descriptor is left ({errno_name(number)})"
        causes.append(Cause("descriptors", why, remedies.MORE_DESCRIPTORS))
    if not facts.extension:
        causes.append(Cause("extension", facts.extension_reason, remedies.build_extension(facts)))
    return causes or [Cause("unexplained", facts.uring_text)]


def why_limited(facts: Facts) -> list[Cause]:
    """Return why io_uring works, but not as well as it could."""
    causes = []
    frames = f"only {facts.frames_fit} of {facts.frames_asked} frames register"
    name = errno_name(facts.frames_errno)
    if facts.engine_variable == "pread":
        why = "io_uring works, but URINGBLOB_ENGINE=pread turns it off"
        causes.append(Cause("engine variable", why, "unset URINGBLOB_ENGINE"))
    if facts.seccomp != SECCOMP_OFF and facts.ring == 0 and _is_refusal(facts.frames_errno):
        why = f"a seccomp filter refuses to register memory ({name})"
        causes.append(Cause("seccomp buffers", why, remedies.allow_in_seccomp(facts)))
    if _memlock_binds(facts, facts.frames_errno):
        why = f"{frames}: {_memlock_text(facts)}"
        causes.append(Cause("memlock frames", why, remedies.raise_memlock(facts)))
    if facts.file_system in _IN_MEMORY:
        place = f"{facts.directory} lies in memory ({facts.file_system})"
        why = f"{place}: nothing there outlives a power cut"
        causes.append(Cause("in memory", why, remedies.OTHER_DIRECTORY))
    if not facts.direct:
        why = f"no O_DIRECT in {facts.directory}: {facts.direct_reason}"
        causes.append(Cause("direct", why, remedies.OTHER_DIRECTORY))
    if facts.copied:
        why = f"on a full disk even a deletion may be refused in {facts.copied}: {facts.copied_why}"
        causes.append(Cause("copied", why, remedies.overwrite_in_place(facts)))
    if not causes and facts.frames_fit < facts.frames_asked:
        causes.append(Cause("frames", f"{frames} ({name})"))
    return causes


def _refusals(facts: Facts) -> list[Cause]:
    """Return what refused the three calls, each with its remedy."""
    numbers = {"setup": facts.setup, "enter": facts.enter, "register": facts.register}
    answers = ", ".join(f"{call} {errno_name(n).split()[0]}" for call, n in numbers.items() if n)
    answers = answers or f"{facts.uring_stage}: {errno_name(facts.uring_store)}"
    causes = []
    if facts.container == "gvisor" and facts.setup:
        why = "gVisor has a kernel of its own, without io_uring"
        remedy = "run it under another runtime (docker run --runtime runc ...)"
        causes.append(Cause("sandbox", why, remedy))
    elif _kernel_lacks_uring(facts):
        kernel = ".".join(map(str, facts.kernel))
        why = f"the kernel ({kernel}) has no io_uring: too old, or built without"
        causes.append(Cause("kernel", why, "boot a kernel of 5.6 or newer with CONFIG_IO_URING=y"))
    elif facts.seccomp != SECCOMP_OFF and _filter_refused(facts):
        why = f"a seccomp filter refuses io_uring ({answers})"
        causes.append(Cause("seccomp", why, remedies.allow_in_seccomp(facts)))
    if facts.sysctl_refuses:
        causes.append(Cause("sysctl", _sysctl_text(facts), remedies.switch_sysctl(facts)))
    if not causes and any(numbers.values()):
        module = "a security module (SELinux, AppArmor) or a sandbox does it"
        why = f"io_uring is refused ({answers}), not by seccomp and not by sysctl: {module}"
        remedy = "sudo journalctl -k --grep 'avc|apparmor|io_uring'   # names the rule"
        causes.append(Cause("security module", why, remedy))
    return causes


def _kernel_lacks_uring(facts: Facts) -> bool:
    if {facts.setup, facts.enter, facts.register} != {errno.ENOSYS}:
        return False
    if facts.seccomp == SECCOMP_OFF or (0, 0) < facts.kernel < _KERNEL_WITH_RING:
        return True
    return facts.kernel >= _KERNEL_WITH_SYSCTL and facts.uring_disabled < 0


def _filter_refused(facts: Facts) -> bool:
    if facts.enter or facts.register:
        return True
    if facts.setup:
        return not (facts.setup == errno.EPERM and facts.sysctl_refuses)
    # The filter passes calls with bad arguments, and may still refuse some requests.
    return facts.extension and facts.ring == 0 and _is_refusal(facts.uring_store)


def _is_refusal(number: int) -> bool:
    return number > 0 and number not in _RESOURCE_ERRNOS


def _memlock_binds(facts: Facts, number: int) -> bool:
    bounded = facts.memlock_bytes >= 0 and not facts.has(CAP_IPC_LOCK)
    return bounded and number in {errno.ENOMEM, errno.EAGAIN}


def _sysctl_text(facts: Facts) -> str:
    if facts.uring_disabled != 1:
        return f"kernel.io_uring_disabled is {facts.uring_disabled}"
    group = f"group {facts.uring_group}" if facts.uring_group >= 0 else "a group that is not set"
    rights = f"user {facts.uid} has no CAP_SYS_ADMIN and is not in kernel.io_uring_group ({group})"
    return f"kernel.io_uring_disabled is 1, and {rights}"


def _memlock_text(facts: Facts) -> str:
    limit = "unlimited" if facts.memlock_bytes < 0 else f"{facts.memlock_bytes >> 10} KiB"
    return f"RLIMIT_MEMLOCK is {limit} for all of user {facts.uid}'s processes, without CAP_IPC_LOCK"
