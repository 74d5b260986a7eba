"""What one engine wrote the other reads, and goes on with."""

from __future__ import annotations

import pytest

from behaviour.work import fill, guid, missing
from uringblob import AsyncFileBlobStore

pytestmark = [pytest.mark.one_interpreter, pytest.mark.usefixtures("needs_uring")]

ENGINES = ["io_uring", "pread"]


@pytest.mark.parametrize("direct", [None, False], ids=["direct if it can be", "buffered"])
@pytest.mark.parametrize("page_size", [4096, 524288])
@pytest.mark.parametrize("first", ENGINES)
async def test_turn_and_turn_about(store_path, first, page_size, direct):
    engines = [first, *(engine for engine in ENGINES if engine != first)] * 3
    for turn, engine in enumerate(engines):
        # Each time the other way of reaching the disk, too: neither may see the other's cache.
        options = {"engine": engine, "direct": direct if turn % 2 else None, "buffers": 4}
        async with AsyncFileBlobStore.open(store_path, page_size=page_size, **options) as store:
            assert store.stats().engine == engine
            if turn:
                assert not await missing(store, range(turn - 1, 8), turn - 1)
                assert len(await store.list_blobs()) == 9 - turn
            await fill(store, range(turn, 8), turn)
            await store.commit(deletes=[guid(n) for n in range(turn)])
            if turn == 3:
                await store._core.maintenance.start_compaction()
            assert (await store.verify()).ok
