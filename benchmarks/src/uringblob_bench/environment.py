"""The environment of a run, as far as it is known."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib import metadata
from typing import Any

from uringblob_bench.contenders.fio import fio_version
from uringblob_bench.device import device_directory, read_text
from uringblob_bench.hugepages import meminfo

#: Everything whose version may matter.
DISTRIBUTIONS = (
    "uringblob", "cffi", "xxhash", "uvloop", "caio", "aiofiles", "obstore", "lmdb", "rocksdict",
    "matplotlib", "rich", "numpy",
)  # fmt: skip
_QUEUE_FACTS = (
    "scheduler",
    "nr_requests",
    "max_sectors_kb",
    "rotational",
    "write_cache",
    "fua",
    "logical_block_size",
)
_THP = "/sys/kernel/mm/transparent_hugepage"
_KIB = 1024


def environment(directory: str, hugepages: str = "") -> dict[str, Any]:
    """Describe this machine and the file system under ``directory``."""
    return {
        "system": {
            "kernel": platform.release(),
            "version": platform.version(),
            "machine": platform.machine(),
            "virtual_machine": read_text("/sys/class/dmi/id/product_name") or "not known",
        },
        "cpu": _cpu(),
        "memory": {
            "total_bytes": meminfo("MemTotal") * _KIB,
            "available_bytes": meminfo("MemAvailable") * _KIB,
            "transparent_huge_pages": read_text(f"{_THP}/enabled"),
            "transparent_huge_pages_defrag": read_text(f"{_THP}/defrag"),
            "huge_page_pool": hugepages,
            "memlock_bytes": resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
            "root": os.geteuid() == 0,
        },
        **storage(directory),
        "io_uring_disabled": read_text("/proc/sys/kernel/io_uring_disabled"),
        "load_average": os.getloadavg(),
        "versions": _versions(),
    }


def storage(directory: str) -> dict[str, Any]:
    """Describe the file system under ``directory`` and its device."""
    return {"file_system": _file_system(directory), "device": _device(directory)}


def _cpu() -> dict[str, Any]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in read_text("/proc/cpuinfo").splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    governor = read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"model": model, "cpus": os.cpu_count(), "usable": usable, "governor": governor or "not known"}


def _file_system(directory: str) -> dict[str, Any]:
    real = os.path.realpath(directory)
    best: list[str] = []
    for line in read_text("/proc/self/mounts").splitlines():
        fields = line.split()
        point = fields[1].encode().decode("unicode_escape")
        inside = real.startswith(point.rstrip("/") + "/") or real == point
        if inside and (not best or len(point) >= len(best[1])):
            best = [fields[0], point, fields[2], fields[3]]
    status = os.statvfs(directory)
    # Without the mount point: results are published.
    found = {"block_size": status.f_bsize, "free_bytes": status.f_bavail * status.f_frsize}
    return {"type": best[2], "mount_options": best[3], **found} if best else found


def _device(directory: str) -> dict[str, Any]:
    sysfs = device_directory(directory)
    if not sysfs:
        return {"name": "none: not on a block device"}
    sysfs = os.path.realpath(sysfs)
    queue = os.path.join(sysfs, "queue")
    if not os.path.isdir(queue):  # a partition's queue is its disk's
        queue = os.path.join(os.path.dirname(sysfs), "queue")
    facts = {name: read_text(os.path.join(queue, name)) for name in _QUEUE_FACTS}
    sectors = read_text(os.path.join(sysfs, "size"))
    return {
        "name": os.path.basename(sysfs),
        "model": read_text(os.path.join(sysfs, "device", "model")) or "not known",
        "size_bytes": int(sectors) * 512 if sectors else None,
        "flushes": facts["write_cache"] == "write back",
        "fua_supported": facts["fua"] == "1",
        **facts,
    }


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0], "implementation": platform.python_implementation()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["fio"] = fio_version() or "not installed"
    return found
