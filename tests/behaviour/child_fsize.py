"""A child whose files may only be so large."""

from __future__ import annotations

import asyncio
import random
import resource

from behaviour.work import fill, frame, guid, missing
from sim import space_use
from uringblob import AsyncFileBlobStore, BlobStoreIOError

MIB = 1 << 20


def fill_up_to_the_limit(path, engine, page_size):
    return asyncio.run(_fill(path, engine, page_size))


async def _fill(path, engine, page_size):
    async with AsyncFileBlobStore.open(path, engine=engine, page_size=page_size, buffers=4) as store:
        limit = store.stats().file_bytes + max(MIB, 4 * page_size) + 1000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        committed = 0
        try:
            while True:
                await store.commit([(guid(committed), frame(committed, page_size))])
                committed += 1
        except BlobStoreIOError as error:
            number = error.errno
        wrong = list(await missing(store, range(committed)))
        poisoned = store.stats().poisoned
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await fill(store, range(committed, committed + 8))
    async with AsyncFileBlobStore.open(path, engine=engine, buffers=4) as store:
        return {
            "errno": number,
            "committed": committed,
            "wrong": wrong,
            "poisoned": poisoned,
            "wrong after": list(await missing(store, range(committed + 8))),
        }


def empty_and_refill(path, engine, page_size, frames, seed):
    """Fill a file that may hold so many frames, empty it to a degree, fill it again, delete everything."""
    return asyncio.run(_empty_and_refill(path, engine, page_size, frames, random.Random(seed), seed))


async def _empty_and_refill(path, engine, page_size, frames, dice, seed):
    names, deleted = space_use.Names(0), dice.choice((0.3, 0.5, 0.95, 1.0))
    order = space_use.ORDERS[seed % len(space_use.ORDERS)]
    async with AsyncFileBlobStore.open(path, engine=engine, page_size=page_size, buffers=4) as store:
        limit = store.stats().file_bytes + frames * page_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        await space_use.fill_up(store, names)
        replaced = await space_use.refill(store, names, dice, deleted=deleted, order=order)
    async with AsyncFileBlobStore.open(path, engine=engine, buffers=4) as store:
        doomed = await space_use.delete_all(store, names, dice, a_commit=dice.choice((1, 100, 100_000)))
        assert (await store.verify()).ok
    return {"frames of a full disk replaced": replaced, "deletes on a full disk": doomed, "full disks": 1}
