"""What limits threads and memory here, in words: for those who could not get any more of them."""

from __future__ import annotations

import contextlib
import os
import resource

#: A thread's stack takes 8 MiB of address space, a pool by default 32: with less left, that is what lacks.
_ADDRESS_SPACE_LOW = 64 * 1024 * 1024
_CGROUPS = "/sys/fs/cgroup"
_MY_CGROUPS = "/proc/self/cgroup"


def thread_limits() -> str:
    """Say which limits count threads, what they allow, and how to raise them."""
    known = [f"RLIMIT_NPROC allows this user {_allowed(resource.RLIMIT_NPROC)}"]
    pids = _pids_max()
    if pids:
        known.append(pids)
    if address_space_low():
        known.append(address_space())
    return (
        f"{', '.join(known)}; raise it ('ulimit -u', LimitNPROC= or TasksMax= in a systemd unit, "
        "--pids-limit for a container), or end other threads"
    )


def address_space() -> str:
    """Say what RLIMIT_AS allows, and how to raise it."""
    return (
        f"RLIMIT_AS allows this process {_allowed(resource.RLIMIT_AS)} bytes of address space, "
        f"of which {_address_space_used()} are in use ('ulimit -v', LimitAS=)"
    )


def address_space_low() -> bool:
    """Whether RLIMIT_AS leaves so little that it is what refuses memory."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return limit != resource.RLIM_INFINITY and limit - _address_space_used() < _ADDRESS_SPACE_LOW


def memory_limits() -> str:
    """Say what may have refused memory that nobody wants to lock, and what helps."""
    if address_space_low():
        return address_space()
    return "the system has no memory to give: free some, or ask for fewer buffers"


def _allowed(limit: int) -> str:
    soft, _ = resource.getrlimit(limit)
    return "an unlimited number" if soft == resource.RLIM_INFINITY else str(soft)


def _address_space_used() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return 0  # no /proc here


def _pids_max() -> str:
    """Say what the nearest cgroup that limits threads allows; empty where none does, or none can be seen."""
    try:
        with open(_MY_CGROUPS) as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return ""
    for _, controllers, path in lines:
        if not controllers:
            root = _CGROUPS
        elif "pids" in controllers.split(","):
            root = os.path.join(_CGROUPS, "pids")
        else:
            continue
        folder = path
        while True:
            said = _limit_of(root + folder.rstrip("/"))
            if said:
                return said
            if folder in ("", "/"):
                break
            folder = os.path.dirname(folder)
    return ""


def _limit_of(cgroup: str) -> str:
    with contextlib.suppress(OSError), open(os.path.join(cgroup, "pids.max")) as file:
        most = file.read().strip()
        if most != "max":
            used = "an unknown number"
            with contextlib.suppress(OSError), open(os.path.join(cgroup, "pids.current")) as current:
                used = current.read().strip()
            return f"pids.max of the cgroup {cgroup} allows {most}, of which {used} are in use"
    return ""
