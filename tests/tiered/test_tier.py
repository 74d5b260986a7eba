"""What the tier does beside the contract: one fetch for many, eviction, its limit, names of its own, counts."""

from __future__ import annotations

import asyncio

import pytest

from uringblob import (
    AsyncFileBlobStore,
    AsyncMemoryBlobStore,
    BlobGuid,
    BlobNotFound,
    BlobStoreIOError,
    ConditionFailed,
    FileBlobStore,
    MemoryBlobStore,
    StoreClosed,
)
from uringblob.remote import AsyncRemoteBlobStore, RemoteBlobStore
from uringblob.testing import CHECKS, check_async_blob_store, check_blob_store
from uringblob.testing.sim.bucket import SimBucket
from uringblob.tiered import AsyncTieredBlobStore, TieredBlobStore
from uringblob.tiered.records import RESERVED

pytestmark = pytest.mark.one_interpreter

PAGE = 4096
FRAMES_MAX = 40  #: the largest batch of the conformance suite
NAMES = [BlobGuid(bytes([n]) * 16) for n in range(1, 9)]


def frame(stamp: int) -> bytes:
    return bytes([stamp]) * PAGE


class Held(AsyncMemoryBlobStore):
    """A remote store whose reads and flushes wait while it is held."""

    def __init__(self) -> None:
        super().__init__(PAGE)
        self.free = asyncio.Event()
        self.free.set()
        self.reads = self.flushes = 0
        self.refuses = False

    async def read_blob(self, guid, dst):
        self.reads += 1
        await self.free.wait()
        await super().read_blob(guid, dst)

    async def flush(self):
        self.flushes += 1
        await self.free.wait()
        if self.refuses:
            raise BlobStoreIOError(5, "refused")
        await super().flush()


@pytest.fixture
async def remote():
    return Held()


async def tier_of(remote, count=0, **options):
    """Return a tier in which ``count`` blobs are evicted, or as many as the limit of the others."""
    tier = await AsyncTieredBlobStore(AsyncMemoryBlobStore(PAGE), remote, **options)
    for number, name in enumerate(NAMES[:count]):
        await tier.commit([(name, frame(number))])
        await tier.durable_remotely()
    return tier


async def read(store, guid) -> int:
    room = bytearray(PAGE)
    await store.read_blob(guid, room)
    assert room == frame(room[0])
    return room[0]


#: ``has_many`` counts reads, and uploads read in the background; ``TestFetching`` asks it.
ASKED = [check for check in CHECKS if check.name != "has_many"]


@pytest.mark.parametrize("check", ASKED, ids=str)
class TestTheContract:
    """On a small tier before a bucket: frames are evicted and fetched all the while."""

    async def test_async(self, check, disk_dir):
        numbers, now = iter(range(99)), {}

        async def reopen():
            local = await AsyncFileBlobStore.open(now["path"], page_size=PAGE)
            remote = await AsyncRemoteBlobStore.open(now["bucket"].client(), page_size=PAGE)
            return await AsyncTieredBlobStore(local, remote, max_local_bytes=FRAMES_MAX * PAGE)

        async def make():
            number = next(numbers)
            now.update(path=disk_dir / f"store-{number}", bucket=SimBucket(number))
            return await reopen()

        await check_async_blob_store(make, reopen=reopen, checks=[check])

    def test_sync(self, check, disk_dir):
        numbers, now = iter(range(99)), {}

        def reopen():
            local = FileBlobStore.open(now["path"], page_size=PAGE)
            return TieredBlobStore(local, RemoteBlobStore.open(now["bucket"].client(), page_size=PAGE))

        def make():
            number = next(numbers)
            now.update(path=disk_dir / f"store-{number}", bucket=SimBucket(number))
            return reopen()

        check_blob_store(make, reopen=reopen, checks=[check])


class TestFetching:
    async def test_many_readers_share_one_fetch(self, remote):
        async with await tier_of(remote, 3, max_local_bytes=PAGE) as tier:
            remote.free.clear()
            readers = [asyncio.ensure_future(read(tier, NAMES[0])) for _ in range(8)]
            await asyncio.sleep(0.01)
            readers[0].cancel()  # the others still get it
            remote.free.set()
            assert await asyncio.gather(*readers[1:]) == [0] * 7
            assert remote.reads == 1
            assert await read(tier, NAMES[0]) == 0
            assert remote.reads == 1, "it was not kept"

    async def test_a_reader_does_not_get_what_was_asked_for_before_a_change(self, remote):
        """A fetch began; the blob was deleted, written again, uploaded and evicted; then somebody reads."""
        async with await tier_of(remote, 2, max_local_bytes=PAGE) as tier:
            remote.free.clear()
            early = asyncio.ensure_future(read(tier, NAMES[0]))
            await asyncio.sleep(0.01)
            flushed = asyncio.ensure_future(tier.commit([(NAMES[0], frame(9))]))
            await asyncio.sleep(0.01)
            late = asyncio.ensure_future(read(tier, NAMES[0]))
            await flushed
            assert await late in (0, 9)
            remote.free.set()
            assert await early in (0, 9)
            assert await read(tier, NAMES[0]) == 9

    async def test_a_frame_that_cannot_be_kept_is_read_all_the_same(self, remote):
        async with await tier_of(remote, 2, max_local_bytes=PAGE) as tier:
            remote.refuses = True
            await tier.commit([(NAMES[1], frame(7))])  # the only local frame, and it must stay
            assert await read(tier, NAMES[0]) == 0
            assert tier.tier_stats().not_kept == 1
            remote.refuses = False

    async def test_names_and_metadata_of_what_is_evicted_need_no_request(self, remote):
        async with await tier_of(remote, 5, max_local_bytes=PAGE) as tier:
            assert tier.tier_stats().resident == 1
            assert sorted(await tier.list_blobs()) == NAMES[:5]
            assert all(await tier.has_blobs(NAMES[:5]))
            assert tier.stats().blobs == 5
            assert not await tier.has_blob(NAMES[6])
            assert remote.reads == 0

    async def test_verify_keeps_nothing_of_what_it_reads(self, remote):
        async with await tier_of(remote, 5, max_local_bytes=PAGE) as tier:
            report = await tier.verify()
            assert report.ok
            assert report.blobs_checked == 5
            assert tier.tier_stats().resident == 1


class TestStats:
    async def test_what_waits_and_for_how_long(self, remote):
        async with await tier_of(remote) as tier:
            assert tier.tier_stats().waiting_s == 0
            remote.free.clear()
            await tier.commit([(NAMES[0], frame(0)), (NAMES[1], frame(1))])
            await tier.commit([(NAMES[2], frame(2))])
            await tier.commit(deletes=[NAMES[1]])
            first = tier.tier_stats()
            assert (first.waiting, first.waiting_changes, first.waiting_bytes) == (3, 3, 2 * PAGE)
            await asyncio.sleep(0.01)
            assert tier.tier_stats().waiting_s >= first.waiting_s + 0.01
            remote.free.set()
            await tier.durable_remotely()
            last = tier.tier_stats()
            assert (last.waiting, last.waiting_changes, last.waiting_bytes, last.waiting_s) == (0, 0, 0, 0)
            assert last.uploaded_bytes >= 3 * PAGE

    async def test_what_is_left_by_an_upload_waits_since_that_began(self, remote):
        async with await tier_of(remote) as tier:
            remote.free.clear()
            await tier.commit([(NAMES[0], frame(0))])
            flushes = remote.flushes
            while remote.flushes == flushes:
                await asyncio.sleep(0)
            await asyncio.sleep(0.02)
            await tier.commit([(NAMES[1], frame(1))])
            before = tier.tier_stats()
            assert before.waiting_s >= 0.02
            began_s = tier._core.waiting_since_s
            remote.free.set()
            remote.free.clear()  # for one flush: the second upload waits again
            while tier.tier_stats().uploads == before.uploads:
                await asyncio.sleep(0)
            assert tier.tier_stats().waiting == 1
            assert tier._core.waiting_since_s > began_s
            remote.free.set()

    async def test_hits_and_misses_are_those_of_users(self, disk_dir, remote):
        local = await AsyncFileBlobStore.open(disk_dir / "store", page_size=PAGE)
        async with await AsyncTieredBlobStore(local, remote, max_local_bytes=2 * PAGE) as tier:
            for number, name in enumerate(NAMES[:4]):
                await tier.commit([(name, frame(number))])
                await tier.durable_remotely()
            assert (tier.tier_stats().hits, tier.tier_stats().misses) == (0, 0), "uploads read, too"
            for name in (NAMES[3], NAMES[3], NAMES[0], NAMES[0]):
                await read(tier, name)
                await tier._core.fetches.idle()  # it is kept, too
            remote.free.clear()
            readers = [asyncio.ensure_future(read(tier, NAMES[1])) for _ in range(3)]
            await asyncio.sleep(0.01)
            remote.free.set()
            await asyncio.gather(*readers)
            stats = tier.tier_stats()
            assert (stats.hits, stats.misses, stats.fetched) == (3, 4, 2)


class TestRoom:
    async def test_frames_that_were_read_stay_longer(self, remote):
        async with await tier_of(remote, 3, max_local_bytes=3 * PAGE) as tier:
            await read(tier, NAMES[0])
            await tier.commit([(NAMES[3], frame(3))])
            await read(tier, NAMES[0])
            assert remote.reads == 0
            await read(tier, NAMES[1])
            assert remote.reads == 1

    async def test_a_change_waits_until_there_is_room(self, remote):
        async with await tier_of(remote, max_local_bytes=2 * PAGE) as tier:
            remote.free.clear()
            await tier.commit([(NAMES[0], frame(0)), (NAMES[1], frame(1))])
            waiting = asyncio.ensure_future(tier.commit([(NAMES[2], frame(2))]))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            remote.free.set()
            await waiting
            assert tier.tier_stats().resident <= 2

    async def test_a_change_is_refused_where_nothing_can_be_uploaded(self, remote):
        async with await tier_of(remote, max_local_bytes=PAGE) as tier:
            remote.refuses = True
            await tier.commit([(NAMES[0], frame(0))])
            with pytest.raises(BlobStoreIOError, match="wait for the remote store") as caught:
                await tier.commit([(NAMES[1], frame(1))])
            assert caught.value.applied is False
            await tier.commit(deletes=[NAMES[0]])  # needs none
            with pytest.raises(BlobStoreIOError, match="adds 2 frames"):
                await tier.commit([(NAMES[1], frame(1)), (NAMES[2], frame(2))])
            remote.refuses = False

    def test_a_limit_below_one_frame(self):
        with pytest.raises(ValueError, match="less than one frame"):
            AsyncTieredBlobStore(AsyncMemoryBlobStore(PAGE), AsyncMemoryBlobStore(PAGE), max_local_bytes=1)

    async def test_changes_at_once_on_a_small_tier(self, remote):
        async with await tier_of(remote, max_local_bytes=2 * PAGE) as tier:
            pairs = [(NAMES[n], NAMES[(n + 3) % 8]) for n in range(8)] * 3
            await asyncio.gather(*(tier.commit([(a, frame(1)), (b, frame(1))]) for a, b in pairs))
            assert len(await tier.list_blobs()) == 8
            assert tier.tier_stats().resident <= 2


class TestConditions:
    async def test_of_evicted_blobs(self, remote):
        async with await tier_of(remote, 3, max_local_bytes=PAGE) as tier:
            with pytest.raises(ConditionFailed):
                await tier.commit([(NAMES[5], frame(5))], if_absent=[NAMES[0]])
            known = await tier.checksum(NAMES[0])
            await tier.commit([(NAMES[0], frame(5))], if_checksum={NAMES[0]: known})
            with pytest.raises(ConditionFailed):
                await tier.commit([(NAMES[0], frame(6))], if_checksum={NAMES[0]: known})
            await tier.commit(deletes=[NAMES[1]])
            await tier.commit([(NAMES[1], frame(7))], if_absent=[NAMES[1]])

    async def test_of_many_that_create_one_blob_one_succeeds(self, remote):
        async with await tier_of(remote) as tier:
            commits = [tier.commit([(NAMES[0], frame(n))], if_absent=[NAMES[0]]) for n in range(8)]
            outcomes = await asyncio.gather(*commits, return_exceptions=True)
            assert outcomes.count(None) == 1


class TestOwnNames:
    async def test_are_refused_and_hidden(self, remote):
        async with await tier_of(remote, 2) as tier:
            own = RESERVED + bytes(16 - len(RESERVED))
            for call in (
                lambda: tier.write_blob(own, frame(0)),
                lambda: tier.commit(deletes=[own]),
                lambda: tier.commit(if_absent=[own]),
                lambda: tier.read_blob(own, bytearray(PAGE)),
                lambda: tier.stat_blob(own),
            ):
                with pytest.raises(ValueError, match="tiers keep"):
                    await call()
            assert sorted(await tier.list_blobs()) == NAMES[:2]


class TestDeleting:
    async def test_what_is_deleted_does_not_come_back_from_the_remote_store(self, remote):
        async with await tier_of(remote, 3, max_local_bytes=PAGE) as tier:
            remote.free.clear()
            await tier.delete_blob(NAMES[0])  # evicted
            await tier.delete_blob(NAMES[2])  # local
            assert await tier.list_blobs() == [NAMES[1]]
            for name in (NAMES[0], NAMES[2]):
                with pytest.raises(BlobNotFound):
                    await tier.read_blob(name, bytearray(PAGE))
            remote.free.set()
            await tier.durable_remotely()
            assert await tier.list_blobs() == [NAMES[1]]

    async def test_one_flush_for_writes_and_deletions_of_what_is_uploaded(self, disk_dir, remote):
        local = await AsyncFileBlobStore.open(disk_dir / "store", page_size=PAGE)
        async with await AsyncTieredBlobStore(local, remote) as tier:
            await tier.commit([(NAMES[0], frame(0)), (NAMES[1], frame(1))])
            await tier.durable_remotely()
            remote.free.clear()  # no housekeeping meanwhile
            syncs = tier.stats().syncs
            await tier.commit([(NAMES[2], frame(2))], [NAMES[0], NAMES[1]])
            assert tier.stats().syncs == syncs + 1
            remote.free.set()


class TestSnapshots:
    async def test_show_what_was_evicted_and_deleted_since(self, remote):
        async with await tier_of(remote, 3, max_local_bytes=2 * PAGE) as tier:
            async with await tier.snapshot() as snapshot:
                await tier.commit([(NAMES[0], frame(8))], [NAMES[1]])
                await tier.durable_remotely()
                await tier.commit([(NAMES[5], frame(5)), (NAMES[6], frame(6))])
                await tier.durable_remotely()
                assert sorted(await snapshot.list_blobs()) == NAMES[:3]
                assert [await read(snapshot, name) for name in NAMES[:3]] == [0, 1, 2]
            assert sorted(await tier.list_blobs()) == [NAMES[0], NAMES[2], NAMES[5], NAMES[6]]


class TestTheEnd:
    async def test_waiting_for_the_remote_store_ends_with_the_tier(self, remote):
        tier = await tier_of(remote)
        remote.refuses = True
        await tier.commit([(NAMES[0], frame(0))])
        waiting = asyncio.ensure_future(tier.durable_remotely())
        await asyncio.sleep(0)
        await tier.aclose(flush=False)
        with pytest.raises((StoreClosed, BlobStoreIOError)):
            await waiting

    async def test_a_cancelled_commit_is_wholly_done(self, remote):
        async with await tier_of(remote) as tier:
            task = asyncio.ensure_future(tier.commit([(NAMES[0], frame(0)), (NAMES[1], frame(1))]))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(await tier.list_blobs()) in (0, 2)

    def test_stores_that_are_none(self, disk_dir):
        with pytest.raises(TypeError, match="FileBlobStore"):
            TieredBlobStore(MemoryBlobStore(PAGE), MemoryBlobStore(PAGE))

    def test_a_thread_reads_what_is_local_by_itself(self, disk_dir):
        local = FileBlobStore.open(disk_dir / "store", page_size=PAGE)
        with TieredBlobStore(local, MemoryBlobStore(PAGE), max_local_bytes=2 * PAGE) as tier:
            for number, name in enumerate(NAMES[:4]):
                tier.commit([(name, frame(number))])
            tier.durable_remotely()
            room = bytearray(PAGE)
            for number, name in enumerate(NAMES[:4]):
                tier.read_blob(name, room)
                assert room == frame(number)
            assert tier.tier_stats().fetched
            tier.commit([(NAMES[3], frame(9))])
            before = tier.stats().reads_here
            with tier.alloc_blob_buf_zeroed() as aligned:
                tier.read_blob(NAMES[3], aligned)
                assert bytes(aligned.view) == frame(9)
            assert tier.stats().reads_here == before + 1
        assert tier.closed
