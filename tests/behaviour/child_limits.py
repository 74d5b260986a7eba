"""A child that is an ordinary user with little locked memory."""

from __future__ import annotations

import asyncio
import os
import resource
import tempfile

from behaviour.children import listen, tell
from behaviour.work import exercise_and_reopen
from uringblob import PAGE_SIZE, AsyncFileBlobStore, EngineUnavailable


def become(user, memlock):
    """Give up root and all but ``memlock`` bytes of locked memory."""
    _import_everything()
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (memlock, memlock))
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def _import_everything():
    """Python itself may be out of another user's reach, and much is imported when first used."""
    with tempfile.TemporaryDirectory() as directory:
        for engine in ("io_uring", "pread"):
            path = os.path.join(directory, engine)
            asyncio.run(exercise_and_reopen(path, engine=engine, page_size=4096, buffers=4))


def use_a_store(path, user, memlock, engine):
    become(user, memlock)
    try:
        stats = asyncio.run(exercise_and_reopen(path, engine=engine))
    except EngineUnavailable as error:
        return ["unavailable", str(error), 0, ""]
    return [stats.engine, stats.engine_reason, stats.buffers_registered, stats.buffers_reason]


def use_a_store_with_few_threads(path, user, threads, engine):
    resource.setrlimit(resource.RLIMIT_NPROC, (threads, threads))
    return use_a_store(path, user, 8 << 20, engine)


def hold_a_store(path, user, memlock):
    """Tell how many frames registered, keep them until told to go on, and work with the store."""
    become(user, memlock)
    asyncio.run(_hold(path))


async def _hold(path):
    async with AsyncFileBlobStore.open(path, engine="io_uring") as store:
        stats = store.stats()
        tell([stats.buffers_registered, stats.buffers_reason])
        listen()
        with store.alloc_blob_buf_zeroed() as buffer:
            await store.commit([(bytes(16), buffer)])
            await store.read_blob(bytes(16), buffer)
            assert buffer.view == bytes(PAGE_SIZE)
