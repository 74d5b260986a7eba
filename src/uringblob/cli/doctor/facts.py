"""What a check returns, and what the diagnosis may use of it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from uringblob.units import ENGINES

#: ``capabilities(7)``.
CAP_IPC_LOCK, CAP_SYS_ADMIN = 14, 21

SECCOMP_OFF, SECCOMP_FILTER = 0, 2


class Level(enum.Enum):
    """How good a result is."""

    GOOD = "good"
    #: It works, but worse than it could; or it is unknown.
    NOTE = "note"
    BAD = "bad"


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    ``facts`` are fields of :class:`Facts`; ``detail`` is what only ``--json`` and ``-v`` show.
    """

    text: str
    level: Level = Level.GOOD
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    detail: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts of all checks.

    The defaults are those of a machine without any fault, so that a test names only what is wrong.
    Errnos are positive; 0 means success.
    """

    linux: bool = True
    kernel: tuple[int, int] = (6, 18)  # (0, 0): unknown
    #: "docker", "podman", "kubernetes", "lxc", "systemd-nspawn", "container", "gvisor", or "".
    container: str = ""
    systemd_unit: bool = False
    uid: int = 0
    groups: tuple[int, ...] = (0,)
    seccomp: int = SECCOMP_OFF  # 2: a filter; -1: unknown
    capabilities: int = 0
    user_namespace: bool = False  # capabilities there do not count for io_uring
    uring_disabled: int = 0  # the sysctl; -1: this kernel has none (before 6.6)
    uring_group: int = -1

    extension: bool = True
    extension_hidden: bool = False
    extension_reason: str = ""
    installed_from: str = "uringblob"  # the arguments of pip install
    package_manager: str = "apt-get"  # "dnf", "apk", or "" for any other

    #: Errnos of the three calls with bad arguments; 0: they reached the kernel's own checks.
    setup: int = 0
    enter: int = 0
    register: int = 0
    ring: int = 0  # with good arguments

    memlock_bytes: int = -1
    frames_asked: int = 64
    frames_fit: int = 64
    frames_errno: int = 0  # of registering one more

    direct: bool = True
    direct_reason: str = ""
    #: The directory, or a store in it, where overwriting takes new room, and why.
    copied: str = ""
    copied_why: str = ""
    #: Errno and message of making and using a real store, by engine; -1: an error without an errno.
    pread_store: int = 0
    pread_text: str = ""
    uring_store: int = 0
    uring_stage: str = ""
    uring_text: str = ""
    engine_variable: str = ""  # URINGBLOB_ENGINE
    directory: str = "."
    mount_point: str = "/"
    file_system: str = "ext4"
    own_and_closed: bool = False  # the directory's owner is this user, and its mode excludes the owner
    can_be_made: bool = False  # the directory does not exist, and this user may make it
    open_place: str = "~"  # another directory, in which this user can make one

    @property
    def engine_unknown(self) -> bool:
        """Whether ``URINGBLOB_ENGINE`` is no engine, so that opening a store without naming one fails."""
        return self.engine_variable not in {"", *ENGINES}

    @property
    def runtime(self) -> str:
        """What started the process: the container's runtime, "systemd", or "" where neither did."""
        return self.container or ("systemd" if self.systemd_unit else "")

    def has(self, capability: int) -> bool:
        """Whether the process has this capability where the kernel checks it."""
        return not self.user_namespace and bool(self.capabilities >> capability & 1)

    @property
    def sysctl_refuses(self) -> bool:
        """Whether ``kernel.io_uring_disabled`` forbids this process to make rings."""
        if self.uring_disabled == 1:
            return not (self.has(CAP_SYS_ADMIN) or self.uring_group in self.groups)
        return self.uring_disabled >= 2


def gather(results: Mapping[str, CheckResult]) -> Facts:
    """Return the facts of all results."""
    known: dict[str, Any] = {}
    for result in results.values():
        known.update(result.facts)
    return Facts(**known)
