"""The limits of threads and memory in words, for the error of a call that got no more."""

from __future__ import annotations

import os
import resource

#: A thread's stack takes 8 MiB of address space, a pool by default 32; with less than this left, RLIMIT_AS
#: is the likely cause.
_ADDRESS_SPACE_LOW = 64 * 1024 * 1024
_CGROUPS = "/sys/fs/cgroup"
_MY_CGROUPS = "/proc/self/cgroup"


def thread_limits() -> str:
    """Return which limits count threads, what they allow, and how to raise them."""
    known = [
        f"RLIMIT_NPROC allows this user {_allowed(resource.RLIMIT_NPROC)}",
        _pids_max(),
        address_space() if address_space_low() else "",
    ]
    return (
        f"{', '.join(filter(None, known))}; raise it ('ulimit -u', LimitNPROC= or TasksMax= in a systemd unit, "
        "--pids-limit for a container), or end other threads"
    )


def address_space() -> str:
    """Return what RLIMIT_AS allows, and how to raise it."""
    return (
        f"RLIMIT_AS allows this process {_allowed(resource.RLIMIT_AS)} bytes of address space, "
        f"of which {_address_space_used()} are in use ('ulimit -v', LimitAS=)"
    )


def address_space_low() -> bool:
    """Whether RLIMIT_AS leaves so little that it is the likely cause of a failed allocation."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return limit != resource.RLIM_INFINITY and limit - _address_space_used() < _ADDRESS_SPACE_LOW


def memory_limits() -> str:
    """Return what may have refused memory (not locked memory), and the remedy."""
    if address_space_low():
        return address_space()
    return "the system has no memory to give: free some, or ask for fewer buffers"


def _allowed(limit: int) -> str:
    soft, _ = resource.getrlimit(limit)
    return "an unlimited number" if soft == resource.RLIM_INFINITY else str(soft)


def _address_space_used() -> int:
    pages = _read("/proc/self/statm").split()
    return int(pages[0]) * resource.getpagesize() if pages else 0  # no /proc here


def _pids_max() -> str:
    """Return the limit of the nearest cgroup that has one, in words; empty where none is known."""
    for line in _read(_MY_CGROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "pids" not in controllers.split(","):
            continue
        root = os.path.join(_CGROUPS, "pids") if controllers else _CGROUPS
        while not (text := _limit_of(root + path.rstrip("/"))) and path not in ("", "/"):
            path = os.path.dirname(path)
        if text:
            return text
    return ""


def _limit_of(cgroup: str) -> str:
    most, used = (_read(os.path.join(cgroup, name)) for name in ("pids.max", "pids.current"))
    if most in ("", "max"):
        return ""
    return f"pids.max of the cgroup {cgroup} allows {most}, of which {used or 'an unknown number'} are in use"


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
