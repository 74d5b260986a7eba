"""One process that opens one store of many blobs and says what it saw, so that its memory is its own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import resource
import statistics
import sys
import time
from typing import Any

from uringblob import AsyncFileBlobStore
from uringblob_bench.device import read_text
from uringblob_bench.scale.build import build, guid_of

#: The blobs that commits replace: after a few rounds their slots are written ones.
_CHANGING = 8
_WARM_UP_COMMITS = 48
_COMMITS = 400
#: Seconds of readers and writers without a compaction, for comparison.
_QUIET_S = 1.0


def resident_mb() -> float:
    """Return this process's resident memory, in MB."""
    fields = read_text("/proc/self/statm").split()
    return int(fields[1]) * resource.getpagesize() / 1e6 if len(fields) > 1 else 0.0


def peak_mb() -> float:
    """Return the most memory that this program ever had resident, in MB.

    Not ``ru_maxrss``: that begins with what the parent had when it forked.
    """
    lines = read_text("/proc/self/status").splitlines()
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)


async def probe(path: str, *, pauses: bool) -> dict[str, Any]:
    """Open, list, commit; with ``pauses`` also read and write while the log is compacted."""
    started = time.perf_counter()
    store = await AsyncFileBlobStore.open(path, create=False)
    found: dict[str, Any] = {"open_s": time.perf_counter() - started}
    try:
        gc.collect()
        found["resident_mb"], found["open_peak_mb"] = resident_mb(), peak_mb()
        started = time.perf_counter()
        listed = await store.list_blobs()
        found["list_s"] = time.perf_counter() - started
        found["blobs"] = len(listed)
        del listed
        latencies = await _commits(store)
        found["commit_p50_s"] = statistics.median(latencies)
        found["commit_max_s"] = max(latencies)
        if pauses:
            found["quiet"] = await _beside(store, asyncio.sleep(_QUIET_S))
            found["compacting"] = await _beside(store, _compact(store))
    finally:
        await store.aclose()
    found["peak_mb"] = peak_mb()
    return found


async def _commits(store: AsyncFileBlobStore) -> list[float]:
    latencies = []
    with store.alloc_blob_buf_zeroed() as buffer:
        for number in range(_WARM_UP_COMMITS + _COMMITS):
            started = time.perf_counter()
            await store.commit([(guid_of(number % _CHANGING), buffer)])
            latencies.append(time.perf_counter() - started)
    return latencies[_WARM_UP_COMMITS:]


async def _compact(store: AsyncFileBlobStore) -> None:
    await store._core.maintenance.start_compaction()


async def _beside(store: AsyncFileBlobStore, work: Any) -> dict[str, float]:
    """Read and commit without pause while ``work`` goes on; the worst of each, and how long it took."""
    blobs = store.stats().blobs
    seen: dict[str, list[float]] = {"reader": [], "writer": []}

    async def endless(name: str, buffer: Any) -> None:
        number = 0
        while True:
            number += 1
            started = time.perf_counter()
            if name == "reader":
                await store.read_blob(guid_of((number * 7919) % blobs), buffer)
            else:
                await store.commit([(guid_of(number % _CHANGING), buffer)])
            seen[name].append(time.perf_counter() - started)

    with store.alloc_blob_buf_zeroed() as read, store.alloc_blob_buf_zeroed() as wrote:
        tasks = [asyncio.ensure_future(endless(name, b)) for name, b in (("reader", read), ("writer", wrote))]
        await asyncio.sleep(0.1)
        for latencies in seen.values():
            latencies.clear()
        started = time.perf_counter()
        await work
        seconds = time.perf_counter() - started
        await asyncio.sleep(0.05)  # calls held up at the very end count, too
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
    worst = {f"{name}_worst_s": max(latencies, default=0.0) for name, latencies in seen.items()}
    return {"seconds": seconds, **worst, **{f"{name}_calls": len(s) for name, s in seen.items()}}


def main(settings: str) -> None:
    """Do what the parent asks, and print what was found as JSON."""
    told = json.loads(settings)
    if told["do"] == "build":
        asyncio.run(build(told["path"], told["blobs"], told["page_size"]))
        print("{}")  # noqa: T201 - the parent reads it
    else:
        print(json.dumps(asyncio.run(probe(told["path"], pauses=told["pauses"]))))  # noqa: T201 - the same


if __name__ == "__main__":
    main(sys.argv[1])
