"""A store whose event loop is closed: what it says, and how it is freed."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from uringblob import AsyncFileBlobStore, StoreClosed, StoreLocked

PAGE = 4096


def guid(number):
    return number.to_bytes(16, "big")


@pytest.fixture
def opened(store_path, engine):
    """Return how to open a store, and what to do with it, on a loop that is closed afterwards."""

    def on_a_loop(work):
        async def main():
            store = await AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE)
            await store.commit([(guid(0), bytes([7]) * PAGE)])
            await work(store)
            return store

        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _loop, _what: None)  # tasks are pending
        try:
            return loop.run_until_complete(main())
        finally:
            loop.close()

    return on_a_loop


async def idle(_store):
    pass


async def reading(store):
    begun.append(asyncio.ensure_future(store.read_blob(guid(0), bytearray(PAGE))))
    await asyncio.sleep(0)


async def writing(store):
    begun.append(asyncio.ensure_future(store.write_blob(guid(1), bytes(PAGE))))
    await asyncio.sleep(0)


async def closing(store):
    await reading(store)
    begun.append(asyncio.ensure_future(store.aclose()))
    await asyncio.sleep(0)


begun: list[asyncio.Future[None]] = []
MOMENTS = {"idle": idle, "reading": reading, "writing": writing, "closing": closing}


@pytest.fixture(autouse=True)
def _forget_tasks():
    yield
    begun.clear()
    gc.collect()


async def read_again(path, engine, lock_timeout=5.0):
    async with AsyncFileBlobStore.open(path, engine=engine, lock_timeout=lock_timeout) as store:
        into = bytearray(PAGE)
        await store.read_blob(guid(0), into)
        assert into == bytes([7]) * PAGE


def test_it_says_what_to_do(opened, store_path, engine):
    store = opened(idle)

    async def use():
        with pytest.raises(RuntimeError, match=r"loop that is closed: await its aclose\(\) on this one"):
            await store.flush()
        with pytest.raises(StoreLocked, match=r"in this process.*await that store's aclose\(\), on any loop"):
            await AsyncFileBlobStore.open(store_path, engine=engine, lock_timeout=0)
        await store.aclose()

    asyncio.run(use())


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_aclose_on_any_loop_frees_it(opened, store_path, engine, moment):
    store = opened(moment)

    async def free():
        await store.aclose()
        await store.aclose()
        assert store.closed
        assert "closed" in repr(store)
        with pytest.raises(StoreClosed):
            await store.flush()
        await read_again(store_path, engine)

    asyncio.run(free())


def test_an_idle_one_is_unlocked_at_once(opened, store_path, engine):
    store = opened(idle)

    async def free():
        await store.aclose()
        async with AsyncFileBlobStore.open(store_path, engine=engine, lock_timeout=0) as again:
            assert await again.has_blob(guid(0))

    asyncio.run(free())


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_forgotten_it_is_collected_unlocked_and_warned_about(opened, store_path, engine, moment):
    with warnings.catch_warnings(record=True) as kept:
        warnings.simplefilter("always")
        opened(moment)
        begun.clear()
        gc.collect()
        asyncio.run(asyncio.wait_for(collected(store_path, engine), 60))
    assert "unclosed store" in " ".join(str(w.message) for w in kept if w.category is ResourceWarning)


async def collected(path, engine):
    """Open it as soon as it can be: a thread lets go of a store when its call has ended."""
    while True:
        gc.collect()
        try:
            return await read_again(path, engine, lock_timeout=0.01)
        except StoreLocked:
            continue
