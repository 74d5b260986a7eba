"""A signal handler that raises between a request and its ``await``: the kernel still has the caller's frame.

The call ends with the handler's exception, as a cancelled one does: not before the kernel has let go of the
frame.  It ended at once, and the caller, who had his frame back, saw it filled with a blob's bytes afterwards.
"""

from __future__ import annotations

import asyncio
import os

import pytest

import seeds
from behaviour.work import frame, guid
from striking import HandlerAtCalls
from uringblob import AsyncFileBlobStore, BlobStoreError, completion
from uringblob.engines.pread import engine as pread_engine
from uringblob.engines.pread import worker_pool
from uringblob.engines.uring import engine as uring_engine
from uringblob.ring import driver, ring
from uringblob.store import async_store, calls, core, file_reads, frame_reads, multi_read
from uringblob.store.index import slots
from uringblob.store.io import job, pending_write

pytestmark = [
    pytest.mark.untraced("it has a profiler of its own"),
    # What is struck before its first line.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PAGE = 4096
PATIENCE = 20  # seconds until a call that does not end fails the test
BLOBS = 4

OURS = {
    module.__file__
    for module in (
        *(async_store, core, file_reads, frame_reads, multi_read, slots, job, pending_write),
        *(uring_engine, driver, ring, pread_engine, worker_pool),
    )
}


class Struck(BaseException):
    """What the tests' signal handlers raise."""


async def in_time(call):
    """Await ``call``, which ``wait_for`` could not cancel; return its exception."""
    task = asyncio.ensure_future(call)
    _, left = await asyncio.wait([task], timeout=PATIENCE)
    assert not left, f"{call!r} does not end"
    return task.exception()


async def filled(path, engine):
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    store = await AsyncFileBlobStore.open(path, engine=engine, page_size=PAGE)
    await store.commit([(guid(n), frame(n, PAGE)) for n in range(64)])
    await store.commit(deletes=[guid(n) for n in range(BLOBS, 64)])
    for n in range(2):  # slots that are free at once are what small commits want
        await store.commit([(guid(n), frame(n, PAGE))])
    while store._core.file_io.engine.in_flight:
        await asyncio.sleep(0.001)
    return store


READS = {
    "read_blob": lambda s, buf: s.read_blob(guid(1), buf),
    "read_blob_range": lambda s, buf: s.read_blob_range(guid(1), 0, buf),
    "read_blobs": lambda s, buf: s.read_blobs([(guid(1), buf)]),
}


async def struck_at(call, number, store, files=OURS):
    """Await ``call`` struck at that call of its first step; return its exception, and what is in flight then."""
    engine = store._core.file_io.engine
    left = []

    async def whole():
        asyncio.get_running_loop().call_soon(handler.stop)
        handler.start()
        try:
            await call()
        finally:
            handler.stop()
            left.extend(engine.sinks())

    handler = HandlerAtCalls(files, number, Struck)
    error = await in_time(whole())
    return handler.struck, error, left


@pytest.mark.parametrize("name", READS)
async def test_a_struck_read_ends_when_its_frame_is_its_callers_again(store_path, engine, name):
    store = await filled(store_path, engine)
    number, struck, given_back = 0, True, []
    while struck:
        buffer = store.alloc_blob_buf_zeroed()
        struck, error, left = await struck_at(lambda: READS[name](store, buffer), number, store)  # noqa: B023
        assert isinstance(error, Struck) is bool(struck), (number, struck, error)
        assert not left, f"number {number}, {struck}: {left} may still fill the frame"
        buffer.view[:] = bytes(PAGE)
        given_back.append(buffer)
        assert not store._core.index.slots._pins, f"number {number}, {struck}: a slot stays pinned"
        number += 1
    assert number >= 8
    await store.flush()
    assert all(bytes(buffer.view) == bytes(PAGE) for buffer in given_back)
    assert await in_time(store.read_blob(guid(1), bytearray(PAGE))) is None
    assert await in_time(store.aclose()) is None


CHANGES = {
    "commit": lambda s, buf: s.commit([(guid(1), buf)]),
    "write_blob": lambda s, buf: s.write_blob(guid(1), buf),
    "write_blobs_with_data_sync": lambda s, buf: s.write_blobs_with_data_sync([(guid(1), buf)]),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_struck_change_ends_when_its_frame_is_its_callers_again(store_path, engine, name):
    """It is there wholly or not at all, whatever the caller does with the frame then."""
    number, struck = seeds.number() % 3, True
    while struck:
        store = await filled(store_path, engine)
        buffer = store.alloc_blob_buf_zeroed()
        buffer.view[:] = frame(1, PAGE, 7)
        struck, _, left = await struck_at(lambda: CHANGES[name](store, buffer), number, store)  # noqa: B023
        buffer.view[:] = bytes(PAGE)
        frames = [sink for sink in left if buffer.address in addresses(sink)]
        assert not frames, f"number {number}, {struck}: {left} may still have the frame"
        error = await in_time(store.aclose())
        assert error is None or isinstance(error, BlobStoreError), error
        async with AsyncFileBlobStore.open(store_path, engine="pread") as again:
            room = bytearray(PAGE)
            await again.read_blob(guid(1), room)
            assert room in (frame(1, PAGE), frame(1, PAGE, 7)), f"number {number}, {struck}"
            assert (await again.verify()).ok
        os.unlink(store_path)
        number += 3
    assert number > 20


#: What a call that runs as a job goes through before it waits, and after.
JOBS = {module.__file__ for module in (calls, job, completion)}


@pytest.mark.parametrize("name", ["write_blob", "write_blobs_with_data_sync", "delete_blob"])
async def test_a_struck_change_is_counted_down_once(store_path, engine, name):
    """It was counted down by its job, and by its caller, who was struck when the job knew of that already.

    ``aclose`` waited for the others no more.
    """
    changes = {**CHANGES, "delete_blob": lambda s, _: s.delete_blob(guid(1))}
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    number, struck = 0, True
    while struck:
        store = await AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE)
        buffer = store.alloc_blob_buf_zeroed()
        struck, _, _ = await struck_at(lambda: changes[name](store, buffer), number, store, JOBS)  # noqa: B023
        assert store._active == 0, f"number {number}, {struck}"
        error = await in_time(store.aclose())
        assert error is None or isinstance(error, BlobStoreError), error
        number += 1
    assert number > 5


def addresses(sink):
    """The memory that the request of ``sink`` has, where the engine says so."""
    keep = sink.keep if isinstance(sink.keep, (list, tuple)) else [sink.keep]
    return {getattr(part, "address", None) for part in keep}


async def test_what_has_ended_is_not_in_flight_when_its_caller_goes_on(store_path, engine):
    """The caller's own request was counted until the reaping that had resumed him was over."""
    store = await filled(store_path, engine)
    with store.alloc_blob_buf_uninit() as buffer:
        for _ in range(5):
            await store.read_blob(guid(1), buffer)
            assert store.stats().in_flight == 0
    await store.aclose()
