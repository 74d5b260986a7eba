"""Why io_uring cannot run here, and the remedy.

Any step may be refused, with almost any errno: setup may be allowed while enter or register is not.
So no decision depends on an errno; it only selects the remedy.  Observed: Docker 25 and
containerd 2 return ``EPERM``, podman and gVisor ``ENOSYS``, one managed Kubernetes ``EOPNOTSUPP``,
RHEL 9 ``EPERM`` by sysctl, a zero memlock limit ``ENOMEM``.
"""

from __future__ import annotations

import errno as _errno

from uringblob.errors import errno_name
from uringblob.limits import address_space, address_space_low, thread_limits

_SECCOMP = "run the container with a seccomp profile that allows io_uring_setup, _enter and _register"
_SYSCTL = "check that 'sysctl kernel.io_uring_disabled' is 0 (1 admits only kernel.io_uring_group)"

_REMEDIES = {
    _errno.EPERM: f"forbidden by seccomp or by sysctl: {_SECCOMP}, and {_SYSCTL}",
    _errno.EACCES: f"forbidden by a security module, seccomp or sysctl: {_SECCOMP}, and {_SYSCTL}",
    _errno.ENOSYS: (
        "the kernel is older than 5.1 or built without io_uring, or a sandbox (gVisor, podman's "
        f"seccomp profile) hides it: use a newer kernel, or {_SECCOMP}"
    ),
    _errno.EOPNOTSUPP: f"the sandbox or kernel has this call switched off: {_SECCOMP}",
    _errno.EINVAL: "the kernel does not know this request: use a newer kernel (5.6 or later)",
    _errno.ENOMEM: "locked memory is used up: raise RLIMIT_MEMLOCK ('ulimit -l', LimitMEMLOCK=), "
    "or ask for fewer buffers or a smaller queue_depth",
    _errno.EMFILE: "no descriptor is left in this process: raise RLIMIT_NOFILE ('ulimit -n')",
    _errno.ENFILE: "no descriptor is left in the system: raise the sysctl fs.file-max",
}


#: Results of a request that needs a kernel thread where none can be started (Linux 6.18).
_NO_THREAD = frozenset({_errno.ECANCELED, _errno.EAGAIN})


class RingUnavailable(Exception):
    """A step of starting io_uring was refused.

    ``stage`` names the step (``"import"``, ``"setup"``, ``"register files"``, ``"nop"``,
    ``"first read"``), ``errno`` the error (0 where there was none), ``hint`` further facts (may be
    empty), ``remedy`` the likely cause and remedy where the errno does not imply them.
    """

    def __init__(self, stage: str, errno: int = 0, hint: str = "", remedy: str = "") -> None:
        super().__init__(stage, errno, hint, remedy)
        self.stage = stage
        self.errno = errno
        self.hint = hint
        self._remedy = remedy

    def __str__(self) -> str:
        answer = f": {errno_name(self.errno)}" if self.errno else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"io_uring refused at {self.stage}{answer}{hint}"

    @property
    def remedy(self) -> str:
        """Likely cause and remedy; empty where the errno implies none."""
        if self._remedy:
            return self._remedy
        if self.errno in _NO_THREAD:
            return f"the kernel has no thread for it, and {thread_limits()}"
        if self.errno == _errno.ENOMEM and address_space_low():
            return address_space()
        return _REMEDIES.get(self.errno, "")

    @property
    def message(self) -> str:
        """What was refused and, where known, the remedy."""
        return f"{self}: {self.remedy}" if self.remedy else str(self)
