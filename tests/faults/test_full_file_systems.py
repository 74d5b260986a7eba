"""Row 7 on real file systems: full at each 4 KiB step around the edge.

A store is made on a small file system, which is then filled but for so many pages.  Whatever is
refused is ENOSPC and known not to be applied; nothing committed is lost; a deletion goes through
and makes room; the store reopens.
"""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from behaviour.mounts import MIB, ext4, tmpfs
from behaviour.work import frame, guid, missing
from uringblob import AsyncFileBlobStore, BlobStoreIOError

pytestmark = [pytest.mark.one_interpreter, pytest.mark.usefixtures("needs_root")]

PAGE = 4096
LEVELS = 64
KEPT = 4


def take_all_but(directory, pages: int):
    """Take the room of the file system, but for ``pages`` pages; returns the file that has it."""
    ballast = directory / "ballast"
    descriptor = os.open(ballast, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        size = 0
        for step in (MIB, 16 * PAGE, PAGE):
            while True:
                try:
                    os.posix_fallocate(descriptor, size, step)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break
                size += step
        os.ftruncate(descriptor, size - pages * PAGE)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return ballast


async def _at_level(directory, engine, level) -> int:
    """Fill, be refused, delete, go on; returns how many commits went through."""
    path = directory / f"store-{level}"
    options = {"engine": engine, "page_size": PAGE, "buffers": 4}
    async with AsyncFileBlobStore.open(path, **options) as store:
        await store.commit([(guid(n), frame(n, PAGE)) for n in range(KEPT)])
        ballast = take_all_but(directory, level)
        number = KEPT
        with pytest.raises(BlobStoreIOError) as refused:
            while True:
                await store.commit([(guid(number), frame(number, PAGE))])
                number += 1
        assert refused.value.errno == errno.ENOSPC
        assert refused.value.applied is False
        assert not store.stats().poisoned
        assert not await missing(store, range(number))
        assert not await store.has_blob(guid(number))
        await store.commit(deletes=[guid(0), guid(1)])
        await store.commit([(guid(number), frame(number, PAGE))])
        ballast.unlink()
    async with AsyncFileBlobStore.open(path, **options) as store:
        assert not await missing(store, range(2, number + 1))
        assert not await store.has_blob(guid(0))
        assert (await store.verify()).ok
    path.unlink()
    return number - KEPT


@pytest.mark.parametrize("place", [tmpfs, ext4], ids=["tmpfs", "ext4"])
@pytest.mark.slow
def test_at_each_page_around_the_edge(disk_dir, needs_uring, place, count_row):
    """The engines take turns: where the edge lies is the file system's affair, not theirs."""
    engines = ("io_uring", "pread")
    with place(disk_dir / "small", 12 * MIB) as directory:
        went_through = [
            asyncio.run(_at_level(directory, engines[level % 2], level)) for level in range(LEVELS)
        ]
    # The levels reach from "not one more" to "some more": the edge lies among them.
    assert len(set(went_through)) > 3, went_through
    count_row(7, **{"levels on real file systems": LEVELS})


@pytest.mark.parametrize("engine", ["io_uring", "pread"])
async def test_the_room_of_holes_is_gone_and_comes_back(disk_dir, needs_uring, engine):
    """What a vacuum gave back another file has taken: one commit is refused, deletions free, the store goes on."""
    with ext4(disk_dir / "small", 16 * MIB) as directory:
        path = directory / "store"
        options = {"engine": engine, "page_size": PAGE, "buffers": 4}
        async with AsyncFileBlobStore.open(path, **options) as store:
            for first in range(0, 600, 60):
                await store.commit([(guid(n), frame(n, PAGE)) for n in range(first, first + 60)])
            async with await store.snapshot():
                # It shows the last one, so the file cannot be cut.
                await store.commit(deletes=[guid(n) for n in range(10, 599)])
            async with await store.snapshot():
                await store.vacuum()
            length, holes = os.path.getsize(path), store.stats().slots_holes
            assert holes > 400
        ballast = take_all_but(directory, 0)
        async with AsyncFileBlobStore.open(path, **options) as store:
            assert store.stats().slots_holes == holes, "an opener takes them for allocated"
            number = 600
            with pytest.raises(BlobStoreIOError, match="allocating") as refused:
                while True:
                    await store.commit([(guid(number), frame(number, PAGE))])
                    number += 1
            assert (refused.value.errno, refused.value.applied) == (errno.ENOSPC, False)
            assert number < 700
            assert not store.stats().poisoned
            await store.commit(deletes=[guid(0), guid(1), guid(2)])
            await store.commit([(guid(number), frame(number, PAGE))])
            ballast.unlink()
            await store.commit([(guid(n), frame(n, PAGE)) for n in range(700, 1000)])
            assert os.path.getsize(path) == length, "the file grows before its holes are filled"
            kept = {*range(3, 10), 599, *range(600, number + 1), *range(700, 1000)}
            assert not await missing(store, sorted(kept))
            assert store.stats().blobs == len(kept)
            assert (await store.verify()).ok
