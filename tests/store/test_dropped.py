"""A store that is dropped in the middle of its work ends quietly, as garbage does.

The state machine found it: after a death during a compaction the collector closed the store's coroutines,
and three of them (compaction, commit, verify) waited for something in their last clause: "coroutine ignored
GeneratorExit" on standard error, and a failed run where warnings are errors.  Looked at since: closing, opening
and a batch that is checksummed while it is written did the same.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from sim.lives import PAGE, forget, frame, guid, lend, small_log, used_image
from uringblob import tuning
from uringblob.api.open_options import OpenOptions
from uringblob.buffers.leases import frame_of
from uringblob.store.closing import close_core
from uringblob.store.file import StoreFile, judge_superblocks
from uringblob.store.format import HEADER_SIZE
from uringblob.store.multi_read import read_batch
from uringblob.store.opening import open as opening
from uringblob.store.opening.open import _open_on_engine
from uringblob.store.verify import check_frames, check_metadata
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.engine import SimEngine
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import open_sim_store

pytestmark = pytest.mark.one_interpreter

WORK = {
    "compaction": lambda core: core.maintenance._compact(),
    "commit": lambda core: core.commit(frames_of(core, {guid(8): frame(8)}), None, ()),
    "write": lambda core: core.write(frames_of(core, {guid(8): frame(8)}), None, data_sync=False),
    "write in turns": lambda core: core.write(
        frames_of(core, {guid(n): frame(n) for n in range(8, 11)}), None, data_sync=False
    ),
    "synced write": lambda core: core.write(frames_of(core, {guid(8): frame(8)}), None, data_sync=True),
    "flush": lambda core: core.flush(),
    "close": lambda core: close_core(core, flush=True),
    "opening": lambda core: open_again(),
    "verify": lambda core: verify(core),
    "reads": lambda core: read_batch(core.reads, rooms_of(core, 4)),
    "committers": lambda core: commit_together(core, 20),
}


async def verify(core):
    await check_frames(core, [guid(n) for n in range(12)], lambda *_: None)
    await check_metadata(core)


def rooms_of(core, count):
    """Return reads of which the last one's memory is not aligned."""
    pool, odd = core.file_io.engine.pool, memoryview(bytearray(PAGE + 1))[1:]
    memory = [*(bytearray(PAGE) for _ in range(count)), odd]
    return [
        (guid(n % count), frame_of(room, PAGE, writable=True, pool=pool)) for n, room in enumerate(memory)
    ]


async def commit_together(core, count):
    jobs = [
        core.file_io.start(core.commit(frames_of(core, {guid(20 + n): frame(n)}), None, ()))
        for n in range(count)
    ]
    for job in jobs:
        await job


def frames_of(core, contents):
    pool = core.file_io.engine.pool
    return {
        name: frame_of(lend(content), PAGE, writable=False, pool=pool) for name, content in contents.items()
    }


IMAGE = used_image(8)


def engine_of(_request):
    """Stands for ``open_engine``; keeps nothing alive."""
    return SimEngine(SimDisk(image=IMAGE.copy()), asyncio.get_running_loop(), PAGE)


async def open_again():
    """Open as ``AsyncFileBlobStore.open`` does, engine and all."""
    await _open_on_engine(
        OpenOptions("simulated"),
        StoreFile(-1, "simulated", read_only=False),
        judge_superblocks(IMAGE.read(0, HEADER_SIZE), "simulated"),
        PAGE,
    )


@pytest.mark.parametrize("overlap", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("ticks", range(12))
@pytest.mark.parametrize("name", WORK)
def test_dropped_in_the_middle(name, ticks, overlap, monkeypatch):
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    monkeypatch.setattr(opening, "open_engine", engine_of)
    if overlap:  # batches are checksummed while they are written
        monkeypatch.setattr(tuning, "WRITE_OVERLAP_BYTES_MIN", 0)
        monkeypatch.setattr(tuning, "COMMIT_OVERLAP_BYTES_MIN", 0)
    monkeypatch.setattr(tuning, "BYTES_PER_ITERATION", PAGE)  # and wait for their turns at it
    with small_log():
        loop = SimLoop()
        loop.run(_begin(loop, WORK[name], ticks))
        del loop
        gc.collect()
    assert [c.exc_value for c in complaints] == []


async def _begin(loop, work, ticks) -> None:
    store = await open_sim_store(SimDisk(image=used_image(8)), loop)
    await store.commit([(guid(n), lend(frame(n))) for n in range(4)])
    await store.write_blob(guid(7), lend(frame(7)))
    store._core.file_io.start(work(store._core))
    for _ in range(ticks):
        await asyncio.sleep(0)
    forget(store)
