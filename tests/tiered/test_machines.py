"""Who has written to the bucket since: taking over, coming back, and what is refused."""

from __future__ import annotations

import asyncio

import pytest

from uringblob import AsyncFileBlobStore, BlobGuid, BlobStoreIOError, PageSizeMismatch, WriterFenced
from uringblob.errors import TierDiverged
from uringblob.remote import AsyncRemoteBlobStore
from uringblob.testing.sim.bucket import BucketFault, SimBucket
from uringblob.tiered import AsyncTieredBlobStore

pytestmark = pytest.mark.one_interpreter

PAGE = 4096
A, B, C = (BlobGuid(bytes([n]) * 16) for n in (1, 2, 3))


def frame(stamp: int) -> bytes:
    return bytes([stamp]) * PAGE


class Machines:
    """Machines with a file each, before one bucket."""

    def __init__(self, directory) -> None:
        self.directory, self.bucket = directory, SimBucket(1)
        self.cut_off = False

    def faults(self, request):
        return BucketFault.REFUSED if self.cut_off and request.method != "get" else None

    async def local(self, name):
        return await AsyncFileBlobStore.open(self.directory / name, page_size=PAGE)

    async def open(self, name, **options):
        remote = await AsyncRemoteBlobStore.open(self.bucket.client(self.faults), page_size=PAGE)
        local = await self.local(name)
        try:
            return await AsyncTieredBlobStore(local, remote, **options)
        except BaseException:
            await local.aclose()
            await remote.aclose()
            raise


@pytest.fixture
def machines(disk_dir):
    return Machines(disk_dir)


async def read(store, guid) -> int | None:
    room = bytearray(PAGE)
    if not await store.has_blob(guid):
        return None
    await store.read_blob(guid, room)
    assert room == frame(room[0])
    return room[0]


async def test_a_machine_that_takes_over_has_what_was_uploaded(machines):
    async with await machines.open("one") as one:
        await one.commit([(A, frame(1), b"meta"), (B, frame(2))])
        await one.commit(deletes=[B])
        await one.durable_remotely()
        async with await machines.open("two") as two:
            assert await two.list_blobs() == [A]
            assert await read(two, A) == 1
            assert (await two.stat_blob(A)).meta == b"meta"


async def test_a_tier_that_was_taken_over_stops_and_can_be_read(machines):
    one = await machines.open("one")
    await one.commit([(A, frame(1))])
    await one.durable_remotely()
    async with await machines.open("two") as two:
        await two.commit([(A, frame(2))])
        await one.commit([(B, frame(3))])  # durable here alone
        with pytest.raises(WriterFenced):
            await one.durable_remotely()
        for change in (
            one.commit([(C, frame(4))]),
            one.write_blob(C, frame(4)),
            one.delete_blob(A),
            one.flush(),
        ):
            with pytest.raises(WriterFenced):
                await change
        assert [await read(one, guid) for guid in (A, B, C)] == [1, 3, None]
        assert "took this store over" in one.tier_stats().stopped
        await one.aclose()
        await two.durable_remotely()
        assert await read(two, A) == 2


async def test_two_histories_are_not_mixed(machines):
    """What was not uploaded when another machine took over is kept, and refused by name."""
    one = await machines.open("one")
    await one.commit([(A, frame(1))])
    await one.durable_remotely()
    machines.cut_off = True
    await one.commit([(B, frame(2))])
    await one.aclose()
    machines.cut_off = False
    async with await machines.open("two") as two:
        await two.commit([(C, frame(3))])
        await two.durable_remotely()
    with pytest.raises(TierDiverged, match="discard_local"):
        await machines.open("one")
    async with await machines.local("one") as alone:
        assert await read(alone, B) == 2
    async with await machines.open("one", discard_local=True) as one:
        assert sorted(await one.list_blobs()) == [A, C]
        assert await read(one, B) is None


async def test_a_machine_that_closed_well_comes_back(machines):
    """It keeps of its frames those that are still right."""
    async with await machines.open("one") as one:
        await one.commit([(A, frame(1)), (B, frame(2))])
    async with await machines.open("two") as two:
        await two.commit([(A, frame(3))])
    async with await machines.open("one") as one:
        assert [await read(one, A), await read(one, B)] == [3, 2]
        assert one.tier_stats().fetched == 1, "B was there already"


async def test_a_machine_that_only_looked_leaves_no_trace(machines):
    """Who opened and wrote nothing has no history of its own."""
    one = await machines.open("one")
    await one.commit([(A, frame(1))])
    machines.cut_off = True
    await one.commit([(B, frame(2))])
    await one.aclose()
    machines.cut_off = False
    async with await machines.open("two"):
        pass
    async with await machines.open("one") as one:
        await one.durable_remotely()
    async with await machines.open("three") as three:
        assert await read(three, B) == 2


async def test_what_was_not_uploaded_is_after_a_crash(machines):
    """Also a deletion, and one of a blob whose frame was evicted."""
    one = await machines.open("one", max_local_bytes=2 * PAGE)
    for guid, stamp in ((A, 1), (B, 2), (C, 3)):
        await one.commit([(guid, frame(stamp))])
    await one.durable_remotely()
    assert one.tier_stats().evicted
    machines.cut_off = True
    await one.commit([(B, frame(4))], [A])
    await one.commit(deletes=[C])
    await one.aclose(flush=False)
    machines.cut_off = False
    async with await machines.open("one") as again:
        assert [await read(again, guid) for guid in (A, B, C)] == [None, 4, None]
        await again.durable_remotely()
    async with await machines.open("two") as two:
        assert [await read(two, guid) for guid in (A, B, C)] == [None, 4, None]


async def test_a_file_store_becomes_a_tier(machines):
    async with await machines.local("one") as alone:
        await alone.commit([(A, frame(1), b"m"), (B, frame(2))])
    async with await machines.open("one") as one:
        assert sorted(await one.list_blobs()) == [A, B]
        await one.durable_remotely()
    async with await machines.open("two") as two:
        assert [await read(two, A), await read(two, B)] == [1, 2]
    async with await machines.local("three") as alone:
        await alone.commit([(C, frame(1))])
    with pytest.raises(TierDiverged):  # and does not where the bucket is another's
        await machines.open("three")


async def test_frames_of_two_sizes(machines):
    remote = await AsyncRemoteBlobStore.open(machines.bucket.client(), page_size=2 * PAGE)
    tier = AsyncTieredBlobStore(await machines.local("one"), remote)
    with pytest.raises(PageSizeMismatch, match="8192"):
        await tier
    await tier.aclose()


async def test_a_commit_through_to_the_bucket(machines):
    """With ``write_back=False``: it returns when both have it; refused by the bucket, it is durable here."""
    async with await machines.open("one", write_back=False) as one:
        await one.commit([(A, frame(1))])
        async with AsyncRemoteBlobStore.open(machines.bucket.client(), read_only=True) as reader:
            assert await read(reader, A) == 1
        machines.cut_off = True
        with pytest.raises(BlobStoreIOError):
            await one.commit([(B, frame(2))])
        assert await read(one, B) == 2
        machines.cut_off = False
        await one.flush()
        assert not one.needs_flush()


async def test_durable_remotely_says_so_when_the_bucket_refuses(machines):
    async with await machines.open("one") as one:
        machines.cut_off = True
        await one.commit([(A, frame(1))])
        with pytest.raises(BlobStoreIOError, match="refused"):
            await asyncio.wait_for(one.durable_remotely(), 30)
        assert one.tier_stats().upload_failures
        machines.cut_off = False
        await one.durable_remotely()
        assert one.tier_stats().waiting == 0
