"""The real store on a simulated disk: everything but the choice of a file and an engine."""

from __future__ import annotations

import random

from uringblob.errors import StoreLocked
from uringblob.store.async_store import AsyncFileBlobStore
from uringblob.store.file import judge_superblocks, newest
from uringblob.store.format import HEADER_SIZE
from uringblob.store.opening.create import initial_image, initial_size
from uringblob.store.opening.open import start_core
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.engine import SimEngine
from uringblob.testing.sim.image import Image
from uringblob.testing.sim.locks import SimFile
from uringblob.testing.sim.loop import SimLoop


def new_image(page_size: int = 4096) -> Image:
    """Return the bytes of an empty store, as ``open`` would create it."""
    image = Image()
    for offset, data in initial_image(page_size):
        image.write(offset, data)
    image.size = initial_size(page_size)
    return image


async def open_sim_store(
    disk: SimDisk,
    loop: SimLoop,
    *,
    rng: random.Random | None = None,
    read_only: bool = False,
    verify: bool = True,
    direct_io: bool = True,
    instant: bool = False,
    cache_kept: bool = False,
    beside: bool = False,
) -> AsyncFileBlobStore:
    """Open the store on ``disk``, on ``loop``, which must be running.

    What an earlier process left un-flushed is flushed, and what a failed flush lost is lost.

    :param rng: chooses the order of completions (default: submission order, in the loop's next round).
    :param instant: every request is complete when its call returns: fast, and nothing is in flight.
    :param beside: other stores on this disk stay open: a reader beside a writer, or a writer beside readers.
    :param cache_kept: reads still return what a failed flush lost, as from a page cache that keeps it; with
        ``direct_io=False``.
    :raises StoreCorrupt: as ``AsyncFileBlobStore.open`` would.
    """
    if not beside:
        disk.locks.clear()
    if not (beside and read_only):
        disk.restart(cache_kept=cache_kept)
    file = SimFile(disk.locks, read_only=read_only)
    if not file.try_lock(beside=read_only):
        file.close()
        raise StoreLocked("the simulated file is locked by another opener: close the store there")
    superblocks = judge_superblocks(disk.live.read(0, HEADER_SIZE), "simulated")
    current, _ = newest(superblocks, "simulated")
    engine = SimEngine(disk, loop, current.page_size, rng=rng, direct_io=direct_io, instant=instant)
    try:
        cached = "" if direct_io else "it was read through a simulated cache"
        core = await start_core(file, engine, superblocks, verify=verify, cached=lambda: cached)
    except BaseException:
        await engine.close()
        file.close()
        raise
    return AsyncFileBlobStore(core, loop)
