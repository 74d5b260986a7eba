"""A child in which something is refused, and the doctor looks at it."""

from __future__ import annotations

import os
from pathlib import Path

from behaviour import child_limits, seccomp
from uringblob.cli.doctor import disk
from uringblob.cli.doctor.checks import examine
from uringblob.cli.doctor.command import as_dict


def refused(directory, places, errno):
    """Examine under a filter that answers ``errno`` at each of ``places``."""
    for place in places:
        seccomp.refuse(place, errno)
    return as_dict(examine(directory))


def as_user(directory, user, memlock):
    """Examine as an ordinary user with ``memlock`` bytes of locked memory."""
    examine(directory)  # imports everything while Python itself is within reach
    child_limits.become(user, memlock)
    return as_dict(examine(directory))


def device_as_user(directory, user, sys_block):
    """Look at the device as an ordinary user, with ``sys_block`` for /sys/dev/block."""
    child_limits.become(user, 0)
    found = disk.check_device(directory, Path(sys_block))
    return {"text": found.text, "level": found.level.value}


def with_sysctl_seen_as(directory, value, place, errno):
    """Examine where ``setup`` answers ``errno`` and the sysctl reads as ``value``.

    The real sysctl is the whole machine's, and once 2 it may stay 2: other tests run beside this one.
    What the kernel does then is its one EPERM, which the filter gives; ``Seccomp:`` must read 0 for it.
    """
    from uringblob.cli.doctor import checks as examination
    from uringblob.cli.doctor import host
    from uringblob.cli.doctor.check_result import CheckResult

    seccomp.refuse(place, errno)
    facts = {"uring_disabled": value, "uring_group": -1}
    examination.host.check_sysctl = lambda: CheckResult("sysctl", "shown", facts=facts)
    examination.host.check_seccomp = lambda: CheckResult("seccomp", "shown", facts={"seccomp": 0})
    assert examination.host is host
    return as_dict(examine(directory))


def exhausted(directory):
    """Examine with hardly a descriptor left."""
    import resource

    examine(directory)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 1, 4096))
    return as_dict(examine(directory))
