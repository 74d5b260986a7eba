"""Two thousand tasks cancelled at random moments: every frame old or new, nothing lost or stuck.

Each lane owns some guids and has one call on its way at a time; after each call it reads its
guids and knows what may be there.
"""

from __future__ import annotations

import asyncio
import random
import sys

import pytest

from behaviour.quiet import quiet_async
from behaviour.stamps import blank, sequence_of, stamped
from uringblob import AsyncFileBlobStore, AsyncMemoryBlobStore, BlobGuid, StoreClosed

LANES = 50
CALLS = 40
OWNED = 3
PATIENCE = 120


def guid(lane, number):
    return BlobGuid(bytes([lane, number]) * 8)


@pytest.fixture(params=["memory", "io_uring", "pread"])
async def store(request, store_path, uring_missing):
    """A store of each kind; a file store with a short queue and a small pool."""
    if request.param == "memory":
        store = AsyncMemoryBlobStore(8192)
    else:
        if request.param == "io_uring" and uring_missing:
            pytest.skip(uring_missing)
        options = {"engine": request.param, "page_size": 8192, "queue_depth": 8, "buffers": 40}
        store = await AsyncFileBlobStore.open(store_path, **options)
        store._core.maintenance.compaction_blocks_min = 16
    async with store:
        yield store
        await check_at_rest(store)


async def check_at_rest(store, held=0):
    await quiet_async(store)
    assert store.stats().buffers_leased == held
    await store.commit([(guid(255, 0), stamped(guid(255, 0), 1, store.page_size))])
    assert (await store.verify()).ok
    await store.flush()
    assert not store.needs_flush()


class Lane:
    """Some guids, and one call after another on them, most of them cancelled."""

    def __init__(self, store, number, seed):
        self.store = store
        self.size = store.page_size
        self.names = [guid(number, n) for n in range(OWNED)]
        self.state = dict.fromkeys(self.names)
        self.sequence = 0
        # A memory store's calls end in their first step.
        self.steps = [0, 1] if store.stats().engine == "memory" else [0, 1, 1, 2, 2, 3, 4, 6, 10]
        self.dice = random.Random(f"{seed}/{number}")
        self.cancelled = 0

    async def run(self):
        kinds = (self.write, self.synced, self.commit, self.delete, self.read, self.reads, self.flush)
        while self.cancelled < CALLS:
            call, after, atomic = self.dice.choice(kinds)()
            done = await self.cancel_somewhere(call)
            await self.look(after, done=done, atomic=atomic)

    async def cancel_somewhere(self, call):
        """Run ``call`` and cancel it, now, soon or later; tell whether it returned first."""
        task = asyncio.ensure_future(call)
        for _ in range(self.dice.choice(self.steps)):
            await asyncio.sleep(0)
        if len(self.steps) > 2 and self.dice.random() < 0.2:
            await asyncio.sleep(self.dice.uniform(0, 0.002))
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            self.cancelled += 1
            return False
        return True

    async def look(self, after, *, done, atomic):
        found = {name: await self.what_is_there(name) for name in self.names}
        if done:
            assert found == after
        elif atomic:
            assert found in (self.state, after)
        else:
            for name in self.names:
                assert found[name] in (self.state[name], after[name])
        self.state = found

    async def what_is_there(self, name):
        if not await self.store.has_blob(name):
            return None
        frame = blank(self.size)
        await self.store.read_blob(name, frame)
        return sequence_of(name, frame)

    # Each returns the call, what is there after it, and whether it is one unit.

    def frames(self, names):
        """Return new frames, half of them in buffers of the pool, which the call alone holds then."""
        self.sequence += 1
        batch = []
        for name in names:
            frame = stamped(name, self.sequence, self.size)
            if self.dice.random() < 0.5:
                buffer = self.store.alloc_blob_buf_uninit()
                buffer.view[:] = frame
                batch.append((name, buffer))
            else:
                batch.append((name, frame))
        return batch, {**self.state, **dict.fromkeys(names, self.sequence)}

    def some(self):
        return self.dice.sample(self.names, self.dice.randrange(1, OWNED + 1))

    def write(self):
        batch, after = self.frames(self.some())
        return self.store.write_blobs(batch), after, False

    def synced(self):
        batch, after = self.frames(self.some())
        return self.store.write_blobs_with_data_sync(batch), after, False

    def commit(self):
        *names, doomed = self.dice.sample(self.names, OWNED)
        batch, after = self.frames(names)
        return self.store.commit(batch, [doomed]), {**after, doomed: None}, True

    def delete(self):
        name = self.dice.choice(self.names)
        return self.store.delete_blob(name), {**self.state, name: None}, True

    def flush(self):
        return self.store.flush(), self.state, True

    def there(self):
        return [name for name in self.names if self.state[name] is not None]

    def read(self):
        names = self.there()
        if not names:
            return self.flush()
        return self.store.read_blob(names[0], self.store.alloc_blob_buf_uninit()), self.state, True

    def reads(self):
        # Odd lanes read into unaligned memory, through bounce frames of the pool.
        skip = self.sequence % 2
        frames = [(name, memoryview(bytearray(self.size + skip))[skip:]) for name in self.there()]
        return self.store.read_blobs(frames), self.state, True


async def test_two_thousand_tasks_cancelled_at_random(store, replay):
    held = [store.alloc_blob_buf_uninit() for _ in range(5)]
    lanes = [Lane(store, number, replay) for number in range(LANES)]
    await asyncio.gather(*(lane.run() for lane in lanes))
    assert sum(lane.cancelled for lane in lanes) >= 2000
    kept = sum("heap" not in repr(buffer) for buffer in held)
    await check_at_rest(store, kept)
    for buffer in held:
        buffer.release()
    for lane in lanes:
        await lane.look(lane.state, done=True, atomic=True)


async def test_cancelled_and_reopened(store_path, engine, replay):
    """What was cancelled is old or new after a reopen, too, and the same as before it."""
    options = {"engine": engine, "page_size": 4096}
    lanes = []
    for flush in (True, False):
        async with AsyncFileBlobStore.open(store_path, **options) as store:
            for lane in lanes:
                lane.store = store
                await lane.look(lane.state, done=True, atomic=True)
            lanes = lanes or [Lane(store, number, replay) for number in range(10)]
            await asyncio.gather(*(lane.run() for lane in lanes))
            await store.flush()
            await store.aclose(flush)
    async with AsyncFileBlobStore.open(store_path, **options) as store:
        for lane in lanes:
            lane.store = store
            await lane.look(lane.state, done=True, atomic=True)
        await check_at_rest(store)


async def test_wait_for(store):
    frames = [(guid(0, n), stamped(guid(0, n), 1, store.page_size)) for n in range(OWNED)]
    for timeout in (0, 1e-9, 1e-4, 1e-3):
        for _ in range(20):
            try:
                await asyncio.wait_for(store.commit(frames), timeout)
            except asyncio.TimeoutError:
                pass
    await asyncio.wait_for(store.commit(frames), PATIENCE)
    lane = Lane(store, 0, "")
    await lane.look(dict.fromkeys(lane.names, 1), done=True, atomic=True)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="n/a: asyncio.timeout is newer than this Python")
async def test_timeout(store):
    frames = [(guid(0, n), stamped(guid(0, n), 1, store.page_size)) for n in range(OWNED)]
    struck = 0
    for turn in range(60):
        try:
            async with asyncio.timeout(turn * 2e-5):
                while True:
                    await store.commit(frames)
                    await store.read_blob(frames[0][0], blank(store.page_size))
                    await asyncio.sleep(0)  # a memory store never waits
        except TimeoutError:
            struck += 1
    assert struck == 60


@pytest.mark.skipif(sys.version_info < (3, 11), reason="n/a: asyncio.TaskGroup is newer than this Python")
async def test_task_group(store):
    """A task that fails takes the others with it; what they had under way is old or new."""
    names = [guid(1, n) for n in range(20)]
    for sequence in range(1, 11):
        with pytest.raises(BaseExceptionGroup) as caught:  # noqa: F821 - a builtin from 3.11 on
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(store.commit([(name, stamped(name, sequence, store.page_size))]))
                group.create_task(store.read_blob(guid(9, 9), blank(store.page_size)))
        assert caught.group_contains(KeyError) if hasattr(caught, "group_contains") else True
        for name in names:
            if await store.has_blob(name):
                frame = blank(store.page_size)
                await store.read_blob(name, frame)
                assert 1 <= sequence_of(name, frame) <= sequence


async def test_cancelling_aclose_does_not_stop_it(store_path, engine):
    """At each of its first steps, with calls under way: closed, unlocked, and nothing lost."""
    names = [guid(2, n) for n in range(8)]
    for steps in range(12):
        store = await AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096, lock_timeout=0)
        calls = [
            asyncio.ensure_future(store.write_blob(name, stamped(name, steps + 1, 4096))) for name in names
        ]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(store.aclose())
        for _ in range(1 + steps):  # cancelled before its first step it would never have begun
            await asyncio.sleep(0)
        closing.cancel()
        closing.cancel()
        await asyncio.wait([closing])
        with pytest.raises(StoreClosed):
            await store.flush()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await store.aclose()
        async with AsyncFileBlobStore.open(store_path, engine=engine, lock_timeout=0) as store:
            lane = Lane(store, 2, "")
            for name, outcome in zip(names, outcomes, strict=True):
                assert outcome is None
                assert await lane.what_is_there(name) == steps + 1
