"""All checks, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable

from uringblob.cli.doctor import disk, machine, smoke_test, uring
from uringblob.cli.doctor.facts import CheckResult, Level
from uringblob.errors import errno_name


def run_checks(directory: str) -> dict[str, CheckResult]:
    """Check this machine and ``directory``.  Leaves nothing behind; raises nothing."""
    checks: dict[str, Callable[[], CheckResult]] = {
        "kernel": machine.check_kernel,
        "container": machine.check_container,
        "rights": machine.check_rights,
        "seccomp": machine.check_seccomp,
        "sysctl": machine.check_sysctl,
        "environment": machine.check_environment,
        "extension": machine.check_extension,
        "system calls": uring.check_calls,
        "ring": uring.check_ring,
        "locked memory": uring.check_memory,
        "file system": lambda: disk.check_file_system(directory),
        "device": lambda: disk.check_device(directory),
        "O_DIRECT": lambda: disk.check_direct(directory),
        "overwriting": lambda: disk.check_overwriting(directory),
        "fixed I/O": lambda: disk.check_fixed_io(directory),
        "store on io_uring": lambda: smoke_test.check_store("io_uring", directory),
        "store on pread": lambda: smoke_test.check_store("pread", directory),
    }
    return {name: run_check(check) for name, check in checks.items()}


def run_check(check: Callable[[], CheckResult]) -> CheckResult:
    """Run one check; an exception is its result and does not stop the others."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - reported as the result that it is
        number = error.errno if isinstance(error, OSError) else None
        text = errno_name(number) if number else f"{type(error).__name__}: {error}"
        return CheckResult(f"could not be checked: {text}", Level.NOTE)
