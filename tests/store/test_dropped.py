"""A store that is dropped in the middle of its work ends quietly, as garbage does.

The state machine found it: after a death during a compaction the collector closed the store's coroutines,
and three of them (compaction, commit, verify) waited for something in their last clause: "coroutine ignored
GeneratorExit" on standard error, and a failed run where warnings are errors.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from sim.lives import PAGE, forget, frame, guid, lend, small_log, used_image
from uringblob.buffers import frame_of
from uringblob.store.verification import verify_core
from uringblob.testing.sim_disk import SimDisk
from uringblob.testing.sim_loop import SimLoop
from uringblob.testing.sim_store import open_sim_store

pytestmark = pytest.mark.one_interpreter

WORK = {
    "compaction": lambda core: core.upkeep._compact(),
    "commit": lambda core: core.commit(frames_of(core, {guid(8): frame(8)}), ()),
    "flush": lambda core: core.flush(),
    "verify": lambda core: verify_core(core, None),
}


def frames_of(core, contents):
    pool = core.medium.engine.pool
    return {
        name: frame_of(lend(content), PAGE, writable=False, pool=pool) for name, content in contents.items()
    }


@pytest.mark.parametrize("ticks", range(12))
@pytest.mark.parametrize("name", WORK)
def test_dropped_in_the_middle(name, ticks, monkeypatch):
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
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
    store._core.medium.start(work(store._core))
    for _ in range(ticks):
        await asyncio.sleep(0)
    forget(store)
