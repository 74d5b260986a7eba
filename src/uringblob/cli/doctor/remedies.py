"""The command that removes a cause, for the place where this process runs."""

from __future__ import annotations

import errno
import os
import shlex
from typing import Final

from uringblob.cli.doctor.facts import Facts

OTHER_DIRECTORY: Final = "uringblob doctor ANOTHER_DIRECTORY   # on ext4, xfs or btrfs of a local disk"
MORE_DESCRIPTORS: Final = 'ulimit -n "$(ulimit -Hn)"'

_PROFILE = "docker/seccomp-uringblob.json"
_CALLS = "io_uring_setup io_uring_enter io_uring_register"
#: A compiler, Python's headers, liburing's and xxhash's, by package manager.
_GET_PACKAGES = {
    "apt-get": "apt-get install -y build-essential python3-dev liburing-dev libxxhash-dev",
    "dnf": "dnf install -y gcc python3-devel liburing-devel xxhash-devel",
    "apk": "apk add build-base python3-dev linux-headers liburing-dev xxhash-dev",
}
#: By :attr:`Facts.runtime`; "" for all others.
_ALLOW_IN_SECCOMP = {
    **{tool: f"{tool} run --security-opt seccomp={_PROFILE} ..." for tool in ("docker", "podman")},
    "kubernetes": "kubectl edit the pod's securityContext: "
    "seccompProfile: {type: Localhost, localhostProfile: seccomp-uringblob.json}",
    "systemd-nspawn": f'systemd-nspawn --system-call-filter="{_CALLS}" ...',
    "systemd": f"systemctl edit UNIT, with: SystemCallFilter={_CALLS}",
    "": f"start it under a seccomp profile with {_CALLS.replace(' ', ', ')} (such as {_PROFILE})",
}
_RAISE_MEMLOCK = {
    **{tool: f"{tool} run --ulimit memlock=-1 ..." for tool in ("docker", "podman")},
    "kubernetes": "on the node, in the runtime's unit: LimitMEMLOCK=infinity",
    "systemd": "systemctl edit UNIT, with: LimitMEMLOCK=infinity",
    "": 'sudo prlimit --pid "$$" --memlock=unlimited',
}
#: File systems that are views of the kernel, in which no user can make a file.
_NOT_FOR_FILES = frozenset({"proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs"})


def allow_in_seccomp(facts: Facts) -> str:
    """Return the command that adds the three calls to the seccomp filter."""
    return _ALLOW_IN_SECCOMP.get(facts.runtime, _ALLOW_IN_SECCOMP[""])


def raise_memlock(facts: Facts) -> str:
    """Return the command that raises the limit of locked memory."""
    return _RAISE_MEMLOCK.get(facts.runtime, _RAISE_MEMLOCK[""])


def switch_sysctl(facts: Facts) -> str:
    """Return the command after which ``kernel.io_uring_disabled`` does not bind this process."""
    if facts.uring_disabled == 1 and facts.uring_group >= 0:
        if facts.container:
            return f"{facts.container} run --group-add {facts.uring_group} ..."
        return f'sudo usermod -aG "$(getent group {facts.uring_group} | cut -d: -f1)" "$(id -un)"'
    return f"{'on the host: ' if facts.container else ''}sudo sysctl -w kernel.io_uring_disabled=0"


def build_extension(facts: Facts) -> str:
    """Return the command that builds or unhides the extension."""
    if facts.extension_hidden:
        return "unset URINGBLOB_NO_EXT"
    install = f"URINGBLOB_EXT=require pip install --force-reinstall --no-deps {facts.installed_from}"
    packages = _GET_PACKAGES.get(facts.package_manager)
    if packages is None:
        return f"{install}   # with a C compiler and liburing's headers"
    return f"{'sudo ' if facts.uid else ''}{packages} && {install}"


def overwrite_in_place(facts: Facts) -> str:
    """Return the command that copies a store into a file which is overwritten in place."""
    if facts.copied == facts.directory:
        return OTHER_DIRECTORY
    old, new = shlex.quote(facts.copied), shlex.quote(f"{facts.copied}.copy")
    flag = f" && chattr +C {new}" if facts.file_system == "btrfs" else ""
    return f"touch {new}{flag} && cat {old} > {new} && mv {new} {old}   # while no process has it open"


def fix_directory(facts: Facts) -> str:
    """Return the command after which a store can be made there, or else in another directory."""
    quoted, number = shlex.quote(facts.directory), facts.pread_store
    if facts.file_system in _NOT_FOR_FILES:
        return OTHER_DIRECTORY
    if number == errno.ENOENT and facts.can_be_made:
        return f"mkdir -p {quoted}"
    if number in {errno.EACCES, errno.EPERM} and facts.own_and_closed:
        return f"chmod u+rwx {quoted}"
    if number in {errno.ENOENT, errno.EACCES, errno.EPERM}:
        # Never change the owner or the mode of another user's directory.
        own = shlex.quote(os.path.join(facts.open_place, "uringblob"))
        return f"mkdir -p {own} && uringblob doctor {own}"
    if number in {errno.EMFILE, errno.ENFILE}:
        return MORE_DESCRIPTORS
    return {
        errno.EROFS: f"sudo mount -o remount,rw {shlex.quote(facts.mount_point)}",
        errno.EFBIG: "ulimit -f unlimited",
    }.get(number, OTHER_DIRECTORY)
