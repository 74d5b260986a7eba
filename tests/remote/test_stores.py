"""A store in a bucket: opening, readers, the writer that is taken over, what it costs, and its end."""

from __future__ import annotations

import asyncio
import collections
import errno
import gc
import os
import pickle

import pytest

from remote.lives import PAGE, frame, look
from uringblob import (
    BlobChanged,
    BlobCorrupt,
    BlobGuid,
    BlobStoreIOError,
    Changes,
    EngineUnavailable,
    PageSizeMismatch,
    StoreClosed,
    StoreCorrupt,
    StoreReadOnly,
    WriterFenced,
)
from uringblob.remote import AsyncRemoteBlobStore, BucketError, RemoteBlobStore
from uringblob.testing import SimLoop
from uringblob.testing.sim.bucket import BucketFault, SimBucket

pytestmark = pytest.mark.one_interpreter

A, B, C = (BlobGuid(bytes([number]) * 16) for number in range(1, 4))


@pytest.fixture
def bucket():
    return SimBucket()


def opened(bucket, faults=None, **options):
    options.setdefault("page_size", None if options.get("read_only") else PAGE)
    client = bucket.client(faults) if faults else bucket.client()
    return AsyncRemoteBlobStore.open(client, **options)


def asked(client, since=0):
    """What a client's requests were, by method."""
    return dict(collections.Counter(request.method for request in client.sent[since:]))


# -- opening -----------------------------------------------------------------------------------


async def test_a_missing_store_is_made_only_if_asked(bucket):
    for options in ({"create": False}, {"read_only": True}):
        with pytest.raises(FileNotFoundError, match="there is no store here"):
            await opened(bucket, **options)
    assert not bucket.objects
    async with opened(bucket) as store:
        assert store.page_size == PAGE
    with pytest.raises(PageSizeMismatch, match=f"frames of {PAGE} bytes"):
        await opened(bucket, page_size=2 * PAGE)


async def test_two_that_make_it_at_once_make_one(bucket):
    stores = await asyncio.gather(*(opened(bucket) for _ in range(4)))
    assert len({store._core.history.head.store for store in stores}) == 1
    assert len({store._core.history.epoch for store in stores}) == 4
    for store in stores:
        await store.aclose(flush=False)


@pytest.mark.parametrize(
    "options",
    [{"page_size": 5}, {"grace": -1}, {"grace": 300, "lease": 600}, {"compact_after": 0}],
    ids=str,
)
async def test_options_that_cannot_be(bucket, options):
    with pytest.raises(ValueError):
        AsyncRemoteBlobStore.open(bucket.client(), **options)
    with pytest.raises(TypeError):
        AsyncRemoteBlobStore.open(bucket.client(), sze=1)


async def test_another_object_as_head_is_refused(bucket):
    bucket.set("head", b"something else")
    with pytest.raises(StoreCorrupt, match="give another prefix"):
        await opened(bucket)
    assert bucket.keys() == ["head"]


async def test_a_bucket_that_does_not_answer_is_an_error_of_the_store(bucket):
    with pytest.raises(BlobStoreIOError, match="opening the store") as caught:
        await SimLoopOpened(bucket)
    assert caught.value.errno == errno.ETIMEDOUT
    assert caught.value.applied is None


class SimLoopOpened:
    """Opens on a simulated loop, whose pauses take no time."""

    def __init__(self, bucket):
        self.bucket = bucket

    def __await__(self):
        async def open_it():
            return await opened(self.bucket, lambda _: BucketFault.LOST)

        yield from asyncio.sleep(0).__await__()
        return SimLoop().run(open_it())


@pytest.mark.parametrize("lie", ["create", "replace"])
async def test_a_bucket_that_is_given_is_probed_unless_its_maker_has(lie):
    lying = SimBucket(lies=[lie])
    client = lying.client()
    client.probed = False
    with pytest.raises(EngineUnavailable, match="overwrites the object"):
        await AsyncRemoteBlobStore.open(client, page_size=PAGE)
    assert not lying.objects
    async with opened(lying), AsyncRemoteBlobStore.open(client, read_only=True):
        assert not lying.keys("probe/")


# -- readers -----------------------------------------------------------------------------------


async def test_a_reader_moves_when_it_is_asked_to(bucket):
    async with opened(bucket) as writer, opened(bucket, read_only=True) as reader:
        await writer.commit([(A, frame(1)), (B, frame(2))])
        assert await look(reader) == {}
        assert await reader.refresh()
        assert await look(reader) == {A: 1, B: 2}
        assert not await reader.refresh()
        assert not await writer.refresh()
        with pytest.raises(StoreReadOnly, match="read_only=True"):
            await reader.commit([(A, frame(3))])
        with pytest.raises(StoreReadOnly):
            await reader.collect()
        assert not reader.needs_flush()
        await reader.flush()
        assert reader.stats().read_only


async def test_a_reader_follows(bucket):
    async with opened(bucket) as writer, opened(bucket, read_only=True) as reader:
        followed = reader.follow(poll=0)
        await writer.commit([(A, frame(1)), (B, frame(1))])
        await writer.commit([(C, frame(1))], [A])
        first, second = [await anext(followed), await anext(followed)]
        assert first == Changes(2, (A, B), ())
        assert second == Changes(3, (C,), (A,))
        other = reader.follow(poll=0)
        waiting = [asyncio.ensure_future(anext(each)) for each in (followed, other)]
        await writer.commit([(B, frame(2))])
        assert await asyncio.gather(*waiting) == [Changes(4, (B,), ())] * 2
        with pytest.raises(RuntimeError, match="only a reader follows"):
            writer.follow()
        for each in (followed, other):
            await each.aclose()
        assert not reader._core.history.followers


async def test_a_follower_that_slept_gets_what_changed_as_one(bucket):
    async with opened(bucket, grace=0) as writer, opened(bucket, read_only=True) as reader:
        await writer.commit([(A, frame(1)), (B, frame(1))])
        await reader.refresh()
        followed = reader.follow(poll=0)
        reader._core.lease._until_s = 0  # it slept, and its lease has expired
        bucket.delete(bucket.keys("leases/"))
        await writer.commit([(B, frame(2)), (C, frame(2))])
        await writer.commit([], [A])
        await writer.compact()
        assert [await writer.collect() > 0 for _ in range(3)] == [False, True, False]
        with pytest.raises(BlobChanged, match=r"call refresh\(\)"):
            await reader.read_blob(A, bytearray(PAGE))
        changes = await anext(followed)
        assert (changes.seq, set(changes.written), changes.deleted) == (4, {B, C}, (A,))
        assert await look(reader) == {B: 2, C: 2}
        await followed.aclose()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EDQUOT, errno.ENOSPC], ids=errno.errorcode.get)
async def test_a_reader_that_may_only_read_or_of_a_full_bucket_goes_without_a_lease(bucket, number):
    async with opened(bucket) as writer:
        await writer.commit([(A, frame(1))])
        client = bucket.client()

        async def refuse(key, _body):
            raise BucketError(number, f"put {key}: refused")

        client.put = refuse
        async with AsyncRemoteBlobStore.open(client, read_only=True) as reader:
            assert await look(reader) == {A: 1}
            assert "no lease" in reader.stats().notes[0]


# -- writers -----------------------------------------------------------------------------------


async def test_a_writer_that_was_taken_over_says_so_and_reads_on(bucket):
    async with opened(bucket) as one:
        await one.commit([(A, frame(1))])
        await one.write_blob(B, frame(1))
        two = await opened(bucket)
        for _ in range(2):
            with pytest.raises(WriterFenced, match="took this store over in epoch 2"):
                await one.commit([(A, frame(2))])
        with pytest.raises(WriterFenced):
            await one.flush()
        with pytest.raises(WriterFenced):
            await one.write_blob(C, frame(1))
        assert await look(one) == {A: 1, B: 1}
        assert one.needs_flush()
        assert "took this store over" in one.stats().poisoned
        assert await look(two) == {A: 1}
        await two.aclose()
        await one.aclose(flush=False)


class Network:
    """A way to the bucket that breaks, from the next group on, until it is :attr:`mended`."""

    def __init__(self, bucket, fault):
        self.mended, self._fault = True, fault
        self.client = bucket.client(self._decide)

    def _decide(self, request):
        if self.mended:
            return None
        return self._fault if request.method == "create" else BucketFault.LOST

    async def open(self):
        store = await AsyncRemoteBlobStore.open(self.client, page_size=PAGE)
        store._core.requests._pause_s = 0
        return store

    async def commit(self, store, *frames):
        """Commit, with an outcome that nobody knows."""
        self.client.faults = lambda request: None if request.method == "put" else self._decide(request)
        self.mended = False
        with pytest.raises(BlobStoreIOError) as caught:
            await store.commit(frames)
        assert caught.value.applied is None


LOOKS = {
    "has": lambda store: store.has_blob(A),
    "list": lambda store: store.list_blobs(),
    "read": lambda store: store.read_blobs([(A, bytearray(PAGE))]),
    "snapshot": lambda store: store.snapshot(),
    "refresh": lambda store: store.refresh(),
}


@pytest.mark.parametrize("there", [True, False], ids=["there", "lost"])
@pytest.mark.parametrize("call", LOOKS.values(), ids=LOOKS)
async def test_a_commit_of_unknown_outcome_is_looked_for_by_the_next_call(bucket, call, there):
    network = Network(bucket, BucketFault.ANSWER_LOST if there else BucketFault.LOST)
    async with await network.open() as store:
        await network.commit(store, (A, frame(1)))
        network.mended = True
        since = len(network.client.sent)
        await call(store)
        assert network.client.sent[since][1:] == ("get", f"log/{2:020}")
        since = len(network.client.sent)
        assert (await store.has_blob(A), await store.list_blobs()) == (there, [A] * there)
        assert network.client.sent[since:] == [], "it is looked for once"
        assert store.needs_flush() is not there
        await store.commit([(B, frame(2))])
        assert await look(store) == {A: 1, B: 2}
    async with opened(bucket, read_only=True) as reader:
        assert await look(reader) == {A: 1, B: 2}


async def test_a_look_that_fails_leaves_what_is_known(bucket):
    network = Network(bucket, BucketFault.ANSWER_LOST)
    async with await network.open() as store:
        await network.commit(store, (A, frame(1)))
        assert not await store.has_blob(A)
        since = len(network.client.sent)
        assert not await store.has_blob(A)
        assert network.client.sent[since:] == []
        with pytest.raises(BlobStoreIOError, match="looking for the last group"):
            await store.refresh()
        network.mended = True
        assert await store.refresh()
        assert await store.has_blob(A)
        assert not await store.refresh()


async def test_a_look_that_finds_another_writer_is_a_fence(bucket):
    network = Network(bucket, BucketFault.LOST)
    store = await network.open()
    await store.commit([(B, frame(1))])
    await network.commit(store, (A, frame(1)))
    network.mended = True
    async with opened(bucket) as other:
        with pytest.raises(WriterFenced):
            await store.refresh()
        assert await look(store) == {B: 1} == await look(other)
    await store.aclose(flush=False)


async def test_a_look_that_is_cancelled_is_for_the_next_call(bucket):
    network = Network(bucket, BucketFault.ANSWER_LOST)
    async with await network.open() as store:
        await network.commit(store, (A, frame(1)))
        network.mended, asleep = True, asyncio.Event()

        async def sleep(_request):
            asleep.set()
            await asyncio.Event().wait()

        network.client.before = sleep
        looking = asyncio.ensure_future(store.has_blob(A))
        await asleep.wait()
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        network.client.before = None
        assert await store.has_blob(A)


@pytest.mark.parametrize("steps", range(6))
async def test_a_look_that_is_cancelled_at_any_step_holds_up_nothing(bucket, steps):
    """Cancelled before its first step it ran none of its own lines, and closing waited for it without an end."""
    network = Network(bucket, BucketFault.ANSWER_LOST)
    async with await network.open() as store:
        await network.commit(store, (A, frame(1)))
        network.mended = True
        looking = asyncio.ensure_future(store.has_blob(A))
        for _ in range(steps):
            await asyncio.sleep(0)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await store.commit([(B, frame(2))])
        assert await look(store) == {A: 1, B: 2}


async def test_a_commit_during_a_look_waits_for_it(bucket):
    network = Network(bucket, BucketFault.ANSWER_LOST)
    async with await network.open() as store:
        await network.commit(store, (A, frame(1)))
        network.mended = True
        moved = await asyncio.gather(store.refresh(), store.commit([(B, frame(2))]), store.refresh())
        assert moved == [True, None, False]
        assert await look(store) == {A: 1, B: 2}


async def test_commits_at_once_share_a_group(bucket):
    client = bucket.client()
    async with AsyncRemoteBlobStore.open(client, page_size=PAGE) as store:
        since = len(client.sent)
        guids = [BlobGuid(bytes([number]) * 16) for number in range(32)]
        await asyncio.gather(*(store.commit([(guid, frame(1))]) for guid in guids))
        made = asked(client, since)
        assert made["put"] == 32
        assert made["create"] < 16
        assert store.stats().commits == 32


async def test_requests_are_as_few_as_the_page_says(bucket):
    """``docs/remote-format.md``, "What it costs"."""
    client = bucket.client()
    async with AsyncRemoteBlobStore.open(client, page_size=PAGE) as store:

        async def costs(call):
            since = len(client.sent)
            await call
            return asked(client, since)

        writes = [(A, frame(1)), (B, frame(1)), (C, frame(1))]
        assert await costs(store.commit(writes)) == {"put": 3, "create": 1}
        assert await costs(store.write_blobs(writes)) == {"put": 3}
        assert await costs(store.flush()) == {"create": 1}
        assert await costs(store.flush()) == {}
        assert await costs(store.read_blob(A, bytearray(PAGE))) == {"get": 1}
        for call in (store.list_blobs(), store.has_blob(A), store.stat_blob(A), store.delete_blob(A)):
            assert await costs(call) == {}
        assert await costs(store.snapshot()) == {}
        assert await costs(store.compact()) == {"put": 1, "replace": 1}
        other = bucket.client()
        async with AsyncRemoteBlobStore.open(other, read_only=True) as reader:
            # head, map, the group that is not there, head again; the lease, and head after it
            assert asked(other) == {"get": 5, "put": 1}
            since = len(other.sent)
            assert not await reader.refresh()
            assert asked(other, since) == {"get": 1}


async def test_wrong_bytes_are_found(bucket):
    async with opened(bucket) as store:
        await store.commit([(A, frame(1)), (B, frame(1))])
        key = bucket.keys("frames/")[0]
        bucket.set(key, frame(2))
        bucket.delete([bucket.keys("frames/")[1]])
        report = await store.verify()
        assert [type(error) for _, error in report.bad] == [BlobCorrupt] * 2
        with pytest.raises(BlobCorrupt, match="restore this blob"):
            await store.read_blob(A, bytearray(PAGE))


async def test_a_compaction_begins_by_itself_and_garbage_goes(bucket):
    async with opened(bucket, compact_after=4, grace=0) as store:
        for number in range(20):
            await store.commit([(A, frame(number))])
            await store._core.keeper.wait_idle()
        assert store.stats().compactions == 5
        assert len(bucket.keys("map/")) == 1
        assert len(bucket.keys("frames/")) < 12
        assert len(bucket.keys("log/")) < 12


# -- the end -----------------------------------------------------------------------------------


async def test_closing_gives_the_lease_back(bucket):
    store = await opened(bucket)
    reader = await opened(bucket, read_only=True)
    assert len(bucket.keys("leases/")) == 2
    await store.write_blob(A, frame(1))
    await asyncio.gather(store.aclose(), store.aclose())
    await reader.aclose()
    assert not bucket.keys("leases/")
    with pytest.raises(StoreClosed):
        await store.refresh()
    async with opened(bucket, read_only=True) as after:
        assert await look(after) == {A: 1}


async def test_a_store_that_is_dropped_warns(bucket):
    store = await opened(bucket)
    task = store._core.lease._task
    with pytest.warns(ResourceWarning, match="unclosed store 'sim://bucket'"):
        del store
        gc.collect()
    await asyncio.wait([task])


async def test_another_loop_and_copies_are_refused(bucket):
    async with opened(bucket) as store:

        def elsewhere():
            with pytest.raises(RuntimeError, match="belongs to the event loop"):
                asyncio.run(store.flush())

        await asyncio.to_thread(elsewhere)
        with pytest.raises(TypeError, match="cannot be copied"):
            pickle.dumps(store)


async def test_a_forked_child_leaves_it_alone(bucket):
    async with opened(bucket) as store:
        store._pid = os.getpid() + 1  # as the child sees it
        with pytest.raises(RuntimeError, match="inherited through fork"):
            await store.flush()
        store._pid = os.getpid()


def test_the_store_for_threads_follows_and_is_fenced(bucket):
    with RemoteBlobStore.open(bucket.client(), page_size=PAGE) as writer:
        with RemoteBlobStore.open(bucket.client(), read_only=True) as reader:
            writer.commit([(A, frame(1))])
            followed = reader.follow(poll=0)
            assert next(followed) == Changes(2, (A,), ())
            followed.close()
            assert not reader.refresh()
            assert (reader.seq, writer.seq, len(reader)) == (2, 2, 1)
            assert reader.path == "sim://bucket"
            writer.compact()
            assert writer.collect() == 0
        with RemoteBlobStore.open(bucket.client()) as other:
            other.commit([(B, frame(1))])
            with pytest.raises(WriterFenced):
                writer.commit([(A, frame(2))])
        writer.close(flush=False)
