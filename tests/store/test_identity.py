"""An open store whose file is deleted, replaced, cut or overwritten says so, and commits nothing into the void."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil

import pytest

from uringblob import AsyncFileBlobStore, BlobStoreIOError, FileBlobStore, StoreCorrupt, StorePoisoned
from uringblob.store import identity
from uringblob.store.format import BLOCK_SIZE

PAGE = 4096


def guid(n):
    return bytes([n]) * 16


def frame(n):
    return bytes([n]) * PAGE


async def opened(path, engine, **options):
    store = await AsyncFileBlobStore.open(path, page_size=PAGE, engine=engine, buffers=4, **options)
    for n in range(3):
        await store.commit([(guid(n), frame(n))])
    return store


@pytest.fixture
async def store(store_path, engine):
    """Open, with three blobs; closed by the test where closing has something to say."""
    store = await opened(store_path, engine)
    yield store
    await store.aclose(flush=False)


@pytest.fixture
async def other(disk_dir):
    """Another store's file, as long as the first one's."""
    path = str(disk_dir / "other")
    async with AsyncFileBlobStore.open(path, page_size=PAGE) as store:
        for n in range(3):
            await store.commit([(guid(90 + n), frame(90 + n))])
    return path


async def overwrite(store, source):
    """What ``cp`` does, without its truncation: the file stays the same one.

    A direct write that meets dirty pages can be an EIO of the next sync: the store prepares no
    log segment meanwhile, and what is copied is flushed.
    """
    await store._core.log.wait_quiet()
    with open(source, "rb") as new, open(store.path, "r+b") as file:
        shutil.copyfileobj(new, file)
        file.flush()
        os.fsync(file.fileno())


async def reads(store, *numbers):
    room = bytearray(PAGE)
    for n in numbers:
        await store.read_blob(guid(n), room)
        assert room == frame(n)
    return True


# ---- the name -----------------------------------------------------------------------------------


async def refused(store, words):
    with pytest.raises(BlobStoreIOError, match=words) as raised:
        await store.commit([(guid(9), frame(9))])
    assert (raised.value.errno, raised.value.applied) == (errno.ESTALE, False)
    assert store.path in str(raised.value)
    assert not await store.has_blob(guid(9))
    assert any(words in note for note in store.stats().notes)
    assert await reads(store, 0, 1, 2)
    assert not store.stats().poisoned, "the name may come back"


async def test_a_deleted_file_takes_no_commit(store):
    os.unlink(store.path)
    await refused(store, "its last name was deleted")


async def test_a_replaced_file_takes_no_commit_and_the_new_one_is_left_alone(store, other):
    with open(other, "rb") as file:
        theirs = file.read()
    os.replace(other, store.path)
    await refused(store, "its path names another file now")
    await store.aclose()
    with open(store.path, "rb") as file:
        assert file.read() == theirs


async def test_a_file_moved_aside_for_another_takes_no_commit_until_it_is_back(store, other):
    aside = f"{store.path}.aside"
    os.rename(store.path, aside)
    shutil.copy(other, store.path)
    await refused(store, "its path names another file now")
    os.replace(aside, store.path)
    await store.commit([(guid(9), frame(9))])
    assert store.stats().notes == ()


async def test_a_hard_link_elsewhere_does_not_hide_that_the_path_is_anothers(store, other):
    os.link(store.path, f"{store.path}.backup")
    os.replace(other, store.path)
    await refused(store, "its path names another file now")


async def test_a_moved_file_goes_on_and_says_where_it_is_not(store):
    aside = f"{store.path}.aside"
    os.rename(store.path, aside)
    await store.commit([(guid(9), frame(9))])
    assert any("another name, and goes on there" in note for note in store.stats().notes)
    await store.aclose()
    async with AsyncFileBlobStore.open(aside, create=False) as moved:
        assert await reads(moved, 0, 1, 2, 9)


async def test_a_flush_is_refused_too_and_close_raises_it_once_and_unlocks(store, other):
    """``write_blob`` promises nothing before its flush."""
    os.replace(other, store.path)
    await store.write_blob(guid(9), frame(9))
    for call in (store.flush, store.aclose):
        with pytest.raises(BlobStoreIOError, match="deleted or replaced"):
            await call()
    await store.aclose()
    async with AsyncFileBlobStore.open(store.path, lock_timeout=0) as theirs:
        assert await reads(theirs, 90, 91, 92)


async def test_every_member_of_a_group_is_refused(store):
    os.unlink(store.path)
    outcomes = await asyncio.gather(
        *(store.commit([(guid(n), frame(n))]) for n in range(10, 30)), return_exceptions=True
    )
    assert {getattr(outcome, "errno", None) for outcome in outcomes} == {errno.ESTALE}
    assert store.stats().slots_pending == 0, "their slots are free again"


async def test_a_directory_that_cannot_be_searched_any_more_says_nothing_of_names(store, monkeypatch):
    real = os.stat

    def stat(path, *rest, **more):
        if path == store.path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, *rest, **more)

    monkeypatch.setattr(identity.os, "stat", stat)
    await store.commit([(guid(8), frame(8))])
    os.unlink(store.path)
    await refused(store, "its last name was deleted")


async def test_a_file_system_that_answers_nothing_is_named(store, monkeypatch):
    def fails(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for name in ("stat", "fstat"):
        monkeypatch.setattr(identity.os, name, fails)
    with pytest.raises(BlobStoreIOError, match="stat of") as raised:
        await store.commit([(guid(9), frame(9))])
    assert (raised.value.errno, raised.value.applied) == (errno.EIO, False)
    monkeypatch.undo()
    await store.commit([(guid(9), frame(9))])


def test_a_read_only_store_says_it_as_well(store_path, engine):
    with FileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        store.commit([(guid(0), frame(0))])
    with FileBlobStore.open(store_path, read_only=True, engine=engine) as store:
        os.unlink(store_path)
        assert any("its last name was deleted" in note for note in store.stats().notes)
        store.read_blob(guid(0), bytearray(PAGE))
    assert store.stats().notes == ()


async def test_a_group_costs_one_look_and_no_read(store, monkeypatch):
    looked, real = [], os.stat

    def stat(path, *rest, **more):
        looked.append(path)
        return real(path, *rest, **more)

    monkeypatch.setattr(identity.os, "stat", stat)
    before = store.stats()
    looked.clear()
    await asyncio.gather(*(store.commit([(guid(n), frame(n))]) for n in range(10, 74)))
    groups = len(looked)
    after = store.stats()
    assert groups == after.log_groups - before.log_groups < 64
    assert after.reads == before.reads


# ---- the contents -------------------------------------------------------------------------------


async def poisoned_at_close(store, words):
    with pytest.raises(StoreCorrupt, match=words) as raised:
        await store.aclose()
    assert store.path in str(raised.value)
    assert "overwritten from outside" in store.stats().poisoned


async def test_a_file_that_was_cut_takes_no_commit(store):
    """What counts is its length when the group is formed: frames are on their way by then."""
    os.truncate(store.path, 8 * PAGE)
    with pytest.raises(StoreCorrupt, match="the file was cut to"):
        await store.commit([(guid(9), frame(9))])
    with pytest.raises(StorePoisoned, match="the file was cut to"):
        await store.commit([(guid(9), frame(9))])


async def test_another_store_copied_over_it_is_noticed_at_close_and_stays(store, other):
    await overwrite(store, other)
    await poisoned_at_close(store, "it is another store's")
    async with AsyncFileBlobStore.open(store.path) as theirs:
        assert await reads(theirs, 90, 91, 92)


@pytest.mark.parametrize("groups", [0, 2])
async def test_zeroes_over_its_head_are_noticed_at_close(store, groups):
    with open(store.path, "r+b") as file:
        file.write(bytes(2 * BLOCK_SIZE))
    for n in range(groups):
        await store.commit([(guid(9), frame(n))])
    await poisoned_at_close(store, "superblocks are not the last ones")


@pytest.mark.parametrize("later", [0, 1, 5])
async def test_an_older_copy_put_back_is_noticed_at_close(store, disk_dir, later):
    """Its superblocks are the right ones, and what was committed afterwards is there: what lies between is not."""
    copy = disk_dir / "copy"
    shutil.copy(store.path, copy)
    for n in range(20, 24):
        await store.commit([(guid(n), frame(n))])
    await overwrite(store, copy)
    for n in range(30, 30 + later):
        await store.commit([(guid(n), frame(n))])
    await poisoned_at_close(store, "group 5 is not in the log any more")


async def test_a_copy_of_an_earlier_close_put_back_is_noticed_at_close(store, store_path, disk_dir):
    await store.aclose()
    copy = disk_dir / "copy"
    shutil.copy(store_path, copy)
    again = await opened(store_path, "auto")
    await overwrite(again, copy)
    await poisoned_at_close(again, "group 5 is not in the log any more")


async def test_the_same_where_it_was_opened_and_closed_in_between(store, store_path, disk_dir):
    copy = disk_dir / "copy"
    shutil.copy(store_path, copy)
    await store.aclose()
    again = await AsyncFileBlobStore.open(store_path)
    await overwrite(again, copy)
    await poisoned_at_close(again, "superblocks are not the last ones")


async def test_a_compaction_does_not_write_over_what_is_anothers(store, other):
    await overwrite(store, other)
    with open(store.path, "rb") as file:
        theirs = file.read(2 * BLOCK_SIZE)
    with pytest.raises(StoreCorrupt, match="another store's"):
        await store._core.maintenance.start_compaction()
    with pytest.raises(StorePoisoned):
        await store.commit([(guid(9), frame(9))])
    await store.aclose(flush=False)
    with open(store.path, "rb") as file:
        assert file.read(2 * BLOCK_SIZE) == theirs


async def test_after_a_compaction_the_new_log_is_the_one_that_is_looked_at(store, disk_dir):
    await store._core.maintenance.start_compaction()
    copy = disk_dir / "copy"
    shutil.copy(store.path, copy)
    await store.commit([(guid(9), frame(9))])
    await overwrite(store, copy)
    await poisoned_at_close(store, "is not in the log any more")


@pytest.mark.parametrize("offset", [0, BLOCK_SIZE])
async def test_one_damaged_superblock_is_no_reason_not_to_close(store, offset):
    with open(store.path, "r+b") as file:
        file.seek(offset + 100)
        file.write(b"rot")
    await store._core.maintenance.start_compaction()
    await store.commit([(guid(9), frame(9))])
    await store.aclose()
    async with AsyncFileBlobStore.open(store.path) as again:
        assert await reads(again, 0, 1, 2, 9)
        assert (await again.verify()).ok


@pytest.mark.parametrize("name", ["stat", "fstat"])
def test_a_timeout_that_a_handler_raises_in_stats_is_no_answer_of_the_system(store_path, monkeypatch, name):
    def interrupted(*_, **__):
        raise TimeoutError("the caller's own alarm")

    with FileBlobStore.open(store_path, page_size=4096) as store:
        with monkeypatch.context() as alarm:
            alarm.setattr(os, name, interrupted)
            with pytest.raises(TimeoutError, match="own alarm"):
                store.stats()
        assert store.stats().notes == ()
