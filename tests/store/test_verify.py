"""``verify`` finds damage that came after the opening, and goes on behind it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading

import pytest

from uringblob import (
    AsyncFileBlobStore,
    AsyncMemoryBlobStore,
    BlobCorrupt,
    BlobGuid,
    BlobStoreIOError,
    FileBlobStore,
    StoreClosed,
    StoreCorrupt,
)
from uringblob.api import scrub
from uringblob.completion import Completion
from uringblob.store.format import BLOCK_SIZE, SUPERBLOCK_OFFSETS

PAGE = 4096


@pytest.fixture
async def store(store_path, engine):
    store = await AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine, direct=False)
    for n in range(4):
        await store.commit([(bytes([n]) * 16, bytes([n]) * PAGE)])
    yield store
    with contextlib.suppress(StoreCorrupt):  # closing notices a damaged log as well
        await store.aclose()


def damage(store, offset):
    """Change a byte of the file behind the store's back."""
    fd = os.open(store.path, os.O_RDWR)
    try:
        byte = os.pread(fd, 1, offset)
        os.pwrite(fd, bytes([byte[0] ^ 1]), offset)
    finally:
        os.close(fd)


def lose_sectors(store, monkeypatch, *offsets, number=errno.EIO):
    """From now on the device cannot read the sectors at ``offsets``."""
    engine = store._core.file_io.engine
    real = engine.read

    def read(offset, frames):
        if not any(offset <= lost < offset + sum(f.size for f in frames) for lost in offsets):
            return real(offset, frames)
        answer = Completion(loop=store._loop)
        answer.resolve(-number)
        return answer

    monkeypatch.setattr(engine, "read", read)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENODATA], ids=errno.errorcode.get)
@pytest.mark.parametrize("offsets", [(0,), (BLOCK_SIZE + 512,), SUPERBLOCK_OFFSETS], ids=str)
async def test_a_superblock_that_cannot_be_read_is_an_entry(store, monkeypatch, offsets, number):
    """The report was lost with it, and all that it had found until then."""
    entry = store._core.index.find(bytes([2]) * 16)
    damage(store, (entry >> 64) * PAGE)
    lose_sectors(store, monkeypatch, *offsets, number=number)
    report = await store.verify()
    assert not report.ok
    assert [(type(e), e.errno) for e in report.metadata_errors] == [(BlobStoreIOError, number)] * len(offsets)
    assert all(store.path in str(error) for error in report.metadata_errors)
    assert [guid for guid, _ in report.bad] == [BlobGuid(bytes([2]) * 16)]


async def test_a_log_sector_that_cannot_be_read_is_an_entry(store, monkeypatch):
    head = store._core.log.segments[0].slot * PAGE
    lose_sectors(store, monkeypatch, head + 4 * BLOCK_SIZE + 1024)
    report = await store.verify()
    (error,) = report.metadata_errors
    assert error.errno == errno.EIO
    assert error.offset == head + 4 * BLOCK_SIZE
    assert (report.bad, report.blobs_checked) == ((), 4)


async def test_a_frames_sector_that_cannot_be_read_is_its_blobs(store, monkeypatch):
    """Also where the frame lies so near to the log that the reading ahead meets it."""
    offset = (store._core.index.find(bytes([2]) * 16) >> 64) * PAGE
    lose_sectors(store, monkeypatch, offset + 512)
    report = await store.verify()
    ((guid, error),) = report.bad
    assert (guid, error.errno, error.guid) == (BlobGuid(bytes([2]) * 16), errno.EIO, guid)
    assert report.metadata_errors == ()
    assert report.blobs_checked == 4


async def test_everything_unreadable_is_a_report_too(store, monkeypatch):
    """A file system that has died: even its status cannot be had."""
    lose_sectors(store, monkeypatch, *range(0, store.stats().file_bytes, 512))

    def file_size():
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(store._core.file_io.engine, "file_size", file_size)
    report = await store.verify()
    assert len(report.bad) == 4
    assert len(report.metadata_errors) == 3
    assert all(store.path in str(error) for error in report.metadata_errors)


async def test_another_stores_superblock_is_an_entry(store, disk_dir):
    other = str(disk_dir / "other")
    await (await AsyncFileBlobStore.open(other, page_size=PAGE)).aclose()
    with open(other, "rb") as file:
        header = file.read(2 * BLOCK_SIZE)
    fd = os.open(store.path, os.O_RDWR)
    mine = os.pread(fd, 2 * BLOCK_SIZE, 0)
    os.pwrite(fd, header, 0)
    report = await store.verify()
    os.pwrite(fd, mine, 0)
    os.close(fd)
    assert ["another store's" in str(error) for error in report.metadata_errors] == [True, True]


#: Block of the log's first segment, and what is said of it.
PLACES = {
    "the header": (0, "group 0"),
    "the snapshot": (1, "damaged"),
    "the carry": (2, "damaged"),
    "a group in the middle": (4, "group 3"),
    "the last group": (6, "group 5"),
}


@pytest.mark.parametrize(("block", "words"), PLACES.values(), ids=PLACES)
async def test_a_damaged_log_is_metadata(store, block, words):
    head = store._core.log.segments[0].slot * PAGE
    damage(store, head + block * BLOCK_SIZE + 40)
    report = await store.verify()
    assert not report.ok
    assert report.bad == ()
    (error,) = report.metadata_errors
    assert isinstance(error, StoreCorrupt)
    assert words in str(error)
    assert store.path in str(error)
    assert "metadata" in str(report)


@pytest.mark.parametrize("offset", [0, BLOCK_SIZE])
async def test_a_damaged_superblock_is_metadata(store, offset):
    damage(store, offset + 20)
    report = await store.verify()
    (error,) = report.metadata_errors
    assert f"offset {offset}" in str(error)


async def test_a_damaged_frame_is_its_blobs(store):
    entry = store._core.index.find(bytes([2]) * 16)
    damage(store, (entry >> 64) * PAGE + 1000)
    report = await store.verify()
    ((guid, error),) = report.bad
    assert guid == BlobGuid(bytes([2]) * 16)
    assert isinstance(error, BlobCorrupt)
    assert report.blobs_checked == 4
    assert report.bytes_checked == 3 * PAGE


async def test_a_blob_deleted_meanwhile_is_neither_good_nor_bad(store):
    """It was there when ``verify`` began; its bytes are not counted."""
    names = [n.to_bytes(16, "big") for n in range(1, 400)]
    await store.commit([(name, b"x" * PAGE) for name in names])

    def progress(done, total):
        if done == 1:
            for name in names:
                with pytest.raises(StopIteration):  # it waits for nothing
                    store.delete_blob(name).send(None)

    report = await store.verify(progress)
    assert report.ok
    assert 4 <= report.blobs_checked < 20, "what was being read at that moment counts"
    assert report.bytes_checked == report.blobs_checked * PAGE


# --- at a given pace, and in parts --------------------------------------------------------------


class Clock:
    """The time of a store's scrub, which passes only in its pauses."""

    def __init__(self, store):
        self.now = 1000.0
        self.paused = []
        store._now, store._pause = lambda: self.now, self.pause

    async def pause(self, seconds=0):
        self.now += seconds
        if seconds:
            self.paused.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def ten(store):
    """A store of ten blobs, and their names in order."""
    names = [bytes([n]) * 16 for n in range(10)]
    await store.commit([(name, name[:1] * PAGE) for name in names[4:]])
    return store, [BlobGuid(name) for name in names]


async def test_a_rate_is_kept_and_the_first_frame_does_not_wait(ten):
    store, names = ten
    clock = Clock(store)
    report = await store.verify(rate=10 * PAGE)
    assert (report.ok, report.blobs_checked, report.resume) == (True, 10, None)
    assert clock.paused == pytest.approx([0.1] * 9)


async def test_a_long_pause_is_made_of_short_ones(ten):
    store, _ = ten
    clock = Clock(store)
    await store.verify(rate=PAGE / 2.5)
    assert clock.paused == pytest.approx([1, 1, 0.5] * 9)


async def test_a_deadline_leaves_the_rest_to_the_next_call(ten):
    store, names = ten
    damage(store, (store._core.index.find(names[2]) >> 64) * PAGE)
    damage(store, (store._core.index.find(names[7]) >> 64) * PAGE)
    damage(store, 20)
    Clock(store)
    progressed = []
    first = await store.verify(lambda *at: progressed.append(at), rate=10 * PAGE, deadline=0.45)
    assert (first.blobs_checked, first.resume) == (5, names[4])
    assert [guid for guid, _ in first.bad] == [names[2]]
    assert first.metadata_errors == (), "the metadata are checked behind the last blob"
    assert f"resume with since={names[4]}" in str(first)
    assert progressed == [(n, 10) for n in range(1, 6)]
    rest = await store.verify(since=first.resume)
    assert (rest.blobs_checked, rest.resume) == (5, None)
    assert [guid for guid, _ in rest.bad] == [names[7]]
    assert len(rest.metadata_errors) == 1


async def test_a_blob_that_is_gone_is_a_place_to_resume_at(ten):
    store, names = ten
    Clock(store)
    first = await store.verify(rate=10 * PAGE, deadline=0)
    await store.commit(deletes=[first.resume])
    assert (await store.verify(since=first.resume)).blobs_checked == 9
    assert (await store.verify(since=names[-1])).blobs_checked == 0


async def test_closing_does_not_wait_for_a_slow_scrub(ten, monkeypatch):
    store, _ = ten
    monkeypatch.setattr(scrub, "PAUSE_S_MAX", 0.001)
    progressed = asyncio.Event()
    scrubbing = asyncio.ensure_future(store.verify(lambda *_: progressed.set(), rate=1))
    await progressed.wait()
    await store.aclose()
    with pytest.raises(StoreClosed):
        await scrubbing


async def test_a_cancelled_scrub_does_not_wait_for_the_end_of_its_pause(ten):
    store, _ = ten
    progressed = asyncio.Event()
    scrubbing = asyncio.ensure_future(store.verify(lambda *_: progressed.set(), rate=1))
    await progressed.wait()
    scrubbing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scrubbing


async def test_other_tasks_run_beside_a_scrub(store):
    names = [n.to_bytes(16, "big") for n in range(1, 400)]
    await store.commit([(name, b"x" * PAGE) for name in names])
    scrubbing, rounds = asyncio.ensure_future(store.verify()), 0
    while not scrubbing.done():
        await asyncio.sleep(0)
        rounds += 1
    assert scrubbing.result().ok
    assert rounds > 403 // 64


def test_a_sync_stores_scrub_ends_when_another_thread_closes_it(store_path):
    store = FileBlobStore.open(store_path, page_size=PAGE)
    store.commit([(bytes([n]) * 16, bytes(PAGE)) for n in range(3)])
    progressed, ends = threading.Event(), []

    def scrub_slowly():
        try:
            store.verify(lambda *_: progressed.set(), rate=1)
        except StoreClosed as error:
            ends.append(error)

    thread = threading.Thread(target=scrub_slowly)
    thread.start()
    assert progressed.wait(60)
    store.close()
    thread.join(60)
    assert len(ends) == 1


async def test_a_memory_stores_scrub_lets_other_tasks_run():
    store = AsyncMemoryBlobStore(PAGE)
    await store.commit([(bytes([n]) * 16, bytes(PAGE)) for n in range(50)])
    scrubbing, rounds = asyncio.ensure_future(store.verify()), 0
    while not scrubbing.done():
        await asyncio.sleep(0)
        rounds += 1
    assert (scrubbing.result().blobs_checked, rounds > 50) == (50, True)
