"""The machine and the process: kernel, container, seccomp, capabilities, sysctl, extension.

``root`` stands for ``/``, so that tests can show another machine.
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
from typing import Final

from uringblob import _native
from uringblob.cli.doctor.facts import CAP_IPC_LOCK, CAP_SYS_ADMIN, SECCOMP_FILTER, CheckResult, Level
from uringblob.errors import encodable
from uringblob.units import ENGINES

_ROOT: Final = Path("/")
#: gVisor's constant kernel version.
_GVISOR_VERSION: Final = "#1 SMP Sun Jan 10 15:06:54 PST 2016"
_SECCOMP_WORDS: Final = {0: "no filter", 1: "strict mode", 2: "a filter is on"}


def read_or_empty(path: Path) -> str:
    """Return a small file's text without white space around it, or "" where it cannot be read."""
    with contextlib.suppress(OSError):
        return path.read_text("utf-8", "replace").strip()
    return ""


def _status_field(root: Path, field: str) -> str:
    found = re.search(rf"^{field}:\s*(\S+)", read_or_empty(root / "proc/self/status"), re.MULTILINE)
    return found.group(1) if found else ""


def check_kernel(root: Path = _ROOT, platform: str = sys.platform) -> CheckResult:
    """Whether it is Linux, and its version."""
    if not platform.startswith("linux"):
        return CheckResult(f"{platform}: io_uring is Linux's", Level.NOTE, {"linux": False})
    release = read_or_empty(root / "proc/sys/kernel/osrelease") or os.uname().release
    numbers = re.match(r"(\d+)\.(\d+)", release)
    kernel = (int(numbers.group(1)), int(numbers.group(2))) if numbers else (0, 0)
    level = Level.GOOD if kernel >= (5, 6) else Level.NOTE
    return CheckResult(f"Linux {release}", level, {"linux": True, "kernel": kernel})


def check_container(root: Path = _ROOT, environ: Mapping[str, str] = os.environ) -> CheckResult:
    """The container runtime, as far as it can be seen from inside."""
    kind = _container_kind(root, environ)
    unit = not kind and "INVOCATION_ID" in environ
    text = kind or ("none; a systemd unit" if unit else "none")
    return CheckResult(text, facts={"container": kind, "systemd_unit": unit})


def _container_kind(root: Path, environ: Mapping[str, str]) -> str:
    if _GVISOR_VERSION in read_or_empty(root / "proc/version"):
        return "gvisor"
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    groups = read_or_empty(root / "proc/1/cgroup")
    by_word = {"kubepods": "kubernetes", "docker": "docker", "libpod": "podman", "lxc": "lxc"}
    return next((kind for word, kind in by_word.items() if word in groups), environ.get("container", ""))


def check_seccomp(root: Path = _ROOT) -> CheckResult:
    """Whether a seccomp filter applies to this process."""
    number = int(_status_field(root, "Seccomp") or "-1")
    level = Level.NOTE if number == SECCOMP_FILTER else Level.GOOD
    return CheckResult(_SECCOMP_WORDS.get(number, "unknown"), level, {"seccomp": number})


def check_rights(root: Path = _ROOT) -> CheckResult:
    """User, groups and the two capabilities that io_uring checks."""
    mask = int(_status_field(root, "CapEff") or "0", 16)
    mapped = read_or_empty(root / "proc/self/uid_map").split()
    inside = bool(mapped) and mapped[:3] != ["0", "0", "4294967295"]
    admin, lock = ("yes" if mask >> bit & 1 else "no" for bit in (CAP_SYS_ADMIN, CAP_IPC_LOCK))
    facts = {
        "uid": os.geteuid(),
        "groups": tuple(sorted({os.getegid(), *os.getgroups()})),
        "capabilities": mask,
        "user_namespace": inside,
    }
    text = f"user {os.geteuid()}; CAP_SYS_ADMIN {admin}, CAP_IPC_LOCK {lock}"
    note = "; in a user namespace, where they do not count" if inside else ""
    return CheckResult(text + note, facts=facts)


def check_sysctl(root: Path = _ROOT) -> CheckResult:
    """``kernel.io_uring_disabled`` (Linux 6.6) and the group that 1 admits."""
    kernel = root / "proc/sys/kernel"
    disabled = int(read_or_empty(kernel / "io_uring_disabled") or "-1")
    if disabled < 0:
        facts = {"uring_disabled": -1, "uring_group": -1}
        return CheckResult("this kernel has no kernel.io_uring_disabled", facts=facts)
    group = int(read_or_empty(kernel / "io_uring_group") or "-1")
    text = f"kernel.io_uring_disabled = {disabled}, kernel.io_uring_group = {group}"
    facts = {"uring_disabled": disabled, "uring_group": group}
    return CheckResult(text, Level.NOTE if disabled else Level.GOOD, facts)


def check_extension() -> CheckResult:
    """Whether the extension is there, its liburing, who makes checksums, or why it is missing."""
    cffi_version = f"cffi {metadata.version('cffi')}"
    if _native.lib is None or _native.ffi is None:
        facts = {
            "extension": False,
            "extension_hidden": "URINGBLOB_NO_EXT" in _native.unavailable_reason,
            "extension_reason": _native.unavailable_reason,
            "installed_from": installed_from(),
            "package_manager": next(filter(shutil.which, ["apt-get", "dnf", "apk"]), ""),
        }
        return CheckResult(f"{_native.unavailable_reason}; {cffi_version}", Level.BAD, facts)
    liburing = _native.ffi.string(_native.lib.ub_liburing_version()).decode()
    in_c = bool(_native.lib.ub_has_xxh3())
    checksums = "checksums in C" if in_c else "checksums by the package xxhash (built without xxhash.h)"
    text = f"built with liburing {liburing}; {checksums}; {cffi_version}"
    return CheckResult(text, facts={"extension": True}, detail={"liburing": liburing, "checksums_in_c": in_c})


def installed_from() -> str:
    """Return the arguments with which pip installs the same package again (PEP 610 records them)."""
    try:
        recorded = metadata.distribution("uringblob").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return "uringblob"
    origin = json.loads(recorded) if recorded else {}
    url = str(origin.get("url", ""))
    if not url or url.endswith(".whl"):
        return "--no-binary uringblob uringblob"  # not the same wheel: it lacks the extension
    editable = "--editable " if origin.get("dir_info", {}).get("editable") else ""
    return editable + shlex.quote(url.removeprefix("file://"))


def check_environment(environ: Mapping[str, str] = os.environ) -> CheckResult:
    """``URINGBLOB_ENGINE``, the engine of every store that is opened without naming one."""
    engine = environ.get("URINGBLOB_ENGINE", "")
    facts = {"engine_variable": engine}
    if engine not in {"", *ENGINES}:
        text = f"URINGBLOB_ENGINE={encodable(engine)} is no engine: there are {', '.join(ENGINES)}"
        return CheckResult(text, Level.BAD, facts)
    text = f"URINGBLOB_ENGINE={engine}" if engine else "URINGBLOB_ENGINE is not set"
    return CheckResult(text, Level.NOTE if engine == "pread" else Level.GOOD, facts)
