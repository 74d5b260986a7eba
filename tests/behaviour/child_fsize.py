"""A child whose files may only be so large."""

from __future__ import annotations

import asyncio
import resource

from behaviour.work import fill, frame, guid, missing
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
