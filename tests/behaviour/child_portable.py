"""A child on the barest of POSIX systems."""

from __future__ import annotations

import asyncio
import itertools
import os

from behaviour import bare_system


def pass_the_suite(directory, page_size):
    """Pass the conformance suite with both file stores; return what the store says of itself."""
    bare_system.strip()
    from uringblob import AsyncFileBlobStore, FileBlobStore
    from uringblob.testing import check_async_blob_store, check_blob_store

    numbers = itertools.count()
    paths = {}

    def opener(store_class):
        def make():
            paths[store_class] = os.path.join(directory, f"store-{next(numbers)}")
            return store_class.open(paths[store_class], page_size=page_size)

        return make, lambda: store_class.open(paths[store_class], page_size=page_size)

    make, reopen = opener(FileBlobStore)
    reports = [check_blob_store(make, reopen=reopen)]
    make, reopen = opener(AsyncFileBlobStore)
    reports.append(asyncio.run(check_async_blob_store(make, reopen=reopen)))
    return [[len(report.passed), [str(check) for check, _ in report.not_asked]] for report in reports]


def look_around(directory):
    """Return what the store says of itself, and what an engine asked for by name says."""
    bare_system.strip()
    return asyncio.run(_look_around(directory))


async def _look_around(directory):
    from behaviour.work import exercise_and_reopen
    from uringblob import AsyncFileBlobStore, EngineUnavailable

    stats = await exercise_and_reopen(os.path.join(directory, "store"), page_size=4096)
    refused = {}
    for options in ({"engine": "io_uring"}, {"direct": True}):
        try:
            await AsyncFileBlobStore.open(os.path.join(directory, "store"), **options)
        except EngineUnavailable as error:
            refused[error.stage] = str(error)
    return {
        "engine": stats.engine,
        "reason": stats.engine_reason,
        "direct": stats.direct_io,
        "huge": stats.buffers_huge,
        "refused": refused,
        "left behind": os.listdir(directory),
    }
