"""More of everything than there is room for: requests, buffers, frames in a batch."""

from __future__ import annotations

import asyncio
import ctypes
import itertools

import pytest

from behaviour.quiet import quiet_async
from behaviour.stamps import blank, sequence_of, stamped
from uringblob import BUF_ALIGN, AsyncFileBlobStore, BlobGuid, FileBlobStore

pytestmark = pytest.mark.one_interpreter  # queues and pools are alike in every interpreter
REQUESTS = 500
POOL = 8
DEPTHS = [1, 8]


def guid(number):
    return BlobGuid(number.to_bytes(16, "big"))


def unaligned(frame, skip=1):
    """Return a copy of ``frame`` (or room for one: a size) at an address that is no multiple of 4096."""
    size = frame if isinstance(frame, int) else len(frame)
    memory = bytearray(size + BUF_ALIGN + skip)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % BUF_ALIGN + skip
    view = memoryview(memory)[start : start + size]
    if not isinstance(frame, int):
        view[:] = frame
    return view


@pytest.fixture(params=DEPTHS, ids=lambda depth: f"depth {depth}")
def options(request, engine):
    return {"engine": engine, "page_size": 8192, "queue_depth": request.param, "buffers": POOL}


def make(store, kind, frame):
    """Return ``frame`` in memory of a kind; the pool's runs out, then it is the heap's."""
    if kind == "pool":
        buffer = store.alloc_blob_buf_uninit()
        buffer.view[:] = frame
        return buffer
    return unaligned(frame) if kind == "unaligned" else frame


def room(store, kind):
    if kind == "pool":
        return store.alloc_blob_buf_uninit()
    return unaligned(store.page_size) if kind == "unaligned" else blank(store.page_size)


def contents(buffer):
    return buffer if isinstance(buffer, (bytearray, memoryview)) else buffer.view


KINDS = ["pool", "unaligned"]


@pytest.mark.parametrize("kind", KINDS)
async def test_more_requests_than_the_queue_is_deep(store_path, options, kind):
    async with AsyncFileBlobStore.open(store_path, **options) as store:
        size = store.page_size
        names = [guid(n) for n in range(REQUESTS)]
        await asyncio.gather(*(store.write_blob(n, make(store, kind, stamped(n, 1, size))) for n in names))
        into = [room(store, kind) for _ in names]
        # Reads beside writes of other names, and of the same.
        await asyncio.gather(
            *(store.read_blob(name, buffer) for name, buffer in zip(names, into, strict=True)),
            *(store.write_blob(n, make(store, kind, stamped(n, 2, size))) for n in names[::2]),
            *(store.commit([(n, make(store, kind, stamped(n, 2, size)))]) for n in names[1::2]),
        )
        for name, buffer in zip(names, into, strict=True):
            assert sequence_of(name, contents(buffer)) in (1, 2)
        assert store.stats().buffers_leased == (POOL if kind == "pool" else 0)
        del into, buffer
        seen = blank(size)
        for name in names:
            await store.read_blob(name, seen)
            assert sequence_of(name, seen) == 2
        await quiet_async(store)
        assert store.stats().buffers_leased == 0
        assert (await store.verify()).ok


@pytest.fixture(params=["write_blobs", "write_blobs_with_data_sync", "commit"])
def method(request):
    return request.param


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_every_size(store_path, engine, method, kind):
    """1, 2, 300 and 1,000 frames: more than the pool has, than the queue holds, than one gather may."""
    options = {"engine": engine, "page_size": 4096, "queue_depth": 8, "buffers": 400}
    with FileBlobStore.open(store_path, **options) as store:
        for sequence, count in enumerate((1, 2, 300, 1000), start=1):
            names = [guid(n) for n in range(count)]
            getattr(store, method)([(n, make(store, kind, stamped(n, sequence, 4096))) for n in names])
            into = [(name, room(store, kind)) for name in names]
            assert store.read_blobs(into) == [None] * count
            for name, buffer in into:
                assert sequence_of(name, contents(buffer)) == sequence
            del into, buffer
        assert store.stats().buffers_leased == 0
        assert store.verify().ok
    with FileBlobStore.open(store_path, engine=engine) as store:
        seen = blank(4096)
        for name in names:
            store.read_blob(name, seen)
            assert sequence_of(name, seen) == sequence


@pytest.mark.parametrize("count", [2, 1100])
def test_the_same_guid_again_in_a_batch(store_path, engine, method, count):
    """The last one wins, in whatever memory it lies."""
    with FileBlobStore.open(store_path, engine=engine, page_size=4096, buffers=POOL) as store:
        batch = []
        for turn in range(count):
            name = guid(turn % (count // 2) if turn % 3 else 7)
            batch.append((name, stamped(name, turn + 1, 4096)))
        last = dict(batch)
        kinds = itertools.cycle(["pool", "unaligned", "plain"])
        getattr(store, method)([(name, make(store, next(kinds), frame)) for name, frame in batch])
        assert set(store.list_blobs()) == set(last)
        into = [(name, room(store, next(kinds))) for name in last]
        assert store.read_blobs(into) == [None] * len(last)
        assert [bytes(contents(buffer)) for _, buffer in into] == list(last.values())


def test_more_buffers_than_the_pool_has(store_path, engine):
    with FileBlobStore.open(store_path, engine=engine, page_size=65536, buffers=POOL) as store:
        held = [store.alloc_blob_buf_uninit() for _ in range(3 * POOL)]
        leased = store.stats().buffers_leased
        assert leased <= POOL
        assert sum(buffer.registered for buffer in held) == store.stats().buffers_registered
        for number, buffer in enumerate(held):
            buffer.view[:] = stamped(guid(number), 1, 65536)
        store.commit([(guid(number), buffer) for number, buffer in enumerate(held)])
        # In another order, so that pool and heap change places, and one gather mixes both.
        store.commit([(guid(n), held[n]) for n in range(len(held) - 1, -1, -1)])
        for buffer in held:
            buffer.view[:] = bytes(65536)
        assert store.read_blobs([(guid(n), buffer) for n, buffer in enumerate(held)]) == [None] * len(held)
        for number, buffer in enumerate(held):
            assert sequence_of(guid(number), buffer.view) == 1
            buffer.release()
        assert store.stats().buffers_leased == 0
