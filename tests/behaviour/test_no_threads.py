"""Where no thread is to be had: an asynchronous store opens, works and closes; a synchronous one says why not."""

from __future__ import annotations

import _thread
import asyncio
import os
import threading

import pytest

from behaviour.work import frame, guid
from uringblob import AsyncFileBlobStore, BlobStoreError, FileBlobStore

PAGE = 4096


@pytest.fixture
def no_threads(monkeypatch):
    """From the call on, none can be started."""

    def refuse(*_args, **_options):
        raise RuntimeError("can't start new thread")

    def begin():
        monkeypatch.setattr(_thread, "start_new_thread", refuse)
        monkeypatch.setattr(threading.Thread, "start", refuse)

    return begin


async def test_an_asynchronous_store_needs_none(store_path, engine, no_threads):
    no_threads()
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE) as store:
        await store.commit([(guid(1), frame(1, PAGE))])
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert await store.has_blob(guid(1))
        assert store.stats().engine == engine


def test_a_synchronous_store_says_what_limits_it(store_path, engine, no_threads):
    no_threads()
    with pytest.raises(BlobStoreError) as refused:
        FileBlobStore.open(store_path, engine=engine)
    for word in (store_path, "thread", "RLIMIT_NPROC", "ulimit -u", "AsyncFileBlobStore"):
        assert word in str(refused.value)


def test_closing_needs_none(store_path, engine, no_threads, monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda what: seen.append(what.exc_value))
    store = FileBlobStore.open(store_path, engine=engine, page_size=PAGE)
    store.commit([(guid(1), frame(1, PAGE))])
    no_threads()
    store.close()
    assert not seen


async def test_an_io_uring_store_whose_limit_comes_later_works_on(store_path, needs_uring):
    """The kernel keeps the thread that the trials made."""
    async with AsyncFileBlobStore.open(store_path, engine="io_uring", page_size=PAGE) as store:
        workers = await asyncio.to_thread(kernel_threads)
        assert workers
        await store.commit([(guid(1), frame(1, PAGE))])


def kernel_threads():
    """Return the names of the threads that the kernel has made for this process's rings."""
    names = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/comm") as comm:
                names.append(comm.read().strip())
        except OSError:
            continue  # it has ended
    return [name for name in names if name.startswith("iou-wrk")]
