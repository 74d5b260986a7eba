"""A child that is a user to whom most is forbidden."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from pathlib import Path

from behaviour.child_limits import become
from behaviour.work import fill, missing
from uringblob import AsyncFileBlobStore


def try_them(engine, user):
    """Return what the user got for each attempt."""
    with tempfile.TemporaryDirectory(prefix="uringblob-", dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        for store in ("visible", "hidden"):
            asyncio.run(_make(directory / store, engine))
        (directory / "visible").chmod(0o644)
        before = _digest(directory / "visible")
        # The directory is root's: somebody must still be able to remove it.
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            become(user, 1 << 20)
            answers = asyncio.run(_try_them(directory, engine))
            os.write(writer, repr(answers).encode())
            os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        with open(reader, "rb") as file:
            answers = eval(file.read())
        return {**answers, "untouched": _digest(directory / "visible") == before}


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns


async def _make(path, engine):
    async with AsyncFileBlobStore.open(path, engine=engine, page_size=4096) as store:
        await fill(store, range(3))


async def _try_them(directory, engine):
    answers = {
        "make a store": await _error(directory / "new", engine),
        "left behind": [name for name in os.listdir(directory) if name not in ("visible", "hidden")],
        "open it writable": await _error(directory / "visible", engine),
        "open a hidden one": await _error(directory / "hidden", engine, read_only=True),
    }
    async with AsyncFileBlobStore.open(directory / "visible", engine=engine, read_only=True) as store:
        seen = [len(await store.list_blobs()), len(await missing(store, range(3))), store.stats().read_only]
    return {**answers, "open it read-only": seen}


async def _error(path, engine, **options):
    try:
        async with AsyncFileBlobStore.open(path, engine=engine, **options):
            return "opened"
    except Exception as error:
        return type(error).__name__
