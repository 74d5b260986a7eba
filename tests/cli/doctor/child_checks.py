"""A child in which something is refused, and the doctor checks it."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from behaviour import child_limits, seccomp
from cli.doctor.child_report import report
from uringblob.cli.doctor import disk, machine
from uringblob.cli.doctor.facts import CheckResult


def refused(directory, places, errno):
    """Check under a filter that answers ``errno`` at each of ``places``."""
    for place in places:
        seccomp.refuse(place, errno)
    return report(directory)


def as_user(directory, user, memlock):
    """Check as an ordinary user with ``memlock`` bytes of locked memory."""
    report(directory)  # imports everything while Python itself can be read
    child_limits.become(user, memlock)
    return report(directory)


def device_as_user(directory, user, sys_block):
    """Check the device as an ordinary user, with ``sys_block`` for /sys/dev/block."""
    child_limits.become(user, 0)
    result = disk.check_device(directory, Path(sys_block))
    return {"text": result.text, "level": result.level.value}


def with_sysctl_seen_as(directory, value, place, errno):
    """Check where ``setup`` answers ``errno`` and the sysctl reads as ``value``.

    The real sysctl is the whole machine's, and once 2 it may stay 2: other tests run beside this one.
    The kernel then answers EPERM only, which the filter gives; ``Seccomp:`` must read 0 for it.
    """
    seccomp.refuse(place, errno)
    facts = {"uring_disabled": value, "uring_group": -1}
    machine.check_sysctl = lambda: CheckResult("shown", facts=facts)
    machine.check_seccomp = lambda: CheckResult("shown", facts={"seccomp": 0})
    return report(directory)


def exhausted(directory):
    """Check with hardly a descriptor left."""
    report(directory)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 1, 4096))
    return report(directory)
