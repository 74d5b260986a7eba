"""The asynchronous store on uvloop: the whole conformance suite, and what makes a loop sweat."""

from __future__ import annotations

import asyncio

import pytest

from behaviour.quiet import quiet_async
from behaviour.stamps import blank, sequence_of, stamped
from uringblob import AsyncFileBlobStore, BlobGuid, FileBlobStore
from uringblob.testing import check_async_blob_store

uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

# libuv's first loop makes a pipe that stays for the process's life; it is no leak of a test.
uvloop.new_event_loop().close()

NAMES = [BlobGuid(bytes([n]) * 16) for n in range(100)]


def run(main):
    """Run ``main`` on a uvloop of its own."""
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(main)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


def test_every_sentence_of_the_contract(disk_dir, engine):
    numbers = iter(range(10_000))
    last = None

    def make():
        nonlocal last
        last = disk_dir / f"store-{next(numbers)}"
        return reopen()

    def reopen():
        return AsyncFileBlobStore.open(last, engine=engine, page_size=4096, buffers=16)

    run(check_async_blob_store(make, reopen=reopen))


def test_many_tasks_some_cancelled(store_path, engine):
    async def main():
        options = {"engine": engine, "page_size": 8192, "queue_depth": 8, "buffers": 16}
        async with AsyncFileBlobStore.open(store_path, **options) as store:
            store._core.maintenance.compaction_blocks_min = 8
            await store.write_blobs([(name, stamped(name, 1, 8192)) for name in NAMES])
            for sequence in range(2, 12):
                tasks = [
                    asyncio.ensure_future(store.commit([(name, stamped(name, sequence, 8192))]))
                    for name in NAMES
                ]
                reads = [asyncio.ensure_future(store.read_blob(name, blank(8192))) for name in NAMES]
                await asyncio.sleep(0)
                for task in (*tasks[::3], *reads[::3]):
                    task.cancel()
                await asyncio.gather(*tasks, *reads, return_exceptions=True)
                for number, name in enumerate(NAMES):
                    frame = blank(8192)
                    await store.read_blob(name, frame)
                    seen = sequence_of(name, frame)
                    assert seen == sequence or (number % 3 == 0 and seen <= sequence)
            await quiet_async(store)
            assert store.stats().buffers_leased == 0
            assert (await store.verify()).ok

    run(main())


def test_a_synchronous_store_in_a_running_uvloop(store_path, engine):
    async def main():
        with FileBlobStore.open(store_path, engine=engine, page_size=4096) as store:
            for sequence in range(1, 20):
                store.commit([(NAMES[0], stamped(NAMES[0], sequence, 4096))])
                frame = blank(4096)
                store.read_blob(NAMES[0], frame)
                assert sequence_of(NAMES[0], frame) == sequence
                await asyncio.sleep(0)

    run(main())


def test_opened_and_closed_without_waiting(store_path, engine):
    async def main():
        for _ in range(20):
            async with AsyncFileBlobStore.open(
                store_path, engine=engine, page_size=4096, lock_timeout=0
            ) as store:
                await store.commit([(NAMES[0], stamped(NAMES[0], 1, 4096))])

    run(main())
