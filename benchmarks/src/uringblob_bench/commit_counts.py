"""Counts, not times: what one commit costs, as strace and the device see it.

A child process commits one frame at a time; between marks in the trace (a ``getppid`` each,
which nothing else there calls) stand its calls of ``io_uring_enter``.
Other programs flush the same device, so the smallest count of several commits is taken.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import statistics
import subprocess
import sys

from uringblob_bench.contenders.base import run_on
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.device import flushes
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.workdir import WorkDir

COMMITS = 12
_MARK = "getppid("
_SUBMITTING = re.compile(r"io_uring_enter\(\d+, ([1-9]\d*), ")


@dataclasses.dataclass(frozen=True)
class CommitCounts:
    """Per commit; ``None`` where it cannot be seen here, with the reason in words."""

    submitting_enters: float | None
    enters_words: str
    device_flushes: float | None
    flushes_words: str


def count_commits(params: Params, workdir: WorkDir) -> CommitCounts:
    """Run the child under strace, once."""
    AsyncStore(params, workdir).prepare()
    if shutil.which("strace") is None:
        flushed = json.loads(_child(params, workdir, []))
        return CommitCounts(None, "strace is not installed", *_flushes(flushed))
    trace = workdir.path("strace-commit.txt")
    prefix = ["strace", "-f", "-o", trace, "-e", "trace=io_uring_enter,getppid"]
    try:
        flushed = json.loads(_child(params, workdir, prefix))
        with open(trace, encoding="utf-8", errors="replace") as file:
            counted = submitting_enters(file.read())
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return CommitCounts(None, f"strace failed: {error}", None, "the child failed")
    words = f"strace, {len(counted)} commits: {sorted(set(counted))}"
    return CommitCounts(statistics.median(counted) if counted else None, words, *_flushes(flushed))


def submitting_enters(trace: str) -> list[int]:
    """Return the number of enters that submitted something, between one mark and the next."""
    found: list[int] = []
    for line in trace.splitlines():
        if _MARK in line:
            found.append(0)
        elif found and _SUBMITTING.search(line):
            found[-1] += 1
    return found[:-1]  # behind the last mark the store is closed


def _flushes(counted: list[int] | None) -> tuple[float | None, str]:
    if not counted:
        return None, "the device does not count its flushes"
    return float(
        min(counted)
    ), f"/sys/dev/block/*/stat, fewest of {len(counted)} commits: {sorted(set(counted))}"


def _child(params: Params, workdir: WorkDir, prefix: list[str]) -> str:
    settings = json.dumps({"params": dataclasses.asdict(params), "directory": workdir.directory})
    command = [*prefix, sys.executable, "-m", "uringblob_bench.commit_counts", settings]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return ran.stdout


class _ExistingWorkDir(WorkDir):
    """The parent's directory, seen from the child."""

    def __init__(self, directory: str) -> None:
        self.directory = directory


def _commit_one_by_one(settings: str) -> None:
    told = json.loads(settings)
    workdir = _ExistingWorkDir(told["directory"])
    store = AsyncStore(Params(**told["params"]), workdir)
    load = Load(Verb.COMMIT)
    counted: list[int] = []

    async def work() -> None:
        async with store.session([load]) as call_for:
            call = call_for(load, 0)
            await call()
            for _ in range(COMMITS):
                before = flushes(workdir.directory)
                os.getppid()
                await call()
                after = flushes(workdir.directory)
                if before is not None and after is not None:
                    counted.append(after - before)
            os.getppid()

    run_on("asyncio", work())
    print(json.dumps(counted))  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    _commit_one_by_one(sys.argv[1])
