"""From facts to causes: each cause is named where it is the cause, and nowhere else."""

from __future__ import annotations

import errno
import inspect
import re

import pytest

from uringblob.cli.doctor import diagnosis
from uringblob.cli.doctor.diagnosis import diagnose
from uringblob.cli.doctor.facts import CAP_IPC_LOCK, CAP_SYS_ADMIN, Facts

E = errno
ALL_EPERM = {"setup": E.EPERM, "enter": E.EPERM, "register": E.EPERM, "ring": E.EPERM, "uring_store": E.EPERM}
ALL_ENOSYS = dict.fromkeys(ALL_EPERM, E.ENOSYS)
SETUP_EPERM = {"setup": E.EPERM, "ring": E.EPERM, "uring_store": E.EPERM, "uring_stage": "setup"}
SETUP_EACCES = dict.fromkeys(SETUP_EPERM, E.EACCES) | {"uring_stage": "setup"}
NO_MEMORY = {"ring": E.ENOMEM, "uring_store": E.ENOMEM, "uring_stage": "setup"}
NO_EXTENSION = {"extension": False, "uring_store": -1, "uring_stage": "import"}
USER = {"uid": 1000, "groups": (1000,), "capabilities": 0}
ROOT = {"capabilities": 1 << CAP_SYS_ADMIN | 1 << CAP_IPC_LOCK}

#: Facts, the causes' keys in order, and a part of the one command.
CASES = {
    "all is well": ({}, [], ""),
    "seccomp, EPERM": ({**ALL_EPERM, "seccomp": 2}, ["seccomp"], "seccomp profile"),
    "seccomp, EPERM, in Docker": (
        {**ALL_EPERM, "seccomp": 2, "container": "docker"},
        ["seccomp"],
        "docker run --security-opt seccomp=docker/seccomp-uringblob.json",
    ),
    "seccomp, ENOSYS, in podman": (
        {**ALL_ENOSYS, "seccomp": 2, "container": "podman"},
        ["seccomp"],
        "podman run --security-opt seccomp=",
    ),
    "seccomp in Kubernetes": (
        {**ALL_EPERM, "seccomp": 2, "container": "kubernetes"},
        ["seccomp"],
        "Localhost",
    ),
    "seccomp in a unit": (
        {**ALL_EPERM, "seccomp": 2, "systemd_unit": True},
        ["seccomp"],
        "SystemCallFilter=",
    ),
    "seccomp in a container of systemd": (
        {**ALL_EPERM, "seccomp": 2, "container": "systemd-nspawn"},
        ["seccomp"],
        'systemd-nspawn --system-call-filter="io_uring_setup io_uring_enter io_uring_register"',
    ),
    "seccomp on setup alone": ({**SETUP_EPERM, "seccomp": 2}, ["seccomp"], "seccomp"),
    "seccomp on enter alone": (
        {"enter": E.EPERM, "uring_store": E.EPERM, "seccomp": 2, "uring_stage": "nop"},
        ["seccomp"],
        "seccomp",
    ),
    "seccomp on one request of register": (
        {"uring_store": E.EPERM, "uring_stage": "register files", "seccomp": 2},
        ["seccomp"],
        "seccomp",
    ),
    "sysctl 2": (
        {**SETUP_EPERM, "uring_disabled": 2, **ROOT},
        ["sysctl"],
        "sysctl -w kernel.io_uring_disabled=0",
    ),
    "sysctl 2 while some filter is on that lets enter pass": (
        {**SETUP_EPERM, "uring_disabled": 2, "seccomp": 2, **ROOT},
        ["sysctl"],
        "sysctl -w kernel.io_uring_disabled=0",
    ),
    "sysctl 2 and a filter": (
        {**ALL_EPERM, "uring_disabled": 2, "seccomp": 2},
        ["seccomp", "sysctl"],
        "seccomp",
    ),
    "sysctl 2 and a filter that says EACCES on setup": (
        {**SETUP_EACCES, "uring_disabled": 2, "seccomp": 2},
        ["seccomp", "sysctl"],
        "seccomp",
    ),
    "sysctl 2 in Docker": (
        {**SETUP_EPERM, "uring_disabled": 2, "seccomp": 2, "container": "docker"},
        ["sysctl"],
        "on the host: sudo sysctl",
    ),
    "sysctl 1, a user, a group": (
        {**SETUP_EPERM, **USER, "uring_disabled": 1, "uring_group": 990},
        ["sysctl"],
        "usermod -aG",
    ),
    "sysctl 1, a user, a group, in Docker": (
        {**SETUP_EPERM, **USER, "uring_disabled": 1, "uring_group": 990, "container": "docker"},
        ["sysctl"],
        "docker run --group-add 990",
    ),
    "sysctl 1, a user, no group": (
        {**SETUP_EPERM, **USER, "uring_disabled": 1},
        ["sysctl"],
        "kernel.io_uring_disabled=0",
    ),
    "sysctl 1, root of a user namespace": (
        {**SETUP_EPERM, **ROOT, "user_namespace": True, "uring_disabled": 1},
        ["sysctl"],
        "kernel.io_uring_disabled=0",
    ),
    "sysctl 1 does not bind root: the filter does": (
        {**SETUP_EPERM, **ROOT, "uring_disabled": 1, "seccomp": 2},
        ["seccomp"],
        "seccomp",
    ),
    "sysctl 1 does not bind a member": (
        {**SETUP_EPERM, **USER, "uring_disabled": 1, "uring_group": 1000, "seccomp": 2},
        ["seccomp"],
        "seccomp",
    ),
    "a security module": (SETUP_EACCES, ["security module"], "journalctl"),
    "EPERM, and neither filter nor sysctl": (SETUP_EPERM, ["security module"], "journalctl"),
    "an old kernel": ({**ALL_ENOSYS, "kernel": (4, 19), "uring_disabled": -1}, ["kernel"], "kernel"),
    "an old kernel under a filter": (
        {**ALL_ENOSYS, "kernel": (4, 19), "uring_disabled": -1, "seccomp": 2},
        ["kernel"],
        "kernel",
    ),
    "a kernel built without": (
        {**ALL_ENOSYS, "uring_disabled": -1, "seccomp": 2},
        ["kernel"],
        "CONFIG_IO_URING",
    ),
    "gVisor": ({**ALL_ENOSYS, "container": "gvisor", "kernel": (4, 4)}, ["sandbox"], "runc"),
    "not Linux": ({**ALL_ENOSYS, **NO_EXTENSION, "linux": False}, ["not linux"], ""),
    "no memlock": ({**NO_MEMORY, **USER, "memlock_bytes": 0}, ["memlock"], "prlimit"),
    "no memlock in Kubernetes": (
        {**NO_MEMORY, **USER, "memlock_bytes": 0, "container": "kubernetes"},
        ["memlock"],
        "on the node, in the runtime's unit: LimitMEMLOCK=infinity",
    ),
    "no memlock in a unit": (
        {**NO_MEMORY, **USER, "memlock_bytes": 0, "systemd_unit": True},
        ["memlock"],
        "systemctl edit UNIT, with: LimitMEMLOCK=infinity",
    ),
    "no memlock, with a filter that is not at fault": (
        {**NO_MEMORY, **USER, "memlock_bytes": 0, "seccomp": 2, "container": "docker"},
        ["memlock"],
        "--ulimit memlock=-1",
    ),
    "no memory, though no limit binds": (
        {**NO_MEMORY, **ROOT, "memlock_bytes": 8 << 20, "uring_text": "ENOMEM"},
        ["unexplained"],
        "",
    ),
    "no descriptor": ({"ring": E.EMFILE, "uring_store": E.EMFILE}, ["descriptors"], "ulimit -n"),
    "no extension": (NO_EXTENSION, ["extension"], "URINGBLOB_EXT=require"),
    "no extension, from a clone, on Fedora": (
        {**NO_EXTENSION, **USER, "installed_from": "--editable ./clone", "package_manager": "dnf"},
        ["extension"],
        (
            "sudo dnf install -y gcc python3-devel liburing-devel xxhash-devel && URINGBLOB_EXT=require pip install "
            "--force-reinstall --no-deps --editable ./clone"
        ),
    ),
    "no extension, and no known package manager": (
        {**NO_EXTENSION, "package_manager": ""},
        ["extension"],
        "URINGBLOB_EXT=require pip",
    ),
    "hidden extension": ({**NO_EXTENSION, "extension_hidden": True}, ["extension"], "unset URINGBLOB_NO_EXT"),
    "no extension under a filter that passes io_uring": (
        {**NO_EXTENSION, "seccomp": 2},
        ["extension"],
        "URINGBLOB",
    ),
    "no extension and a filter": (
        {**ALL_EPERM, **NO_EXTENSION, "seccomp": 2},
        ["seccomp", "extension"],
        "seccomp",
    ),
    "the environment says pread": (
        {"engine_variable": "pread"},
        ["engine variable"],
        "unset URINGBLOB_ENGINE",
    ),
    "few frames": (
        {**USER, "memlock_bytes": 8 << 20, "frames_fit": 15, "frames_errno": E.ENOMEM},
        ["memlock frames"],
        "prlimit",
    ),
    "few frames by a filter": (
        {**USER, "memlock_bytes": 8 << 20, "frames_fit": 0, "frames_errno": E.EPERM, "seccomp": 2},
        ["seccomp buffers"],
        "seccomp",
    ),
    "few frames, for an unknown reason": (
        {"frames_fit": 3, "frames_errno": E.ENOMEM, **ROOT},
        ["frames"],
        "",
    ),
    "no O_DIRECT": ({"direct": False, "direct_reason": "refused"}, ["direct"], "ANOTHER_DIRECTORY"),
    "no such directory": (
        {"pread_store": E.ENOENT, "uring_store": E.ENOENT, "can_be_made": True},
        ["directory"],
        "mkdir -p .",
    ),
    "no such directory, in one of another user": (
        {"pread_store": E.ENOENT, "uring_store": E.ENOENT, "open_place": "/mine"},
        ["directory"],
        "mkdir -p /mine/uringblob && uringblob doctor /mine/uringblob",
    ),
    "not ours": (
        {"pread_store": E.EACCES, "uring_store": E.EACCES, "uid": 7, "open_place": "/my own"},
        ["directory"],
        "mkdir -p '/my own/uringblob' && uringblob doctor '/my own/uringblob'",
    ),
    "a variable that names no engine": (
        {"engine_variable": "foo"},
        ["engine unknown"],
        "unset URINGBLOB_ENGINE",
    ),
    "read-only": (
        {"pread_store": E.EROFS, "uring_store": E.EROFS, "mount_point": "/mnt"},
        ["directory"],
        "remount,rw /mnt",
    ),
    "no descriptor for any store": (
        {"pread_store": E.EMFILE, "uring_store": E.EMFILE},
        ["directory"],
        "ulimit -n",
    ),
    "no room, also where io_uring is refused": (
        {**ALL_EPERM, "seccomp": 2, "pread_store": E.ENOSPC},
        ["directory"],
        "ANOTHER_DIRECTORY",
    ),
    "ours, and we took our own rights away": (
        {"pread_store": E.EACCES, "uring_store": E.EACCES, "uid": 7, "own_and_closed": True},
        ["directory"],
        "chmod u+rwx .",
    ),
    "a view of the kernel, which says ENOENT": (
        {"pread_store": E.ENOENT, "uring_store": E.ENOENT, "file_system": "proc"},
        ["directory"],
        "ANOTHER_DIRECTORY",
    ),
    "a view of the kernel, which says EPERM": (
        {"pread_store": E.EPERM, "uring_store": E.EPERM, "file_system": "sysfs"},
        ["directory"],
        "ANOTHER_DIRECTORY",
    ),
    "no file may be so long": (
        {"pread_store": E.EFBIG, "uring_store": E.EFBIG},
        ["directory"],
        "ulimit -f unlimited",
    ),
    "a file system in memory": ({"file_system": "tmpfs"}, ["in memory"], "ANOTHER_DIRECTORY"),
    "a file system that copies": (
        {"copied": ".", "copied_why": "zfs copies"},
        ["copied"],
        "ANOTHER_DIRECTORY",
    ),
    "an older store on btrfs": (
        {"copied": "./a store", "copied_why": "not no-COW", "file_system": "btrfs"},
        ["copied"],
        "touch './a store.copy' && chattr +C './a store.copy' && cat './a store' > './a store.copy' && mv",
    ),
    "a store that shares blocks": (
        {"copied": "./s", "copied_why": "shares blocks", "file_system": "xfs"},
        ["copied"],
        "touch ./s.copy && cat ./s > ./s.copy && mv ./s.copy ./s",
    ),
    "a store that fails without an errno": ({"pread_store": -1, "uring_store": -1}, ["pread"], "ANOTHER"),
}


def exit_code_of(facts):
    if facts.get("engine_variable") == "foo":
        return 2
    if facts.get("pread_store") and facts.get("uring_store"):
        return 2
    return 1 if facts.get("uring_store") or facts.get("engine_variable") == "pread" else 0


@pytest.mark.parametrize("case", CASES)
def test_facts_lead_to_the_cause(case):
    facts, keys, command = CASES[case]
    seen = diagnose(Facts(**facts))
    assert [cause.key for cause in seen.causes] == keys
    assert command in seen.command
    assert bool(command) == bool(seen.command)
    assert seen.exit_code == exit_code_of(facts)
    assert "\n" not in seen.verdict


def test_every_cause_has_its_case():
    used = {key for _, keys, _ in CASES.values() for key in keys}
    assert used == set(re.findall(r'Cause\("(.*?)"', inspect.getsource(diagnosis)))


@pytest.mark.parametrize("seccomp", [0, 2])
@pytest.mark.parametrize("disabled", [-1, 0, 1, 2])
@pytest.mark.parametrize("number", [E.EPERM, E.ENOSYS, E.EACCES, E.EOPNOTSUPP])
def test_no_cause_is_named_that_the_facts_exclude(seccomp, disabled, number):
    for calls in [("setup",), ("enter",), ("setup", "enter", "register")]:
        answers = {**dict.fromkeys(calls, number), "ring": number, "uring_store": number}
        facts = Facts(seccomp=seccomp, uring_disabled=disabled, **USER, **answers)
        causes = diagnose(facts).causes
        keys = {cause.key for cause in causes}
        assert keys, "a refusal has a cause"
        assert seccomp or "seccomp" not in keys
        assert disabled > 0 or "sysctl" not in keys
        assert not keys & {"memlock", "extension", "directory"}
        assert not re.search(r"privileged", " ".join(cause.command for cause in causes))
