"""The machine and the process: kernel, container, seccomp, capabilities, sysctl, extension.

Files of ``/proc`` are read below ``root``, so that tests may show another machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from uringblob import _native
from uringblob.cli.doctor.check_result import CheckResult, Level
from uringblob.cli.doctor.facts import CAP_IPC_LOCK, CAP_SYS_ADMIN, SECCOMP_FILTER
from uringblob.errors import encodable
from uringblob.units import ENGINES

#: What gVisor has always said its kernel was.
_GVISOR_VERSION = "#1 SMP Sun Jan 10 15:06:54 PST 2016"
_SECCOMP_WORDS = {0: "no filter", 1: "strict mode", 2: "a filter is on"}
_SYSCTL = "proc/sys/kernel/io_uring_disabled"
_SYSCTL_GROUP = "proc/sys/kernel/io_uring_group"


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text("utf-8", "replace")
    return ""


def _status_field(root: Path, field: str) -> str:
    found = re.search(rf"^{field}:\s*(\S+)", _read(root / "proc/self/status"), re.MULTILINE)
    return found.group(1) if found else ""


def check_kernel(root: Path = Path("/"), platform: str = sys.platform) -> CheckResult:
    """Which kernel, and is it Linux at all."""
    if not platform.startswith("linux"):
        return CheckResult("kernel", f"{platform}: io_uring is Linux's", Level.NOTE, {"linux": False})
    release = _read(root / "proc/sys/kernel/osrelease").strip() or os.uname().release
    numbers = re.match(r"(\d+)\.(\d+)", release)
    kernel = (int(numbers.group(1)), int(numbers.group(2))) if numbers else (0, 0)
    level = Level.GOOD if kernel >= (5, 6) else Level.NOTE
    return CheckResult("kernel", f"Linux {release}", level, {"linux": True, "kernel": kernel})


def check_container(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> CheckResult:
    """Which container runtime started this, as far as it shows."""
    kind = _container_kind(root, environ)
    unit = not kind and "INVOCATION_ID" in environ
    text = kind or ("none; a systemd unit" if unit else "none")
    return CheckResult("container", text, facts={"container": kind, "systemd_unit": unit})


def _container_kind(root: Path, environ: Mapping[str, str]) -> str:
    if _GVISOR_VERSION in _read(root / "proc/version"):
        return "gvisor"
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    groups = _read(root / "proc/1/cgroup")
    for word, kind in [
        ("kubepods", "kubernetes"),
        ("docker", "docker"),
        ("libpod", "podman"),
        ("lxc", "lxc"),
    ]:
        if word in groups:
            return kind
    return environ.get("container", "")


def check_seccomp(root: Path = Path("/")) -> CheckResult:
    """Whether a seccomp filter judges this process's system calls."""
    mode = _status_field(root, "Seccomp")
    number = int(mode) if mode else -1
    level = Level.NOTE if number == SECCOMP_FILTER else Level.GOOD
    return CheckResult("seccomp", _SECCOMP_WORDS.get(number, "unknown"), level, {"seccomp": number})


def check_rights(root: Path = Path("/")) -> CheckResult:
    """User, groups and the two capabilities that matter here."""
    mask = int(_status_field(root, "CapEff") or "0", 16)
    mapped = _read(root / "proc/self/uid_map").split()
    inside = bool(mapped) and mapped[:3] != ["0", "0", "4294967295"]
    groups = tuple(sorted({os.getegid(), *os.getgroups()}))
    held = [
        f"{name} {'yes' if mask >> bit & 1 else 'no'}"
        for name, bit in [("CAP_SYS_ADMIN", CAP_SYS_ADMIN), ("CAP_IPC_LOCK", CAP_IPC_LOCK)]
    ]
    note = "; in a user namespace, where they do not count" if inside else ""
    facts = {"uid": os.geteuid(), "groups": groups, "capabilities": mask, "user_namespace": inside}
    return CheckResult("rights", f"user {os.geteuid()}; {', '.join(held)}{note}", facts=facts)


def check_sysctl(root: Path = Path("/")) -> CheckResult:
    """``kernel.io_uring_disabled`` (Linux 6.6) and the group that 1 admits."""
    disabled = _read(root / _SYSCTL).strip()
    if not disabled:
        facts = {"uring_disabled": -1, "uring_group": -1}
        return CheckResult("sysctl", "this kernel has no kernel.io_uring_disabled", facts=facts)
    number, group = int(disabled), int(_read(root / _SYSCTL_GROUP).strip() or "-1")
    level = Level.GOOD if number == 0 else Level.NOTE
    text = f"kernel.io_uring_disabled = {number}, kernel.io_uring_group = {group}"
    return CheckResult("sysctl", text, level, {"uring_disabled": number, "uring_group": group})


def check_extension() -> CheckResult:
    """Whether the extension is there, what it was built with, or why it is not."""
    cffi_version = f"cffi {metadata.version('cffi')}"
    if _native.lib is None or _native.ffi is None:
        hidden = "URINGBLOB_NO_EXT" in _native.unavailable_reason
        facts = {
            "extension": False,
            "extension_hidden": hidden,
            "extension_reason": _native.unavailable_reason,
            "installed_from": installed_from(),
            "package_manager": next(filter(shutil.which, ["apt-get", "dnf", "apk"]), ""),
        }
        return CheckResult("extension", f"{_native.unavailable_reason}; {cffi_version}", Level.BAD, facts)
    liburing = _native.ffi.string(_native.lib.ub_liburing_version()).decode()
    text = f"built with liburing {liburing}; {cffi_version}"
    return CheckResult("extension", text, facts={"extension": True}, detail={"liburing": liburing})


def installed_from() -> str:
    """Return what pip must be given to install the same package again (PEP 610 keeps it)."""
    try:
        kept = metadata.distribution("uringblob").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return "uringblob"
    if not kept:
        return "--no-binary uringblob uringblob"
    known = json.loads(kept)
    editable = "--editable " if known.get("dir_info", {}).get("editable") else ""
    url = str(known["url"])
    if url.endswith(".whl"):
        return "--no-binary uringblob uringblob"  # the wheel itself lacks the extension
    return editable + shlex.quote(url.removeprefix("file://"))


def check_environment(environ: Mapping[str, str] = os.environ) -> CheckResult:
    """``URINGBLOB_ENGINE``, which decides for every store that names no engine."""
    engine = environ.get("URINGBLOB_ENGINE", "")
    if engine not in {"", *ENGINES}:
        text = f"URINGBLOB_ENGINE={encodable(engine)} is no engine: there are {', '.join(ENGINES)}"
        return CheckResult("environment", text, Level.BAD, {"engine_variable": engine})
    level = Level.NOTE if engine == "pread" else Level.GOOD
    text = f"URINGBLOB_ENGINE={engine}" if engine else "URINGBLOB_ENGINE is not set"
    return CheckResult("environment", text, level, {"engine_variable": engine})
