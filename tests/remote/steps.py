"""One machine is struck at one request of its script: it sleeps there while others go on, or the request fails.

Every request is tried, so these find at once what random lives find rarely.
"""

from __future__ import annotations

import asyncio
import functools

import pytest

from remote.lives import (
    ACKNOWLEDGED,
    GRACE_S,
    GUIDS,
    LEASE_S,
    PAGE,
    REFUSED,
    Life,
    Op,
    Run,
    frame,
    look,
    look_at,
)
from uringblob import BlobChanged, BlobGuid, BlobStoreIOError, StoreCorrupt, WriterFenced
from uringblob.remote import AsyncRemoteBlobStore
from uringblob.testing.sim.bucket import BucketFault

OPTIONS = {"page_size": PAGE, "lease": LEASE_S, "grace": GRACE_S, "compact_after": 1000}


class Steps(Life):
    """A life of a few fixed scripts."""

    def __init__(self, list_lag=0):
        super().__init__(0)
        self.bucket._list_lag = list_lag

    def run_script(self, script):
        async def whole():
            await script()
            await self.judge()

        self.loop.run(whole())
        assert not self.loop.complaints, self.loop.complaints

    async def open_writer(self, client):
        store = await AsyncRemoteBlobStore.open(client, **OPTIONS)
        self.runs.append(Run(store._core.history.epoch))
        return store, self.runs[-1]

    async def commit(self, store, run, *chosen):
        self.stamps += 1
        chosen = (*chosen, BlobGuid(bytes([100 + self.stamps]) * 16))  # one that no later commit replaces
        op = Op(dict.fromkeys(chosen, self.stamps))
        run.ops.append(op)
        try:
            await store.commit([(guid, frame(self.stamps)) for guid in chosen])
            op.outcome = ACKNOWLEDGED
        except WriterFenced:
            op.outcome = REFUSED
            self.fence(run)
        except BlobStoreIOError as error:
            op.outcome = op.outcome if error.applied is None else REFUSED

    async def tidy(self, store, pause_s):
        """Compact, and collect until nothing is left to collect."""
        try:
            await store.compact()
            for _ in range(4):
                await asyncio.sleep(pause_s)
                await store.collect()
        except BlobStoreIOError:
            return

    async def work(self, client, pause_s=2 * LEASE_S):
        """A writer's whole script."""
        try:
            store, run = await self.open_writer(client)
        except BlobStoreIOError:
            return
        await self.go_on(store, run, pause_s)
        try:
            await store.aclose()
        except (BlobStoreIOError, WriterFenced):
            return

    async def go_on(self, store, run, pause_s):
        await self.commit(store, run, *GUIDS[:2])
        await self.commit(store, run, GUIDS[0], GUIDS[3])
        await self.tidy(store, pause_s)
        await self.commit(store, run, GUIDS[2])
        await self.commit(store, run, *GUIDS[:3])

    async def read(self, client, *, overslept):
        """A reader's whole script."""
        try:
            store = await AsyncRemoteBlobStore.open(client, read_only=True, lease=LEASE_S, grace=GRACE_S)
        except FileNotFoundError:
            return
        for _ in range(3):
            try:
                self.seen.append(("a reader", await look(store)))
            except BlobChanged:
                assert overslept, "a frame of a reader that was awake is gone"
            await store.refresh()
        await store.aclose()


def at_request(client, number, meanwhile):
    """Have ``client`` send nothing from its request ``number`` on until ``meanwhile`` has run."""
    awake = None

    async def before(request):
        nonlocal awake
        if request.number == number:
            awake = asyncio.Event()
            await meanwhile()
            awake.set()
        elif awake is not None:
            await awake.wait()

    client.before = before
    return client


def failing(number, fault, times):
    """Return faults of request ``number`` and of the next ones of the same method and key, ``times`` in all."""
    struck: list = []

    def decide(request):
        if request.number == number or (struck and request[1:] == struck[0] and len(struck) < times):
            struck.append(request[1:])
            return fault
        return None

    return decide


def requests_of(script):
    """Return how many requests ``script(life, client)`` makes when nothing disturbs it."""
    life = Steps()
    client = life.bucket.client()
    life.run_script(lambda: script(life, client))
    return len(client.sent)


async def as_writer(life, client):
    await life.work(client, GRACE_S)


async def as_reader(life, client):
    store, run = await life.open_writer(life.bucket.client())
    await life.commit(store, run, *GUIDS)
    await life.read(client, overslept=False)
    await store.aclose()


def writer_asleep(number, list_lag=0):
    """A writer sleeps at one request, and another one takes over, compacts and collects."""
    life = Steps(list_lag)
    client = at_request(life.bucket.client(), number, lambda: life.work(life.bucket.client()))
    life.run_script(lambda: life.work(client, GRACE_S))


def opener_asleep(number, commits):
    """An opener sleeps at one request, and the writer before it commits, compacts and collects."""
    life = Steps()

    async def script():
        store, run = await life.open_writer(life.bucket.client())
        await life.commit(store, run, *GUIDS)

        async def meanwhile():
            for _ in range(commits):
                await life.commit(store, run, GUIDS[1])
            await life.tidy(store, 2 * LEASE_S)
            await life.commit(store, run, GUIDS[4])

        await life.work(at_request(life.bucket.client(), number, meanwhile), GRACE_S)
        await store.aclose(flush=False)

    life.run_script(script)


def reader_asleep(number, pause_s, list_lag=0):
    """A reader sleeps at one request, and the writer replaces everything, compacts and collects."""
    life = Steps(list_lag)

    async def script():
        store, run = await life.open_writer(life.bucket.client())
        await life.commit(store, run, *GUIDS)

        async def meanwhile():
            await life.tidy(store, GRACE_S)
            await life.commit(store, run, *GUIDS)
            await life.commit(store, run, GUIDS[0])
            await life.tidy(store, pause_s)

        client = at_request(life.bucket.client(), number, meanwhile)
        await life.read(client, overslept=pause_s > LEASE_S / 2)
        await store.aclose(flush=False)

    life.run_script(script)


def map_replaced(number):
    """A reader sleeps at one request of its opening, and the map that ``head`` named is replaced twice."""
    life = Steps()

    async def script():
        store, run = await life.open_writer(life.bucket.client())
        await life.commit(store, run, *GUIDS)
        await life.tidy(store, GRACE_S)
        await life.commit(store, run, GUIDS[0])

        async def meanwhile():
            for _ in range(2):
                await life.commit(store, run, GUIDS[1])
                await life.tidy(store, GRACE_S)

        await life.read(at_request(life.bucket.client(), number, meanwhile), overslept=False)
        await life.commit(store, run, GUIDS[2])
        await store.aclose()

    life.run_script(script)


def request_fails(number, fault, times=1):
    """A request of a writer fails in some way; where it dies, the next one takes over."""
    life = Steps()

    async def script():
        await life.work(life.bucket.client(failing(number, fault, times)), GRACE_S)
        await life.work(life.bucket.client())

    life.run_script(script)


def snapshot_kept(*, of_reader):
    """A snapshot outlasts compactions and collections, for as long as it is open and its store awake."""
    life = Steps()

    async def script():
        store, run = await life.open_writer(life.bucket.client())
        await life.commit(store, run, *GUIDS)
        reader = await AsyncRemoteBlobStore.open(
            life.bucket.client(), read_only=True, lease=LEASE_S, grace=GRACE_S
        )
        snapshot = await (reader if of_reader else store).snapshot()
        then = await look_at(snapshot)
        for _ in range(2):
            await life.commit(store, run, *GUIDS)
            await reader.refresh()
            await life.tidy(store, LEASE_S)
            assert await look_at(snapshot) == then
            life.seen.append(("a reader", await look(reader)))
        for each in (snapshot, reader, store):
            await each.aclose()

    life.run_script(script)


def lying_bucket():
    """Two writers on a bucket that overwrites what it should refuse: damaged, and said so, never a mixture."""
    life = Steps()
    life.bucket._lies = frozenset({"create"})

    async def script():
        one, run = await life.open_writer(life.bucket.client())
        two, other = await life.open_writer(life.bucket.client())
        for _ in range(2):
            await life.commit(one, run, GUIDS[0])
            await life.commit(two, other, GUIDS[1])
        with pytest.raises(StoreCorrupt, match="does not continue the group before it"):
            await AsyncRemoteBlobStore.open(life.bucket.client(), read_only=True)
        for store in (one, two):
            await store.aclose(flush=False)

    life.loop.run(script())


FAULTS = [
    *((fault, times) for fault in BucketFault if fault.name[:5] != "DEATH" for times in (1, 3)),
    (BucketFault.DEATH, 1),
    (BucketFault.DEATH_AFTER, 1),
]
WRITER_REQUESTS, READER_REQUESTS, OPENING_REQUESTS = 56, 32, 8


def writers_asleep():
    """Yield each step of :func:`writer_asleep`, as a name and a call."""
    for number in range(WRITER_REQUESTS):
        yield f"writer asleep at {number}", functools.partial(writer_asleep, number)


def openers_asleep():
    """Do the same for :func:`opener_asleep`."""
    for number in range(WRITER_REQUESTS):
        for commits in (0, 1, 3):
            name = f"opener asleep at {number}, {commits} commits"
            yield name, functools.partial(opener_asleep, number, commits)


def requests_failing(faults=FAULTS):
    """Do the same for :func:`request_fails`."""
    for number in range(WRITER_REQUESTS):
        for fault, times in faults:
            name = f"request {number}: {fault.name} {times} times"
            yield name, functools.partial(request_fails, number, fault, times)


def readers_asleep():
    """Do the same for :func:`reader_asleep`."""
    for number in range(READER_REQUESTS):
        for pause_s in (GRACE_S, 2 * LEASE_S):
            for lag in (0, 3):
                name = f"reader asleep at {number} for {pause_s} s, lag {lag}"
                yield name, functools.partial(reader_asleep, number, pause_s, lag)


def maps_replaced():
    """Do the same for :func:`map_replaced`."""
    for number in range(OPENING_REQUESTS):
        yield f"map replaced at {number}", functools.partial(map_replaced, number)


def alone():
    """Yield the scripts that have one step."""
    yield "a writer's snapshot", functools.partial(snapshot_kept, of_reader=False)
    yield "a reader's snapshot", functools.partial(snapshot_kept, of_reader=True)
    yield "lying bucket", lying_bucket


def every_step():
    """Yield a name and a call for each step of each script."""
    for steps in (alone, maps_replaced, writers_asleep, readers_asleep, openers_asleep, requests_failing):
        yield from steps()
