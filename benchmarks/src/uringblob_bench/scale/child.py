"""A process that opens a store of many blobs and prints its costs: so its memory is that store's alone."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import statistics
import sys
import time
from collections.abc import Awaitable
from typing import Any

from uringblob import AsyncFileBlobStore
from uringblob_bench.device import read_text
from uringblob_bench.scale.build import COMMITS_LEFT, guid_of

#: The blobs that commits replace: after a few rounds their slots are written ones.
_CHANGING = 8
_WARM_UP_COMMITS = 48
_COMMITS = 400
_POLL_S = 0.001
#: Commits before latencies count: fewer than a store near its compaction has left.
_BEFORE = COMMITS_LEFT // 2


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


async def probe(path: str, near_compaction: str, quiet_s: str) -> dict[str, Any]:
    """Open one store, list it, commit, and both read and commit; the latter beside the other one's compaction."""
    started = time.perf_counter()
    async with AsyncFileBlobStore.open(path, create=False) as store:
        found: dict[str, Any] = {"open_s": time.perf_counter() - started}
        gc.collect()
        found["resident_mb"], found["open_peak_mb"] = resident_mb(), peak_mb()
        started = time.perf_counter()
        found["blobs"] = len(await store.list_blobs())
        found["list_s"] = time.perf_counter() - started
        latencies = await _commits(store)
        found["commit_p50_s"] = statistics.median(latencies)
        found["commit_max_s"] = max(latencies)
        found["quiet"] = await _beside(store, asyncio.sleep(float(quiet_s)))
    async with AsyncFileBlobStore.open(near_compaction, create=False) as store:
        found["compacting"] = await _beside(store, _compacted(store))
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


async def _compacted(store: AsyncFileBlobStore) -> None:
    """Wait until the commits that others make have led to a compaction, and it has ended."""
    while not store.stats().compactions:
        await asyncio.sleep(_POLL_S)


async def _beside(store: AsyncFileBlobStore, work: Awaitable[None]) -> dict[str, float]:
    """Read and commit without pause during ``work``; the worst of each, and how long it took."""
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
        while len(seen["writer"]) < _BEFORE and not any(task.done() for task in tasks):
            await asyncio.sleep(_POLL_S)
        for latencies in seen.values():
            latencies.clear()
        started = time.perf_counter()
        await work
        seconds = time.perf_counter() - started
        await asyncio.sleep(0.05)  # calls held up at the very end count, too
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    worst = {f"{name}_worst_s": max(latencies, default=0.0) for name, latencies in seen.items()}
    return {"seconds": seconds, **worst, **{f"{name}_calls": len(s) for name, s in seen.items()}}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(probe(*sys.argv[1:]))))  # noqa: T201 - the parent reads it
