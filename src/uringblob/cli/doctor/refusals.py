"""Who refused a call: sysctl, a seccomp filter, the kernel, a sandbox or a security module.

An errno alone does not tell.  What does (checked on Linux 6.18, and against filters with several errnos):

* the sysctl answers EPERM, and to ``io_uring_setup`` only: enter and register look at their descriptor;
* a seccomp filter answers whatever it was told to, to any of the three, and ``Seccomp:`` in
  ``/proc/self/status`` is then 2;
* a kernel without io_uring answers ENOSYS to all three, and has no ``kernel.io_uring_disabled``
  (from Linux 6.6 on, one with io_uring has);
* a process without any filter, on a kernel whose sysctl is 0, that still gets EPERM or EACCES, was
  refused by a security module or by whatever emulates the kernel.

Where sysctl and filter may both be at work on ``setup``, the one that is certain is named: mending it
brings the other to light.
"""

from __future__ import annotations

import errno

from uringblob.cli.doctor.facts import SECCOMP_OFF, Facts

#: Answers about resources: they come after the permission was given.
RESOURCE_ERRNOS = frozenset({errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE})
#: The first kernels with io_uring, and with its sysctl.
_KERNEL_WITH_RING, _KERNEL_WITH_SYSCTL = (5, 1), (6, 6)


def kernel_lacks_it(facts: Facts) -> bool:
    """Whether the kernel itself has no io_uring."""
    if not facts.linux:
        return True
    if {facts.setup, facts.enter, facts.register} != {errno.ENOSYS} or facts.container == "gvisor":
        return False
    if facts.seccomp == SECCOMP_OFF or (0, 0) < facts.kernel < _KERNEL_WITH_RING:
        return True
    return facts.kernel >= _KERNEL_WITH_SYSCTL and facts.uring_disabled < 0


def sandbox_lacks_it(facts: Facts) -> bool:
    """Whether a sandbox with a kernel of its own has no io_uring."""
    return facts.container == "gvisor" and facts.setup != 0


def sysctl_refused(facts: Facts) -> bool:
    """Whether ``kernel.io_uring_disabled`` is (also) what is in the way."""
    return facts.linux and facts.sysctl_refuses


def filter_refused(facts: Facts) -> bool:
    """Whether a seccomp filter is what answered."""
    if facts.seccomp == SECCOMP_OFF or kernel_lacks_it(facts) or sandbox_lacks_it(facts):
        return False
    if facts.enter or facts.register:
        return True
    if facts.setup:
        return not (facts.setup == errno.EPERM and facts.sysctl_refuses)
    # The calls pass with bad arguments; a filter may still refuse some of their requests.
    return facts.extension and facts.ring == 0 and _forbidden(facts.uring_store)


def filter_refused_memory(facts: Facts) -> bool:
    """Whether a filter forbids to register memory, and nothing else."""
    return facts.seccomp != SECCOMP_OFF and facts.ring == 0 and _forbidden(facts.frames_errno)


def module_refused(facts: Facts) -> bool:
    """Whether somebody answered who is none of the others."""
    if not (facts.setup or facts.enter or facts.register):
        return False
    known = kernel_lacks_it, sandbox_lacks_it, sysctl_refused, filter_refused
    return not any(cause(facts) for cause in known)


def _forbidden(number: int) -> bool:
    return number > 0 and number not in RESOURCE_ERRNOS
