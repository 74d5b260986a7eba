"""One machine is struck at one request of its script: it sleeps there while others go on, or the request fails.

Every request is tried, so these find at once what random lives find rarely.
"""

from __future__ import annotations

import asyncio

from lives import ACKNOWLEDGED, GRACE_S, GUIDS, LEASE_S, PAGE, REFUSED, Life, Op, Run, frame, look
from uringblob import BlobChanged, BlobStoreIOError, WriterFenced
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
        op = Op(dict.fromkeys(chosen, self.stamps))
        run.ops.append(op)
        try:
            await store.commit([(guid, frame(self.stamps)) for guid in chosen])
            op.outcome = ACKNOWLEDGED
        except WriterFenced:
            op.outcome, run.fenced = REFUSED, True
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
    """Have ``client`` wait before its request ``number`` until ``meanwhile`` has run."""

    async def before(request):
        if request.number == number:
            await meanwhile()

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


def request_fails(number, fault, times=1):
    """A request of a writer fails in some way; where it dies, the next one takes over."""
    life = Steps()

    async def script():
        await life.work(life.bucket.client(failing(number, fault, times)), GRACE_S)
        await life.work(life.bucket.client())

    life.run_script(script)


FAULTS = [
    *((fault, times) for fault in BucketFault if fault.name[:5] != "DEATH" for times in (1, 3)),
    (BucketFault.DEATH, 1),
    (BucketFault.DEATH_AFTER, 1),
]
WRITER_REQUESTS, READER_REQUESTS = 60, 24


def every_step():
    """Yield a name and a call for each step of each script."""
    for number in range(WRITER_REQUESTS):
        yield f"writer asleep at {number}", lambda number=number: writer_asleep(number)
        for commits in (0, 1, 3):
            yield (
                f"opener asleep at {number}, {commits} commits",
                lambda number=number, commits=commits: opener_asleep(number, commits),
            )
        for fault, times in FAULTS:
            yield (
                f"request {number}: {fault.name} {times} times",
                lambda number=number, fault=fault, times=times: request_fails(number, fault, times),
            )
    for number in range(READER_REQUESTS):
        for pause_s in (GRACE_S, 2 * LEASE_S):
            for lag in (0, 3):
                yield (
                    f"reader asleep at {number} for {pause_s} s, lag {lag}",
                    lambda number=number, pause_s=pause_s, lag=lag: reader_asleep(number, pause_s, lag),
                )
