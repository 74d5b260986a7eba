"""No room in the middle of something: the error is raised, nothing committed is lost, and with
room again the store goes on and reopens.
"""

from __future__ import annotations

import asyncio
import errno

import pytest

from behaviour import children
from behaviour.faults import FailingWrites
from behaviour.mounts import MIB, ext4, fill_up, tmpfs
from behaviour.work import fill, frame, guid, missing
from uringblob import AsyncFileBlobStore, BlobStoreIOError

pytestmark = pytest.mark.one_interpreter

NO_SPACE = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]
CALLS = ["write_blobs", "write_blobs_with_data_sync", "commit"]
FULL = pytest.mark.parametrize("place", [tmpfs, ext4], ids=["tmpfs", "ext4"])


async def fill_until_refused(store, first):
    """Commit one blob at a time until there is no room; return the numbers committed, and the error."""
    number = first
    while True:
        try:
            await store.commit([(guid(number), frame(number, store.page_size))])
        except BlobStoreIOError as error:
            return range(first, number), error
        number += 1


async def fill_to_the_brim(store, directory):
    """Leave no room in the file system, nor in the store; return the numbers of the blobs there."""
    await fill(store, range(40))
    fill_up(directory)
    more, _ = await fill_until_refused(store, 40)
    return range(more.stop)


# ---- real file systems that are really full -----------------------------------------------------


@FULL
async def test_a_file_system_fills_up(needs_root, disk_dir, engine, place):
    with place(disk_dir / "full", 24 * MIB) as directory:
        path = directory / "store"
        async with AsyncFileBlobStore.open(path, engine=engine, page_size=65536) as store:
            await fill(store, range(10))
            ballast = fill_up(directory)
            more, error = await fill_until_refused(store, 10)
            assert error.errno == errno.ENOSPC
            assert error.applied is False
            assert str(path) in str(error)
            there = range(more.stop)
            assert not await missing(store, there)
            assert not await store.has_blob(guid(more.stop))
            assert store.stats().poisoned == ""

            # Deletions need no room, and make some.
            await store.commit(deletes=[guid(n) for n in range(5)])
            await fill(store, [0, 1, 2])

            # Nor does what replaces nothing fail for good: with room again it goes on.
            ballast.unlink()
            await fill(store, [3, 4, *range(more.stop, more.stop + 20)])
        async with AsyncFileBlobStore.open(path, engine=engine) as store:
            assert not await missing(store, range(more.stop + 20))
            assert (await store.verify()).ok


@FULL
async def test_deletions_on_a_full_disk_free_room(needs_root, disk_dir, engine, place):
    """One after the other, with a flush each: the log, too, must find its room."""
    with place(disk_dir / "full", 16 * MIB) as directory:
        path = directory / "store"
        async with AsyncFileBlobStore.open(path, engine=engine, page_size=4096) as store:
            there = await fill_to_the_brim(store, directory)
        async with AsyncFileBlobStore.open(path, engine=engine) as store:
            for number in there:
                await store.delete_blob(guid(number))
                await store.flush()
            assert await store.list_blobs() == []
        async with AsyncFileBlobStore.open(path, engine=engine) as store:
            assert await store.list_blobs() == []
            again, error = await fill_until_refused(store, 0)
            assert error.errno == errno.ENOSPC
            assert len(again) >= len(there) // 2
            assert not await missing(store, again)


@FULL
async def test_a_commit_during_a_compaction_on_a_full_disk(needs_root, disk_dir, engine, place):
    """While the log is written anew it has two logs' segments, and the reserve for it is short.

    A commit at that moment was refused (ENOSPC) with free slots at hand: on a busy machine, in
    every fortieth run of the test above.
    """
    with place(disk_dir / "full", 16 * MIB) as directory:
        path = directory / "store"
        async with AsyncFileBlobStore.open(path, engine=engine, page_size=4096) as store:
            there = await fill_to_the_brim(store, directory)
            await store.commit(deletes=[guid(n) for n in range(20)])
            for number in range(10):
                free = store._core.log_space.free_granules
                compaction = store._core.maintenance.start_compaction()
                while store._core.log_space.free_granules == free:
                    await asyncio.sleep(0)  # until it has taken segments
                    assert not compaction.done(), "it took none"
                await store.commit([(guid(number), frame(number, 4096, 1))])
                await compaction
            assert not await missing(store, range(10), 1)
            assert not await missing(store, there[20:])


@FULL
async def test_a_disk_that_stays_full_for_many_groups(needs_root, disk_dir, engine, place):
    """Overwriting the same blobs takes no room in the end, though each takes a fresh slot and a record."""
    with place(disk_dir / "full", 16 * MIB) as directory:
        path = directory / "store"
        async with AsyncFileBlobStore.open(path, engine=engine, page_size=4096) as store:
            await fill(store, range(22))
            await store.commit(
                deletes=[guid(20), guid(21)]
            )  # each takes a fresh slot, before the old one is free
            fill_up(directory)
            for version in range(1, 150):
                await store.commit([(guid(version % 5), frame(version % 5, 4096, version))])
        async with AsyncFileBlobStore.open(path, engine=engine) as store:
            for version in range(145, 150):
                assert not await missing(store, [version % 5], version)
            assert not await missing(store, range(5, 20))


@pytest.mark.parametrize("page_size", [4096, 524288])
def test_a_limit_on_the_size_of_files(disk_dir, engine, page_size):
    """RLIMIT_FSIZE: EFBIG; SIGXFSZ, which Python ignores, must not matter."""
    answer = children.run(
        "behaviour.child_fsize:fill_up_to_the_limit", str(disk_dir / "store"), engine, page_size
    )
    assert answer["errno"] == errno.EFBIG
    assert answer["committed"] > 0
    assert answer["wrong"] == []
    assert answer["poisoned"] == ""
    assert answer["wrong after"] == []


# ---- the n-th write, exactly --------------------------------------------------------------------


@pytest.mark.parametrize("short", [0, 4096], ids=["at once", "after a part"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", NO_SPACE, ids=errno.errorcode.get)
async def test_in_the_middle_of_a_frame(store_path, engine, number, call, short):
    """No room is not the end of trust: what was there stays, the change did not happen."""
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=16384) as store:
        await fill(store, range(10))
        changes = [(guid(n), frame(n, 16384, version=1)) for n in range(5, 12)]
        faults = FailingWrites(store, number, count=1, short=short)
        with faults, pytest.raises(BlobStoreIOError) as caught:
            await getattr(store, call)(changes)
        assert faults.failed
        assert caught.value.errno == number
        assert caught.value.applied is False
        assert store.stats().poisoned == ""
        assert not await missing(store, range(10))
        assert not await store.has_blob(guid(11))
        await asyncio.sleep(0)  # a call that ends is resumed where its request is reaped
        assert store.stats().in_flight == 0
        assert store.stats().slots_pending <= 20
        await getattr(store, call)(changes)
        await store.flush()
        assert not await missing(store, range(5, 12), version=1)
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert not await missing(store, range(5))
        assert not await missing(store, range(5, 12), version=1)
        assert (await store.verify()).ok


@pytest.mark.parametrize("number", NO_SPACE, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["commit", "flush"])
async def test_in_the_middle_of_the_log(store_path, engine, number, call):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096) as store:
        await fill(store, range(10))
        # More than one block of records, so that a part of the group can be on the medium.
        changes = [(guid(n), frame(n, 4096, version=1)) for n in range(300)]
        if call == "flush":
            await store.write_blobs(changes)
        faults = FailingWrites(store, number, kind="log", count=1, short=4096)
        with faults, pytest.raises(BlobStoreIOError) as caught:
            await (store.commit(changes) if call == "commit" else store.flush())
        assert faults.failed
        assert caught.value.errno == number
        assert store.stats().poisoned == ""
        if call == "commit":
            assert not await missing(store, range(10))
            assert len(await store.list_blobs()) == 10
        else:
            # What was visible stays visible, and is still to be flushed.
            assert not await missing(store, range(300), version=1)
            assert store.needs_flush()
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        # Closing flushes, so the second try of the flush was the close's.
        assert not await missing(store, range(10), version=1 if call == "flush" else 0)
        assert len(await store.list_blobs()) == (300 if call == "flush" else 10)
        await store.commit(changes)
        assert (await store.verify()).ok
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert not await missing(store, range(300), version=1)


async def test_who_shares_a_group_with_a_failed_frame_is_not_failed(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096) as store:
        with FailingWrites(store, errno.ENOSPC, nth=3, count=1):
            commits = [store.commit([(guid(n), frame(n, 4096))]) for n in range(8)]
            outcomes = await asyncio.gather(*commits, return_exceptions=True)
        failed = [n for n, outcome in enumerate(outcomes) if outcome is not None]
        assert len(failed) == 1
        assert outcomes[failed[0]].guid == guid(failed[0])
        assert set(await missing(store, range(8))) == set(failed)
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert set(await missing(store, range(8))) == set(failed)


async def test_no_growth(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096) as store:
        with FailingWrites(store, errno.EDQUOT, nth=1 << 30, growth=True) as faults:
            there, error = await fill_until_refused(store, 0)
        assert faults.failed
        assert error.errno == errno.EDQUOT
        assert not await missing(store, there)
        await fill(store, range(len(there), len(there) + 50))
    async with AsyncFileBlobStore.open(store_path, engine=engine) as store:
        assert not await missing(store, range(len(there) + 50))
