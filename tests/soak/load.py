"""Mixed load for a long time: what of it must stay flat is measured from outside the store."""

from __future__ import annotations

import asyncio
import collections
import gc
import os
import random
import threading
from typing import NamedTuple

from behaviour.work import frame, guid
from uringblob import AsyncFileBlobStore, BlobNotFound, FileBlobStore

PAGE = 4096
GUIDS = 40

#: Each open store has one of each; a leak of them is one for each of a hundred openings.
ONE_A_STORE = frozenset(
    """
    AsyncFileBlobStore FileBlobStore StoreHandle LoopThread Core FileIO BlobIndex SlotTable BufferPool Slab
    Ring UringEngine PreadEngine SimEngine SimDisk SimLoop StoreFile
    """.split()
)
#: The errors raised last may be held by whoever captured the log, and with them their stores.
KEPT_BY_ERRORS = 4
#: And with the stores their requests, writes, frames; a leak of one a call is thousands.
KEPT_OF_OTHERS = 500


class Footprint(NamedTuple):
    """What a process holds: resident memory, descriptors, threads, and live objects of the library."""

    rss_bytes: int
    descriptors: int
    threads: int
    objects: collections.Counter

    @classmethod
    def now(cls) -> Footprint:
        gc.collect()
        objects = collections.Counter(
            type(thing).__qualname__
            for thing in gc.get_objects()
            if str(type(thing).__module__).startswith("uringblob")
        )
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return cls(resident, len(os.listdir("/proc/self/fd")), threading.active_count(), objects)

    def assert_flat(self, later: Footprint, *, rss_bytes: int) -> None:
        """``later`` holds no more than this, but for ``rss_bytes`` of the allocator's own."""
        assert later.descriptors <= self.descriptors, (
            f"descriptors: {self.descriptors} -> {later.descriptors}"
        )
        assert later.threads <= self.threads, f"threads: {self.threads} -> {later.threads}"
        more = {
            name: n
            for name, n in (later.objects - self.objects).items()
            if n > (KEPT_BY_ERRORS if name in ONE_A_STORE else KEPT_OF_OTHERS)
        }
        assert not more, f"more of the library's objects live: {more}"
        grown = later.rss_bytes - self.rss_bytes
        assert grown <= rss_bytes, f"resident memory grew by {grown} bytes"


async def one_opening(path, engine, dice: random.Random) -> int:
    """Open, work from several tasks, cancel some, close; returns how many calls were made."""
    calls = 0
    async with AsyncFileBlobStore.open(path, page_size=PAGE, engine=engine, buffers=16) as store:

        async def work() -> None:
            nonlocal calls
            for _ in range(dice.randrange(5, 40)):
                calls += 1
                await _one_call(store, dice)

        tasks = [asyncio.ensure_future(work()) for _ in range(dice.randrange(1, 9))]
        await asyncio.sleep(0)
        for task in tasks:
            if dice.random() < 0.2:
                task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        if dice.random() < 0.1:
            assert (await store.verify()).ok
    return calls


async def _one_call(store, dice: random.Random) -> None:
    name = guid(dice.randrange(GUIDS))
    kind = dice.choices(("read", "put", "commit", "batch", "delete", "flush"), (40, 15, 20, 8, 12, 5))[0]
    if kind == "read":
        with store.alloc_blob_buf_uninit() as room:
            try:
                await store.read_blob(name, room)
            except BlobNotFound:
                return
    elif kind == "put":
        await store.write_blob(name, frame(dice.randrange(1000), PAGE))
    elif kind == "commit":
        await store.commit([(name, frame(dice.randrange(1000), PAGE))])
    elif kind == "batch":
        names = [guid(n) for n in dice.sample(range(GUIDS), 4)]
        await store.write_blobs_with_data_sync([(n, frame(1, PAGE)) for n in names])
    elif kind == "delete":
        await store.delete_blob(name)
    else:
        await store.flush()


def one_sync_opening(path, engine, dice: random.Random) -> int:
    """Open the synchronous face, use it from threads, close."""
    with FileBlobStore.open(path, engine=engine, buffers=16) as store:

        def work() -> None:
            for n in range(10):
                store.commit([(guid(n), frame(n, PAGE))])
                store.read_blob(guid(n), bytearray(PAGE))

        threads = [threading.Thread(target=work) for _ in range(dice.randrange(1, 4))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return 20 * len(threads)


def openings(path, engine, seed: int):
    """Open, work and close for ever; yields the calls of each opening."""
    dice = random.Random(seed)
    while True:
        yield asyncio.run(one_opening(path, engine, dice))
        yield one_sync_opening(path, engine, dice)
