"""What a hot call costs: Python functions of ours, and calls to the ring.  Counted, never timed.

The gap between a store and a bare program over the ring is the amount of Python, so a call that comes to
the hot path is seen here first.
"""

from __future__ import annotations

import asyncio

import pytest

from call_counts import count_calls
from uringblob import BlobGuid
from uringblob.store.async_store import AsyncFileBlobStore

# Python functions of this package that one call enters; a step of a coroutine counts as one.
READ_CALLS_MAX = 20
COMMIT_CALLS_MAX = 90  # 79, and 5 for each further reaping of its two writes
SHARED_COMMIT_CALLS_MAX = (
    32  # 28, and 2 more where its writes are reaped one by one: the group's own are shared by all of it
)
WRITTEN_FRAME_CALLS_MAX = 30  # 18 to 26, by the runs of slots that a batch falls into
READ_FRAME_CALLS_MAX = 16

# io_uring_enter, of one call.
READ_ENTERS_MAX = 0.25
COMMIT_ENTERS_MAX = 2.5  # two, and what prepares the log's next segment

PAGE = 4096
BATCH = 32
TIMES = 20
ROUNDS = 5


@pytest.fixture
async def store(needs_uring, store_path):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine="io_uring", buffers=64) as store:
        guids = [BlobGuid(n.to_bytes(16, "big")) for n in range(64)]
        await store.commit([(guid, bytes(PAGE)) for guid in guids])
        await store.commit(deletes=guids[BATCH:])
        for _ in range(10):  # the next segment of the log is ready, and slots are free that were written
            await store.commit([(guids[0], bytes(PAGE))])
        yield store


@pytest.fixture
def frames(store):
    return [(BlobGuid(n.to_bytes(16, "big")), store.alloc_blob_buf_zeroed()) for n in range(BATCH)]


async def fewest_calls(make):
    """Return the fewest of some rounds: a completion that comes late costs a reaping of its own."""
    return min([(await count_calls(make, TIMES))[0] for _ in range(ROUNDS)])


async def test_a_read(store, frames):
    python = await fewest_calls(lambda: store.read_blob(*frames[0]))
    assert python <= READ_CALLS_MAX


async def test_a_commit_of_one_frame(store, frames):
    python = await fewest_calls(lambda: store.commit(frames[:1]))
    assert python <= COMMIT_CALLS_MAX


async def test_a_commit_beside_31_others(store, frames):
    async def commit_all():
        await asyncio.gather(*(store.commit([frame]) for frame in frames))

    for _ in range(TIMES):  # until as many slots as they take are free in every round
        await commit_all()
    python = await fewest_calls(commit_all)
    assert python / BATCH <= SHARED_COMMIT_CALLS_MAX


async def test_a_frame_of_a_batch_that_is_written(store, frames):
    python = await fewest_calls(lambda: store.write_blobs(frames))
    assert python / BATCH <= WRITTEN_FRAME_CALLS_MAX


async def test_a_frame_of_a_batch_that_is_read(store, frames):
    python = await fewest_calls(lambda: store.read_blobs(frames))
    assert python / BATCH <= READ_FRAME_CALLS_MAX


async def enters(store, make):
    before = store.stats().ring_enters
    for _ in range(TIMES):
        await make()
    return (store.stats().ring_enters - before) / TIMES


async def test_reads_at_a_depth_of_32_share_their_calls_to_the_ring(store, frames):
    async def read_all():
        await asyncio.gather(*(store.read_blob(guid, frame) for guid, frame in frames))

    entered = await enters(store, read_all)
    assert entered / BATCH <= READ_ENTERS_MAX


async def test_a_commit_is_two_calls_to_the_ring(store, frames):
    entered = await enters(store, lambda: store.commit(frames[:1]))
    assert entered <= COMMIT_ENTERS_MAX
