"""Children that open the same path as others do."""

from __future__ import annotations

import asyncio

from behaviour.children import listen, tell
from behaviour.work import frame, guid
from uringblob import AsyncFileBlobStore, StoreLocked


def create_again_and_again(number, engine):
    """For each path that the parent says: open or make the store there, and commit blob ``number``."""
    tell("ready")
    asyncio.run(_create(number, engine))


async def _create(number, engine):
    while path := listen():
        async with AsyncFileBlobStore.open(path, engine=engine, page_size=4096, buffers=2) as store:
            await store.commit([(guid(number), frame(number, 4096))])
        tell("done")


def hold(path, engine, read_only):
    """Keep the store open until told otherwise."""
    asyncio.run(_hold(path, engine, read_only))


async def _hold(path, engine, read_only):
    async with AsyncFileBlobStore.open(path, engine=engine, read_only=read_only, page_size=4096):
        tell("open")
        listen()


def try_to_open(path, engine, timeout, read_only):
    """Return whether the store could be opened."""
    return asyncio.run(_try(path, engine, timeout, read_only))


async def _try(path, engine, timeout, read_only):
    options = {"engine": engine, "lock_timeout": timeout, "read_only": read_only}
    try:
        async with AsyncFileBlobStore.open(path, **options):
            return "open"
    except StoreLocked as error:
        return str(error)


def write_until_killed(path, engine):
    """Commit one version after the other, telling each when it is durable, others in flight."""
    asyncio.run(_write(path, engine))


async def _write(path, engine):
    store = await AsyncFileBlobStore.open(path, engine=engine, page_size=65536)
    version = 0

    async def committer(first):
        nonlocal version
        while True:
            version += 1
            mine = version
            numbers = range(first, first + 4)
            await store.commit([(guid(n), frame(n, 65536, mine)) for n in numbers])
            tell([first, mine])

    await asyncio.gather(*(committer(first) for first in range(0, 24, 4)))
