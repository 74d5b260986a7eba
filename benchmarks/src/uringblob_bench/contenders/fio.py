"""fio as the limit: what the device gives to C with the same means."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from importlib import resources
from typing import Any

from uringblob_bench.contenders.base import Contender
from uringblob_bench.hugepages import will_be_free
from uringblob_bench.interleave import CannotRun
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.sample import PERCENTILES, Latency, Sample
from uringblob_bench.workdir import WorkDir

_JOBS = {Verb.READ: "random_read", Verb.WRITE: "random_write", Verb.BATCH: "durable_batch"}
_TIMEOUT_S = 60
_RAMP_SHARE = 0.1


@functools.cache
def fio_version() -> str:
    """Return fio's version, or '' where it is not installed."""
    if shutil.which("fio") is None:
        return ""
    found = subprocess.run(["fio", "--version"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def job_text(name: str) -> str:
    """Return the job file ``name``, which is part of the package."""
    return (resources.files("uringblob_bench") / "fio_jobs" / f"{name}.fio").read_text("utf-8")


def job_name(loads: Sequence[Load]) -> str:
    """Return the job file that serves ``loads``."""
    if len(loads) > 1:
        return "mixed"
    verb = loads[0].verb
    if verb not in _JOBS:
        raise CannotRun(f"fio has nothing like {verb.value}")
    return _JOBS[verb]


class Fio(Contender):
    """One fio process per turn, fed by one of ``fio_jobs/``."""

    name = "fio"
    durability = "fdatasync=N in the job file"

    def __init__(self, params: Params, workdir: WorkDir) -> None:
        super().__init__(params, workdir)
        self._used: dict[str, Any] = {}

    def settings(self) -> dict[str, Any]:
        return {"version": fio_version(), **self._used}

    def prepare(self) -> None:
        if not fio_version():
            raise CannotRun("fio is not installed (Debian: apt-get install fio)")
        self.workdir.raw_file(self.params.data_bytes)

    def environment(self, loads: Sequence[Load], seconds: float) -> dict[str, str]:
        """Return the variables of the job file."""
        batch = max(load.frames for load in loads)
        depth = loads[0].in_flight
        needed = 2 * sum(load.in_flight for load in loads) * self.params.page_size + (8 << 20)
        huge = self.params.huge and will_be_free(needed)
        return {
            "FIO_MEM": "mmaphuge" if huge else "mmap",
            "FIO_FIXED": str(int(self.params.registered)),
            "FIO_FILE": self.workdir.raw_file(self.params.data_bytes),
            "FIO_SIZE": str(self.params.data_bytes),
            "FIO_BS": str(self.params.page_size),
            "FIO_DEPTH": str(depth),
            "FIO_BATCH": str(batch),
            "FIO_RUNTIME": f"{max(int(seconds * 1000), 1)}ms",
            "FIO_RAMP": f"{int(seconds * 1000 * _RAMP_SHARE)}ms",
        }

    def command(self, loads: Sequence[Load], variables: dict[str, str]) -> list[str]:
        """Return fio's command line; the job file is written beside the data."""
        name = job_name(loads)
        path = self.workdir.path(f"{name}.fio")
        with open(path, "w", encoding="utf-8") as file:
            file.write(job_text(name))
        options = ["--output-format=json"]
        if self.params.one_core and hasattr(os, "sched_getaffinity"):
            options.append(f"--cpus_allowed={max(os.sched_getaffinity(0))}")
        self._used = {"job": name, "options": options, **variables}
        return ["fio", *options, path]

    def turn(self, loads: Sequence[Load], seconds: float) -> list[Sample]:
        variables = self.environment(loads, seconds)
        ran = subprocess.run(
            self.command(loads, variables),
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if ran.returncode:
            raise CannotRun(f"fio ended with {ran.returncode}: {(ran.stderr or ran.stdout).strip()[-500:]}")
        # fio may print a warning before its JSON.
        jobs = json.loads(ran.stdout[ran.stdout.index("{") :])["jobs"]
        return [sample_of(job, self.params.page_size) for job in jobs]


def sample_of(job: dict[str, Any], page_size: int) -> Sample:
    """Turn fio's figures of one job into a sample; its CPU shares are of its run time."""
    side = job["read"] if job["read"]["total_ios"] else job["write"]
    seconds = side["runtime"] / 1000
    latency = side["lat_ns"]
    points = {str(float(key)): value / 1e9 for key, value in latency.get("percentile", {}).items()}
    return Sample(
        frames=side["total_ios"],
        seconds=seconds,
        page_size=page_size,
        latency=Latency(
            mean_s=latency["mean"] / 1e9,
            max_s=latency["max"] / 1e9,
            percentiles_s={str(p): points.get(str(float(p)), 0.0) for p in PERCENTILES},
        ),
        cpu_user_s=job["usr_cpu"] / 100 * seconds,
        cpu_system_s=job["sys_cpu"] / 100 * seconds,
        extra={"job": job["jobname"], "error": job["error"]},
    )
