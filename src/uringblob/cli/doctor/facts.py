"""Everything the diagnosis may know, gathered from the findings.

Every field has the value of a machine on which all is well, so that a test names only what is wrong.
Errnos are positive; 0 is "worked".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from uringblob.cli.doctor.check_result import CheckResult
from uringblob.units import ENGINES

#: ``capabilities(7)``.
CAP_IPC_LOCK, CAP_SYS_ADMIN = 14, 21

SECCOMP_OFF, SECCOMP_FILTER = 0, 2


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is so on this machine, for this process."""

    linux: bool = True
    #: (6, 18); (0, 0): unknown.
    kernel: tuple[int, int] = (6, 18)
    #: "docker", "podman", "kubernetes", "lxc", "systemd-nspawn", "container", "gvisor", or "".
    container: str = ""
    #: Runs as a service of systemd.
    systemd_unit: bool = False
    uid: int = 0
    groups: tuple[int, ...] = (0,)
    #: 0: no filter, 2: a filter; -1: unknown.
    seccomp: int = SECCOMP_OFF
    capabilities: int = 0
    #: Capabilities count in the system's own user namespace only.
    user_namespace: bool = False
    #: ``kernel.io_uring_disabled``; -1: this kernel has no such sysctl (before 6.6).
    uring_disabled: int = 0
    uring_group: int = -1

    extension: bool = True
    extension_hidden: bool = False
    extension_reason: str = ""
    #: What pip was given: a directory or URL, or the package's name.
    installed_from: str = "uringblob"
    #: "apt-get", "dnf", "apk", or "" where none of these is here.
    package_manager: str = "apt-get"

    #: Errnos of the three calls with bad arguments; 0: the kernel itself looked at them.
    setup: int = 0
    enter: int = 0
    register: int = 0
    #: Errno of really making a ring with good arguments.
    ring: int = 0

    memlock_bytes: int = -1
    frames_asked: int = 64
    frames_fit: int = 64
    #: Errno that stopped further frames.
    frames_errno: int = 0

    direct: bool = True
    direct_reason: str = ""
    #: The directory, or a store in it, where overwriting takes new room, and why.
    copied: str = ""
    copied_why: str = ""
    #: Errno and words of making and using a real store, per engine; errno -1: failed without one.
    pread_store: int = 0
    pread_text: str = ""
    uring_store: int = 0
    uring_stage: str = ""
    uring_text: str = ""
    #: ``URINGBLOB_ENGINE``, which decides for every store that names no engine.
    engine_variable: str = ""
    directory: str = "."
    mount_point: str = "/"
    file_system: str = "ext4"
    #: The directory is this user's own, and its mode keeps its owner from using it.
    own_and_closed: bool = False
    #: It is not there, and this user may make it.
    can_be_made: bool = False
    #: Where this user can make a directory: the home, if it is writable, or a place for everybody.
    open_place: str = "~"

    @property
    def engine_unknown(self) -> bool:
        """Whether ``URINGBLOB_ENGINE`` is no engine, so that no store opens that names none itself."""
        return self.engine_variable not in {"", *ENGINES}

    def has(self, capability: int) -> bool:
        """Whether the process has this capability where the kernel asks for it."""
        return not self.user_namespace and bool(self.capabilities >> capability & 1)

    @property
    def sysctl_refuses(self) -> bool:
        """Whether ``kernel.io_uring_disabled`` keeps this process from making rings."""
        if self.uring_disabled == 1:
            return not (self.has(CAP_SYS_ADMIN) or self.uring_group in self.groups)
        return self.uring_disabled >= 2


def gather(findings: Iterable[CheckResult]) -> Facts:
    """Make one out of all findings' facts."""
    known: dict[str, object] = {}
    for finding in findings:
        known.update(finding.facts)
    return Facts(**known)  # type: ignore[arg-type]
