"""Whoever stops waiting for a store that opens leaves it closed and unlocked."""

from __future__ import annotations

import asyncio

import pytest

from uringblob import AsyncFileBlobStore, StoreCorrupt
from uringblob.store.closing import close_core
from uringblob.store.opening import open_request as opener

PAGE = 4096


@pytest.fixture
async def made(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        await store.commit([(bytes(16), b"1" * PAGE)])
    return store_path


@pytest.fixture
def gate(monkeypatch):
    """Holds the opening, which has the lock by then; ``gate.error`` is raised behind it."""
    gate = asyncio.Event()
    gate.begun, gate.error = asyncio.Event(), None
    real = opener.open_core

    async def open_core(options, file):
        core = await real(options, file)
        gate.begun.set()
        await gate.wait()
        if gate.error is not None:
            await close_core(core, flush=False)
            raise gate.error
        return core

    monkeypatch.setattr(opener, "open_core", open_core)
    return gate


async def open_of(path):
    return await AsyncFileBlobStore.open(path)


@pytest.mark.parametrize("error", [None, StoreCorrupt("what the opening came to")], ids=["opens", "fails"])
async def test_cancelled_while_it_opens(made, gate, monkeypatch, error):
    gate.error = error
    opening = asyncio.ensure_future(open_of(made))
    await gate.begun.wait()
    opening.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not opening.done(), "it has the lock, and ends first"
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    monkeypatch.undo()
    async with AsyncFileBlobStore.open(made, lock_timeout=0) as again:
        assert len(await again.list_blobs()) == 1


async def test_an_opening_says_what_it_is_and_touches_nothing(store_path):
    opening = AsyncFileBlobStore.open(store_path, create=False)
    assert repr(opening) == f"<OpenRequest of {store_path!r}: await it, or use it with 'async with'>"
    with pytest.raises(FileNotFoundError):
        await opening
