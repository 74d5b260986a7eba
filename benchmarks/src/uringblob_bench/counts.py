"""What an operation costs in counts, not times: Python calls, C calls, system calls, flushes.

System calls are counted in a child process under strace.  Between marks in the trace (a ``getppid`` each,
which nothing else there calls) stand those of one section: so many calls of each worker of a load.
Other programs flush the same device, so the median of several sections is taken: the smallest hid a second
flush of most commits.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import types
from collections.abc import Awaitable, Callable

import uringblob
from uringblob_bench.contenders.base import TaskContender, run_on
from uringblob_bench.contenders.floor import BareAsyncio
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.device import flushes
from uringblob_bench.drive import TaskCall
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.workdir import WorkDir

#: Those whose system calls are counted, by name.
CONTENDERS: dict[str, Callable[[Params, WorkDir], TaskContender]] = {
    "store": AsyncStore,
    "bare asyncio": BareAsyncio,
}
#: Where the store's own code lies.
OWN = os.path.join(os.path.dirname(uringblob.__file__), "")
COMMITS = 12
_CALLS = 20
_MARK = "getppid("
_SYSTEM_CALL = re.compile(r"(\d+ +)?\w+\(")
_SUBMITTING = re.compile(r"io_uring_enter\(\d+, ([1-9]\d*), ")


async def count_calls(
    make: Callable[[], Awaitable[object]], times: int, package: str = ""
) -> tuple[float, float]:
    """Await ``make()`` so many times; return the calls of Python functions and of C functions for each.

    A step of a coroutine counts as a call.  Counted are functions whose file lies below ``package``, and
    what those call in C; without it all of this thread, the event loop's as well.
    """
    counted: collections.Counter[str] = collections.Counter()

    def seen(frame: types.FrameType, event: str, _argument: object) -> None:
        if frame.f_code.co_filename.startswith(package):
            counted[event] += 1

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        for _ in range(times):
            await make()
        python, c = counted["call"], counted["c_call"]  # before setprofile counts, too
    finally:
        sys.setprofile(before)
    return python / times, c / times


def calls_of(contender: TaskContender, load: Load) -> tuple[float, float, float]:
    """Return the calls of each frame: of Python functions of uringblob, of all, and of C functions."""
    contender.prepare()
    frames = _CALLS * load.in_flight

    async def work() -> tuple[float, float, float]:
        async with contender.session([load]) as call_for:
            calls = [call_for(load, number) for number in range(load.workers)]
            await _section(calls, _CALLS)
            own, _ = await count_calls(lambda: _section(calls, _CALLS), 1, OWN)
            python, c = await count_calls(lambda: _section(calls, _CALLS), 1)
            return own / frames, python / frames, c / frames

    return run_on(contender.params.loop, work())


async def _section(calls: list[TaskCall], times: int) -> None:
    async def repeat(call: TaskCall) -> None:
        for _ in range(times):
            await call()

    if len(calls) == 1:
        await repeat(calls[0])
    else:
        await asyncio.gather(*(repeat(call) for call in calls))


# ---- system calls -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Traced:
    """What the child does: a contender's name, a load, how many sections of how many calls of each worker."""

    name: str = "store"
    load: Load = Load(Verb.COMMIT)  # noqa: RUF009 - frozen
    sections: int = COMMITS
    calls: int = 1


@dataclasses.dataclass(frozen=True)
class CommitCounts:
    """Per commit; ``None`` where it cannot be seen here, with the reason in words."""

    submitting_enters: float | None
    enters_words: str
    device_flushes: float | None
    flushes_words: str


def count_commits(params: Params, workdir: WorkDir) -> CommitCounts:
    """Count what single commits do, once."""
    AsyncStore(params, workdir).prepare()
    if shutil.which("strace") is None:
        flushed = json.loads(_child(params, workdir, Traced(), []))
        return CommitCounts(None, "strace is not installed", *_flushes(flushed))
    try:
        printed, trace = _trace(params, workdir, Traced(), "io_uring_enter,getppid")
        flushed, counted = json.loads(printed), submitting_enters(trace)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return CommitCounts(None, f"strace failed: {error}", None, "the child failed")
    words = f"strace, {len(counted)} commits: {sorted(set(counted))}"
    return CommitCounts(statistics.median(counted) if counted else None, words, *_flushes(flushed))


def system_calls(params: Params, workdir: WorkDir, name: str, load: Load) -> tuple[float | None, str]:
    """Return the system calls of each frame, and what they are, or why they are not known."""
    CONTENDERS[name](params, workdir).prepare()
    if shutil.which("strace") is None:
        return None, "strace is not installed"
    try:
        _, trace = _trace(params, workdir, Traced(name, load, 1, _CALLS), "all")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return None, f"strace failed: {error}"
    frames = _CALLS * load.in_flight
    lines = [line for section in sections_of(trace) for line in section]
    kinds = collections.Counter(line.partition("(")[0].split()[-1] for line in lines)
    words = ", ".join(f"{kind} {count / frames:.2f}" for kind, count in kinds.most_common())
    return len(lines) / frames, words


def submitting_enters(trace: str) -> list[int]:
    """Return the number of enters that submitted something, for each section."""
    return [sum(bool(_SUBMITTING.search(line)) for line in section) for section in sections_of(trace)]


def sections_of(trace: str) -> list[list[str]]:
    """Return the system calls between each first mark and its second."""
    found: list[list[str]] = []
    inside = False
    for line in trace.splitlines():
        if _MARK in line:
            inside = not inside
            if inside:
                found.append([])
        elif inside and _SYSTEM_CALL.match(line):
            found[-1].append(line)
    return found


def _flushes(counted: list[int] | None) -> tuple[float | None, str]:
    if not counted:
        return None, "the device does not count its flushes"
    return float(
        statistics.median_low(counted)
    ), f"/sys/dev/block/*/stat, median of {len(counted)} commits: {sorted(set(counted))}"


def _trace(params: Params, workdir: WorkDir, what: Traced, calls: str) -> tuple[str, str]:
    path = workdir.path("strace-counts.txt")
    printed = _child(params, workdir, what, ["strace", "-f", "-o", path, "-e", f"trace={calls}"])
    with open(path, encoding="utf-8", errors="replace") as file:
        return printed, file.read()


def _child(params: Params, workdir: WorkDir, what: Traced, prefix: list[str]) -> str:
    verb, workers, frames = what.load.verb.value, what.load.workers, what.load.frames
    settings = {
        "params": dataclasses.asdict(params),
        "directory": workdir.directory,
        "what": {**dataclasses.asdict(what), "load": [verb, workers, frames]},
    }
    command = [*prefix, sys.executable, "-m", "uringblob_bench.counts", json.dumps(settings, default=str)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return ran.stdout


class _ExistingWorkDir(WorkDir):
    """The parent's directory, seen from the child."""

    def __init__(self, directory: str) -> None:
        self.directory = directory


def _work_in_sections(settings: str) -> None:
    given = json.loads(settings)
    workdir = _ExistingWorkDir(given["directory"])
    what = Traced(**given["what"])
    contender = CONTENDERS[what.name](Params(**given["params"]), workdir)
    verb, workers, frames = given["what"]["load"]
    load = Load(Verb(verb), workers, frames)
    counted: list[int] = []

    async def work() -> None:
        async with contender.session([load]) as call_for:
            made = [call_for(load, number) for number in range(workers)]
            await _section(made, what.calls)
            for _ in range(what.sections):
                before = flushes(workdir.directory)
                os.getppid()
                await _section(made, what.calls)
                os.getppid()
                after = flushes(workdir.directory)
                if before is not None and after is not None:
                    counted.append(after - before)

    run_on("asyncio", work())
    print(json.dumps(counted))  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    _work_in_sections(sys.argv[1])
