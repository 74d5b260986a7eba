"""backup(): what is copied, skipped, deleted and reported, from and into stores of every kind."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from broken_stores import PAGE, Sound, SoundAsync
from uringblob import (
    INCOMPLETE,
    AsyncFileBlobStore,
    AsyncMemoryBlobStore,
    BackupReport,
    BlobCorrupt,
    BlobGuid,
    BlobStoreIOError,
    FileBlobStore,
    MemoryBlobStore,
    PageSizeMismatch,
    StoreClosed,
    StoreLocked,
)
from uringblob.api import backup
from uringblob.api.sync_store import SyncToAsyncAdapter

GUIDS = [BlobGuid.of(str(number)) for number in range(10)]


def filled(store, numbers=range(10)):
    store.write_blobs([(GUIDS[n], bytes([n + 1]) * PAGE) for n in numbers])
    return store


def frames_of(store):
    room, found = bytearray(PAGE), {}
    for guid in store.list_blobs():
        store.read_blob(guid, room)
        found[guid] = bytes(room)
    return found


@pytest.fixture
def two_a_step(monkeypatch):
    monkeypatch.setattr(backup, "_STEP_BYTES", 2 * PAGE)


def memory(_path):
    return MemoryBlobStore(PAGE)


def five_methods(_path):
    return Sound()


def file(path):
    return FileBlobStore.open(path, page_size=PAGE)


KINDS = pytest.mark.parametrize("make", [memory, five_methods, file])


@KINDS
@pytest.mark.parametrize("make_target", [memory, five_methods, file])
def test_a_copy_has_the_same_blobs(make, make_target, store_path, two_a_step):
    with filled(make(store_path)) as store, make_target(store_path + ".copy") as target:
        assert store.backup(target) == BackupReport(copied=10, bytes=10 * PAGE)
        assert frames_of(target) == frames_of(store)
        if make_target is file:
            assert not target.needs_flush()


@KINDS
def test_the_next_one_copies_what_is_new_and_deletes_what_is_gone(make, store_path):
    with filled(make(store_path)) as store, MemoryBlobStore(PAGE) as target:
        store.backup(target)
        store.write_blob(GUIDS[3], b"x" * PAGE)
        store.delete_blob(GUIDS[4])
        store.delete_blob(GUIDS[5])
        assert store.backup(target) == BackupReport(1, 7, 2, PAGE)
        assert frames_of(target) == frames_of(store)
        assert store.backup(target) == BackupReport(0, 8, 0, 0)


@pytest.mark.parametrize("make", [memory, file])
@pytest.mark.parametrize("make_target", [memory, file])
def test_metadata_goes_with_its_blob(make, make_target, store_path):
    with filled(make(store_path)) as store, make_target(store_path + ".copy") as target:
        store.write_blob(GUIDS[0], bytes([1]) * PAGE, b"first")
        assert store.backup(target).copied == 10
        assert target.stat_blob(GUIDS[0]) == store.stat_blob(GUIDS[0])
        store.write_blob(GUIDS[0], bytes([1]) * PAGE, b"second")
        assert store.backup(target) == BackupReport(1, 9, 0, PAGE)
        assert target.stat_blob(GUIDS[0]).meta == b"second"


def test_nothing_is_copied_well():
    assert MemoryBlobStore(PAGE).backup(target := MemoryBlobStore(PAGE)) == BackupReport()
    assert target.list_blobs() == []


async def test_the_asynchronous_ones_do_the_same(store_path, two_a_step):
    source, memory, custom = AsyncMemoryBlobStore(PAGE), AsyncMemoryBlobStore(PAGE), SoundAsync()
    await source.write_blobs([(guid, bytes(PAGE)) for guid in GUIDS])
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE) as store:
        for one, other in [(source, store), (store, memory), (memory, custom), (custom, source)]:
            await one.backup(other)
        assert await source.has_blobs(GUIDS) == [True] * 10
        report = await store.backup(store_path + ".copy")
        assert (report.copied, report.ok) == (10, True)
    with FileBlobStore.open(store_path + ".copy") as copy:
        assert copy.list_blobs().sort() == GUIDS.sort()
        assert copy.verify().ok


async def test_other_tasks_run_meanwhile(store_path, monkeypatch):
    monkeypatch.setattr(backup, "_STEP_BYTES", PAGE)
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE) as store:
        await store.write_blobs([(guid, bytes(PAGE)) for guid in GUIDS])
        seen = []
        running = asyncio.ensure_future(store.backup(store_path + ".copy", lambda done, _: seen.append(done)))
        while not seen:
            await asyncio.sleep(0)
        await store.commit([(BlobGuid.random(), bytes(PAGE))])
        assert not running.done()
        assert (await running).copied == 10


async def test_a_cancelled_one_leaves_its_file_closed_and_goes_on(store_path, two_a_step):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE) as store:
        await store.write_blobs([(guid, bytes(PAGE)) for guid in GUIDS])
        running = asyncio.ensure_future(
            store.backup(store_path + ".copy", lambda done, _: done < 4 or running.cancel())
        )
        with pytest.raises(asyncio.CancelledError):
            await running
        assert store.stats().buffers_leased == 0
        report = await store.backup(store_path + ".copy")
        assert (report.copied, report.skipped) == (6, 4)


# ---- the file --------------------------------------------------------------------------------------


def test_a_file_is_made_and_brought_up_to_date(store_path, engine):
    with filled(FileBlobStore.open(store_path, page_size=PAGE, engine=engine)) as store:
        assert store.backup(store_path + ".copy").copied == 10
        store.delete_blob(GUIDS[0])
        assert store.backup(store_path + ".copy") == BackupReport(0, 9, 1, 0)
        assert store.backup(store_path + ".copy") == BackupReport(0, 9, 0, 0)
        with FileBlobStore.open(store_path + ".copy", read_only=True) as copy:
            assert frames_of(copy) == frames_of(store)
            assert copy.stats().notes == ()


def test_a_snapshot_is_backed_up_as_it_is(store_path):
    with filled(FileBlobStore.open(store_path, page_size=PAGE)) as store, store.snapshot() as snapshot:
        before = frames_of(store)
        store.write_blob(GUIDS[0], b"z" * PAGE)
        for target in (store_path + ".copy", MemoryBlobStore(PAGE)):
            assert snapshot.backup(target).copied == 10
        with FileBlobStore.open(store_path + ".copy") as copy:
            assert frames_of(copy) == before != frames_of(store)


async def test_an_asynchronous_snapshot_too(store_path):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE) as store:
        await store.write_blobs([(guid, bytes(PAGE)) for guid in GUIDS])
        async with await store.snapshot() as snapshot:
            await store.delete_blob(GUIDS[0])
            assert (await snapshot.backup(store_path + ".copy")).copied == 10


def test_what_changes_meanwhile_is_not_in_it(engine, store_path, two_a_step):
    with filled(FileBlobStore.open(store_path, page_size=PAGE, engine=engine)) as store:
        before = frames_of(store)

        def change(done, _total):
            store.commit([(GUIDS[n], bytes([100 + done]) * PAGE) for n in range(9)], [GUIDS[9]])

        assert store.backup(store_path + ".copy", change).copied == 10
        with FileBlobStore.open(store_path + ".copy") as copy:
            assert frames_of(copy) == before
        assert store.backup(store_path + ".copy") == BackupReport(9, 0, 1, 9 * PAGE)
        assert store.stats().slots_held == 0


def test_an_incomplete_one_says_so_and_goes_on(store_path, two_a_step):
    copied = []

    def until_six(done, total):
        copied.append((done, total))
        if done == 6:
            raise KeyboardInterrupt

    with filled(FileBlobStore.open(store_path, page_size=PAGE)) as store:
        with pytest.raises(KeyboardInterrupt):
            store.backup(store_path + ".copy", until_six)
        assert copied == [(2, 10), (4, 10), (6, 10)]
        with FileBlobStore.open(store_path + ".copy") as copy:
            assert "incomplete backup" in str(copy.stats().notes)
            assert INCOMPLETE in copy
        assert store.backup(store_path + ".copy") == BackupReport(4, 6, 0, 4 * PAGE)
    with FileBlobStore.open(store_path + ".copy") as copy:
        assert INCOMPLETE not in copy
        assert copy.stats().notes == ()


def test_an_earlier_backup_stays_until_the_next_is_complete(store_path, two_a_step):
    with filled(FileBlobStore.open(store_path, page_size=PAGE)) as store:
        store.backup(store_path + ".copy")
        before = frames_of(store)
        filled(store, [5, 6, 7])
        store.write_blobs([(guid, b"y" * PAGE) for guid in GUIDS])

        def stop(done, total):
            if done == 8:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            store.backup(store_path + ".copy", stop)
        with FileBlobStore.open(store_path + ".copy") as copy:
            assert frames_of(copy) == before
        store.backup(store_path + ".copy")
        with FileBlobStore.open(store_path + ".copy") as copy:
            assert frames_of(copy) == frames_of(store) != before


def test_a_target_that_is_open_elsewhere_is_locked(store_path, monkeypatch):
    from uringblob.sync import file_store

    def no_wait(*args):
        return {**backup.file_options(*args), "lock_timeout": 0}

    monkeypatch.setattr(file_store, "file_options", no_wait)
    with (
        filled(FileBlobStore.open(store_path, page_size=PAGE)) as store,
        FileBlobStore.open(store_path + ".copy", page_size=PAGE),
        pytest.raises(StoreLocked),
    ):
        store.backup(store_path + ".copy")


def test_wrong_targets_are_named(store_path):
    with filled(FileBlobStore.open(store_path, page_size=PAGE)) as store:
        for target in (store, store_path):
            with pytest.raises(ValueError, match="cannot be backed up into itself"):
                store.backup(target)
        with pytest.raises(PageSizeMismatch):
            store.backup(MemoryBlobStore(2 * PAGE))
        FileBlobStore.open(store_path + ".large", page_size=2 * PAGE).close()
        with pytest.raises(PageSizeMismatch):
            store.backup(store_path + ".large")
        for target in (AsyncMemoryBlobStore(PAGE), 5):
            with pytest.raises(TypeError):
                store.backup(target)
    with pytest.raises(TypeError, match="only a file store also takes a path"):
        MemoryBlobStore(PAGE).backup(store_path)
    with pytest.raises(StoreClosed):
        store.backup(store_path + ".copy")


async def test_wrong_targets_of_an_asynchronous_one_are_named():
    store = AsyncMemoryBlobStore(PAGE)
    with pytest.raises(ValueError, match="itself"):
        await store.backup(store)
    with pytest.raises(TypeError, match="of the same kind"):
        await store.backup(MemoryBlobStore(PAGE))


# ---- what is bad -----------------------------------------------------------------------------------


class Rotten(Sound):
    """``bad`` ones raise; ``silent`` ones are read wrong."""

    bad = silent = ()

    def read_blob(self, guid, dst):
        if guid in self.bad:
            raise BlobCorrupt("rotten", guid)
        super().read_blob(guid, dst)
        if guid in self.silent:
            memoryview(getattr(dst, "view", dst))[:1] = b"?"

    def checksum(self, guid):
        silent, self.silent = self.silent, ()
        try:
            return super().checksum(guid)
        finally:
            self.silent = silent


@pytest.mark.parametrize("how", ["bad", "silent"])
def test_a_bad_blob_is_an_entry_and_the_others_are_copied(how, two_a_step):
    store, target = filled(Rotten()), MemoryBlobStore(PAGE)
    setattr(store, how, [GUIDS[3]])
    report = store.backup(target)
    assert [guid for guid, _ in report.bad] == [GUIDS[3]]
    assert not report.ok
    assert report.copied == 9
    assert str(GUIDS[3]) in str(report)
    assert INCOMPLETE in target, "it is not complete"
    setattr(store, how, ())
    assert store.backup(target) == BackupReport(1, 9, 0, PAGE)
    assert INCOMPLETE not in target


def test_what_the_target_has_of_a_bad_blob_stays():
    store, target = filled(Rotten()), MemoryBlobStore(PAGE)
    store.backup(target)
    before = frames_of(target)
    store.write_blob(GUIDS[3], b"new" + bytes(PAGE - 3))
    store.bad = [GUIDS[3]]
    assert not store.backup(target).ok
    assert frames_of(target)[GUIDS[3]] == before[GUIDS[3]]


def test_a_rotten_frame_of_a_file_is_an_entry(store_path):
    with filled(FileBlobStore.open(store_path, page_size=PAGE)) as store:
        store.flush()
    data = bytearray(Path(store_path).read_bytes())
    at = data.index(bytes([4]) * PAGE)
    data[at + 7] ^= 1
    with open(store_path, "r+b") as damaged:
        damaged.write(data)
    for verify in (True, False):
        with FileBlobStore.open(store_path, verify=verify) as store:
            report = store.backup(f"{store_path}.copy {verify}")
            assert [guid for guid, _ in report.bad] == [GUIDS[3]]
            assert report.copied == 9


def test_an_incomplete_source_makes_no_complete_copy(store_path):
    store, target = filled(MemoryBlobStore(PAGE)), MemoryBlobStore(PAGE)
    store.write_blob(INCOMPLETE, bytes(PAGE))
    report = store.backup(target)
    assert [guid for guid, _ in report.bad] == [INCOMPLETE]
    assert report.copied == 10
    assert INCOMPLETE in target


class Forgetful(Sound):
    """A target that does not keep what is written."""

    def write_blob(self, guid, src):
        super().write_blob(guid, bytes(PAGE))


def test_a_target_that_has_other_bytes_is_found_at_once():
    with pytest.raises(BlobCorrupt, match="has other bytes than were written to it"):
        filled(MemoryBlobStore(PAGE)).backup(Forgetful())


class Full(MemoryBlobStore):
    """Refuses the ``fails_at``-th commit."""

    fails_at = 0

    def commit(self, writes=(), deletes=()):
        self.fails_at -= 1
        if self.fails_at == 0:
            raise BlobStoreIOError(errno.ENOSPC, "full")
        super().commit(writes, deletes)


def test_a_full_target_is_gone_on_with(two_a_step):
    store = filled(MemoryBlobStore(PAGE))
    for fails_at in range(1, 9):
        target = Full(PAGE)
        filled(target, [])
        target.write_blob(BlobGuid.of("beyond"), bytes(PAGE))
        target.fails_at = fails_at
        with pytest.raises(BlobStoreIOError):
            store.backup(target)
        steps = max(0, min(fails_at - 2, 5))
        assert (INCOMPLETE in target) == (fails_at > 1)
        report = store.backup(target)
        assert (report.skipped, report.copied) == (2 * steps, 10 - 2 * steps)
        assert frames_of(target) == frames_of(store)


# ---- progress and pace -----------------------------------------------------------------------------


def test_progress_counts_blobs(two_a_step):
    seen = []
    filled(MemoryBlobStore(PAGE), range(5)).backup(
        MemoryBlobStore(PAGE), progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_a_rate_takes_its_time_in_small_steps(monkeypatch):
    now, slept = [100.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(SyncToAsyncAdapter, "_now", lambda _: now[0])
    monkeypatch.setattr("uringblob.api.sync_store.time.sleep", sleep)
    filled(MemoryBlobStore(PAGE)).backup(MemoryBlobStore(PAGE), rate=4 * PAGE)
    assert slept == [0.25] * 9, "a frame in a quarter of a second, the first at once"
    filled(MemoryBlobStore(PAGE)).backup(MemoryBlobStore(PAGE))
    assert len(slept) == 9


async def test_what_is_there_already_takes_no_time(monkeypatch):
    source, target, slept = AsyncMemoryBlobStore(PAGE), AsyncMemoryBlobStore(PAGE), []
    await source.write_blobs([(guid, bytes(PAGE)) for guid in GUIDS])
    await source.backup(target)

    async def pause(_self, seconds=0):
        slept.append(seconds)

    monkeypatch.setattr(AsyncMemoryBlobStore, "_pause", pause)
    await source.backup(target, rate=1)
    assert not any(slept)


@pytest.mark.parametrize(("rate", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError)])
def test_a_wrong_rate_is_refused(rate, error):
    with pytest.raises(error, match="rate must be"):
        MemoryBlobStore(PAGE).backup(MemoryBlobStore(PAGE), rate=rate)
