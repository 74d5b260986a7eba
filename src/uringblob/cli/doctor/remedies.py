"""The one command that mends a cause, for the place where this process runs."""

from __future__ import annotations

import errno
import os
import shlex

from uringblob.cli.doctor.facts import Facts

_PROFILE = "docker/seccomp-uringblob.json"
_CALLS = "io_uring_setup io_uring_enter io_uring_register"
#: A compiler, Python's headers and liburing's, as each manager names them.
_GET_PACKAGES = {
    "apt-get": "apt-get install -y build-essential python3-dev liburing-dev",
    "dnf": "dnf install -y gcc python3-devel liburing-devel",
    "apk": "apk add build-base python3-dev linux-headers liburing-dev",
}

#: Views of the kernel: nobody can make a file there, whatever the rights.
_NOT_FOR_FILES = frozenset({"proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs"})


def allow_in_seccomp(facts: Facts) -> str:
    """Let a seccomp filter pass the three calls."""
    if facts.container in {"docker", "podman"}:
        return f"{facts.container} run --security-opt seccomp={_PROFILE} ..."
    if facts.container == "kubernetes":
        return (
            "kubectl edit the pod's securityContext: "
            "seccompProfile: {type: Localhost, localhostProfile: seccomp-uringblob.json}"
        )
    if facts.container == "systemd-nspawn":
        return f'systemd-nspawn --system-call-filter="{_CALLS}" ...'
    if facts.systemd_unit:
        return f"systemctl edit UNIT, with: SystemCallFilter={_CALLS}"
    return f"start it under a seccomp profile with {_CALLS.replace(' ', ', ')} (such as {_PROFILE})"


def switch_sysctl(facts: Facts) -> str:
    """Let the sysctl pass this process."""
    where = "on the host: " if facts.container else ""
    if facts.uring_disabled == 1 and facts.uring_group >= 0:
        if facts.container:
            return f"{facts.container} run --group-add {facts.uring_group} ..."
        return f'sudo usermod -aG "$(getent group {facts.uring_group} | cut -d: -f1)" "$(id -un)"'
    return f"{where}sudo sysctl -w kernel.io_uring_disabled=0"


def raise_memlock(facts: Facts) -> str:
    """Let more memory be locked."""
    if facts.container in {"docker", "podman"}:
        return f"{facts.container} run --ulimit memlock=-1 ..."
    if facts.container == "kubernetes":
        return "on the node, in the runtime's unit: LimitMEMLOCK=infinity"
    if facts.systemd_unit:
        return "systemctl edit UNIT, with: LimitMEMLOCK=infinity"
    return 'sudo prlimit --pid "$$" --memlock=unlimited'


def raise_descriptors(_: Facts) -> str:
    """Let more files be open."""
    return 'ulimit -n "$(ulimit -Hn)"'


def build_extension(facts: Facts) -> str:
    """Have the extension."""
    if facts.extension_hidden:
        return "unset URINGBLOB_NO_EXT"
    get = _GET_PACKAGES.get(facts.package_manager, "")
    become = "" if facts.uid == 0 or not get else "sudo "
    install = f"URINGBLOB_EXT=require pip install --force-reinstall --no-deps {facts.installed_from}"
    return f"{become}{get} && {install}" if get else f"{install}   # with a C compiler and liburing's headers"


def use_other_directory(_: Facts) -> str:
    """Say where to put stores instead."""
    return "uringblob doctor ANOTHER_DIRECTORY   # on ext4, xfs or btrfs of a local disk"


def overwrite_in_place(facts: Facts) -> str:
    """Copy a store into a file that is overwritten in place; where there are none, say where to put stores."""
    if facts.copied == facts.directory:
        return use_other_directory(facts)
    old, new = shlex.quote(facts.copied), shlex.quote(f"{facts.copied}.copy")
    # With the store closed; what shares its blocks keeps them.
    flag = f" && chattr +C {new}" if facts.file_system == "btrfs" else ""
    return f"touch {new}{flag} && cat {old} > {new} && mv {new} {old}   # while no process has it open"


def mend_directory(facts: Facts) -> str:
    """Make the directory one in which a store can be made."""
    quoted = shlex.quote(facts.directory)
    if facts.file_system in _NOT_FOR_FILES:
        return use_other_directory(facts)
    if facts.pread_store == errno.ENOENT and facts.can_be_made:
        return f"mkdir -p {quoted}"
    if facts.pread_store in {errno.EACCES, errno.EPERM} and facts.own_and_closed:
        return f"chmod u+rwx {quoted}"
    if facts.pread_store in {errno.ENOENT, errno.EACCES, errno.EPERM}:
        # Never the owner or the mode of what is somebody else's.
        own = shlex.quote(os.path.join(facts.open_place, "uringblob"))
        return f"mkdir -p {own} && uringblob doctor {own}"
    if facts.pread_store == errno.EROFS:
        return f"sudo mount -o remount,rw {shlex.quote(facts.mount_point)}"
    if facts.pread_store in {errno.EMFILE, errno.ENFILE}:
        return raise_descriptors(facts)
    if facts.pread_store == errno.EFBIG:
        return "ulimit -f unlimited"
    return use_other_directory(facts)
