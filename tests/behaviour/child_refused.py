"""A child in which io_uring is refused somewhere."""

from __future__ import annotations

import asyncio
import logging

from behaviour import seccomp
from behaviour.work import exercise_and_reopen
from uringblob import AsyncFileBlobStore, EngineUnavailable


def open_both_ways(path, place, errno):
    """Return what ``"auto"`` does, what it logged, and what ``"io_uring"`` raises or does."""
    seccomp.refuse(place, errno)
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append([record.levelname, record.getMessage()])
    logging.getLogger("uringblob").addHandler(handler)
    return asyncio.run(_open_both_ways(path, records))


async def _open_both_ways(path, records):
    stats = await exercise_and_reopen(path, page_size=4096)
    auto = {
        "engine": stats.engine,
        "reason": stats.engine_reason,
        "registered": stats.buffers_registered,
        "buffers_reason": stats.buffers_reason,
        "log": list(records),
    }
    try:
        async with AsyncFileBlobStore.open(path, engine="io_uring") as store:
            named = {"engine": store.stats().engine, "buffers_reason": store.stats().buffers_reason}
    except EngineUnavailable as error:
        named = {"message": str(error), "errno": error.errno, "stage": error.stage}
    return {"auto": auto, "named": named}
