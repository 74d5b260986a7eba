"""All checks, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from uringblob.cli.doctor import disk, host, kernel_ring
from uringblob.cli.doctor.check_result import CheckResult, Level
from uringblob.cli.doctor.diagnosis import Diagnosis, diagnose
from uringblob.cli.doctor.facts import gather
from uringblob.cli.doctor.overwriting import check_overwriting
from uringblob.cli.doctor.smoke_test import check_store


class Examination(NamedTuple):
    """Every finding, and what follows from them."""

    findings: list[CheckResult]
    diagnosis: Diagnosis


def examine(directory: str) -> Examination:
    """Look at this machine and at ``directory``.  Leaves nothing behind; raises nothing."""
    checks: list[tuple[str, Callable[[], CheckResult]]] = [
        ("kernel", host.check_kernel),
        ("container", host.check_container),
        ("rights", host.check_rights),
        ("seccomp", host.check_seccomp),
        ("sysctl", host.check_sysctl),
        ("environment", host.check_environment),
        ("extension", host.check_extension),
        ("system calls", kernel_ring.check_calls),
        ("ring", kernel_ring.check_ring),
        ("locked memory", kernel_ring.check_memory),
        ("file system", lambda: disk.check_file_system(directory)),
        ("device", lambda: disk.check_device(directory)),
        ("O_DIRECT", lambda: disk.check_direct(directory)),
        ("overwriting", lambda: check_overwriting(directory)),
        ("fixed I/O", lambda: disk.check_fixed_io(directory)),
        ("store on io_uring", lambda: check_store("io_uring", directory)),
        ("store on pread", lambda: check_store("pread", directory)),
    ]
    findings = [_run(name, check) for name, check in checks]
    return Examination(findings, diagnose(gather(findings)))


def _run(name: str, check: Callable[[], CheckResult]) -> CheckResult:
    """Run one check; one that breaks must not hide what the others found."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - reported as the finding that it is
        return CheckResult(name, f"could not be checked: {type(error).__name__}: {error}", Level.NOTE)
