"""The log rewritten while the store is in use, and what that leaves for the next opener."""

from __future__ import annotations

import asyncio
import random

import pytest

from uringblob import BlobGuid
from uringblob.store.async_store import AsyncFileBlobStore

pytestmark = pytest.mark.one_interpreter  # pure logic, whatever the interpreter
PAGE = 4096


def fill(number):
    return number.to_bytes(4, "little") * (PAGE // 4)


async def contents(store):
    frame = bytearray(PAGE)
    found = {}
    for guid in await store.list_blobs():
        await store.read_blob(guid, frame)
        found[guid] = bytes(frame)
    return found


@pytest.mark.parametrize("blobs", [0, 1, 119, 120, 500])
async def test_a_compacted_store_holds_what_it_held(store_path, engine, blobs):
    model = {BlobGuid.random(): fill(i) for i in range(blobs)}
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        await store.commit(model.items())
        await store._core.maintenance.start_compaction()
        assert store.stats().compactions == 1
        assert await contents(store) == model
        assert (await store.verify()).ok
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert await contents(store) == model
        assert store._core.log.group_blocks == 0


async def test_commits_go_on_during_compactions(store_path, engine):
    guids = [BlobGuid.random() for _ in range(300)]
    model = {}
    rng = random.Random(5)

    async def committer(mine):
        for step in range(12):
            guid = rng.choice(mine)
            if guid in model and rng.random() < 0.3:
                await store.commit(deletes=[guid])
                model.pop(guid)
            else:
                await store.commit([(guid, fill(step))])
                model[guid] = fill(step)

    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        await store.commit([(guid, fill(0)) for guid in guids])
        model.update((guid, fill(0)) for guid in guids)
        committers = [asyncio.create_task(committer(guids[i::10])) for i in range(10)]
        while not all(task.done() for task in committers):
            await store._core.maintenance.start_compaction()
        await asyncio.gather(*committers)
        assert store.stats().compactions > 2
        assert await contents(store) == model
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert await contents(store) == model
        assert (await store.verify()).ok


async def test_a_long_log_is_compacted_by_itself_and_the_file_stays_small(store_path, engine):
    guid = BlobGuid.random()
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        store._core.maintenance.compaction_blocks_min = 64
        await store.commit([(guid, fill(0))])
        sizes = []
        for step in range(600):
            await store.commit([(guid, fill(step))])
            if step % 200 == 199:
                sizes.append(store.stats().file_bytes)
        assert store.stats().compactions >= 5
        assert sizes[-1] == sizes[0]
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert await contents(store) == {guid: fill(599)}


async def test_closing_gives_up_a_compaction_without_a_trace(store_path, engine, caplog):
    """Nor a warning: no action is needed."""
    model = {BlobGuid.random(): fill(i) for i in range(5000)}
    store = await AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine)
    await store.commit(model.items())
    job = store._core.maintenance.start_compaction()
    await store.aclose()
    assert job.done()
    assert store.stats().compactions == 0
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
    async with AsyncFileBlobStore.open(store_path, engine=engine) as again:
        assert len(await again.list_blobs()) == 5000
        assert (await again.verify()).ok


async def test_pending_changes_survive_a_compaction_as_pending(store_path, engine):
    guid = BlobGuid.random()
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        await store.write_blob(guid, fill(1))
        await store._core.maintenance.start_compaction()
        assert store.needs_flush()
        assert store._core.index.find_durable(guid) is None
        await store.flush()
        assert not store.needs_flush()
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert await contents(store) == {guid: fill(1)}
