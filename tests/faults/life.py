"""A short life of a real store on a disk of bad luck, and the judgement of what it leaves.

It asks for everything that a store does with its file: batches with and without a flush, commits,
deletions, reads, compaction, growth.  What was acknowledged, refused or left open is written down
in a :class:`uringblob.testing.sim.history.History`, which afterwards judges what a reopened store shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from unittest import mock

from behaviour.work import frame, guid
from faults.calls import faulty_calls
from faults.door import faulty_ring
from uringblob import (
    AsyncFileBlobStore,
    BlobNotFound,
    BlobStoreError,
    BlobStoreIOError,
    EngineUnavailable,
    FileBlobStore,
    StorePoisoned,
)
from uringblob.store.format import BlockType, delete_record
from uringblob.store.index import log_space
from uringblob.testing.sim.history import History

PAGE = 4096
FAULTY = {"io_uring": faulty_ring, "pread": faulty_calls}
#: Log blocks after which the log is compacted: within a life.
COMPACTION_BLOCKS = 2


@contextlib.contextmanager
def small_log():
    """Make log segments four blocks long, so that a short life needs several."""
    with (
        mock.patch.object(log_space, "GRANULE_BYTES", 4 * PAGE),
        mock.patch.object(log_space, "BASE_BYTES", 40 * PAGE),
    ):
        yield


def make_template(path):
    """Make a store with two blobs at ``path``; lives begin with a copy of it."""
    with small_log(), FileBlobStore.open(path, page_size=PAGE, buffers=0) as store:
        store.commit([(guid(n), frame(n, PAGE)) for n in range(2)])


def make_unclean(path):
    """Make what a dying process leaves at ``path``: the same, the last group in doubt, a torn one behind."""
    with small_log(), FileBlobStore.open(path + ".live", page_size=PAGE, buffers=0) as store:
        store.commit([(guid(n), frame(n, PAGE)) for n in range(2)])
        log = store._core._core.log
        store.commit([(guid(0), frame(0, PAGE))])
        offset, block = log.encode_small_group(BlockType.GROUP, log.seq + 1, [delete_record(bytes(guid(1)))])
        shutil.copyfile(path + ".live", path)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(block[:1024])


class Life:
    """One opening of the store at ``path``, up to and including its end."""

    def __init__(self, path, engine, *, days=1):
        self.days = days
        self.path = path
        self.engine = engine
        self.history = History()
        self.errors = []
        self.store = None
        self.poisoned = ""
        self._version = 0

    async def live(self, begun):
        """Open, call ``begun``, do everything, close.

        What opening raises is raised; all later errors are in ``errors``.
        """
        self.history.recovered({guid(n): frame(n, PAGE) for n in range(2)})
        self.store = store = await open_store(self.path, self.engine)
        store._core.maintenance.compaction_blocks_min = COMPACTION_BLOCKS
        begun()
        for day in range(self.days):
            await self.day(day)
        await self.end()

    async def day(self, day):
        """Everything once; the next day does it over slots and segments that were used before."""
        await self.synced([2, 3 + day])
        await self.put([0])
        await asyncio.gather(self.flush(), self.commit([1], [2]), self.put([4]), self.read(0))
        await self.delete(3)
        await self.commit([5, 6 + day], [])

    async def end(self):
        store = self.store
        if store.stats().poisoned:
            assert store.needs_flush()
        await self.flush()
        try:
            await store.aclose()
        except BlobStoreError as error:
            self.failed(error)
        self.poisoned = store.stats().poisoned
        assert store.stats().in_flight == 0
        assert store.stats().buffers_leased == 0

    # --- calls ---------------------------------------------------------------------------

    def contents(self, numbers):
        self._version += 1
        return {guid(n): frame(n, PAGE, self._version) for n in numbers}

    async def put(self, numbers):
        changes = self.contents(numbers)
        await self.change("put", changes, lambda: self.store.write_blobs(changes.items()))

    async def synced(self, numbers):
        changes = self.contents(numbers)
        with self.leased(changes) as frames:
            await self.change("synced", changes, lambda: self.store.write_blobs_with_data_sync(frames))

    @contextlib.contextmanager
    def leased(self, contents):
        """Yield ``contents`` in frames of the store's own, which the engine moves as they lie."""
        with contextlib.ExitStack() as stack:
            frames = []
            for name, content in contents.items():
                buffer = stack.enter_context(self.store.alloc_blob_buf_uninit())
                buffer.view[:] = content
                frames.append((name, buffer))
            yield frames

    async def delete(self, number):
        await self.change("delete", {guid(number): None}, lambda: self.store.delete_blob(guid(number)))

    async def commit(self, numbers, deletes):
        writes = self.contents(numbers)
        changes = {**writes, **{guid(n): None for n in deletes}}
        with self.leased(writes) as frames:
            await self.change(
                "commit",
                changes,
                lambda: self.store.commit(frames, map(guid, deletes)),
                atomic=True,
                durable=True,
            )

    async def change(self, name, changes, do, *, atomic=False, durable=False):
        call = self.history.begin(name, changes, atomic=atomic)
        try:
            await do()
        except StorePoisoned as error:
            self.history.end(call, refused=True)
            self.failed(error)
        except BlobStoreIOError as error:
            if error.applied is False:
                self.history.end(call, refused=True)
            self.failed(error)
        else:
            self.history.end(call, durable=durable)

    async def flush(self):
        began = self.history._tick()
        try:
            await self.store.flush()
        except BlobStoreError as error:
            self.failed(error)
        else:
            self.history.flushed(began)

    async def read(self, number):
        room = bytearray(PAGE)
        began = self.history._tick()
        try:
            await self.store.read_blob(guid(number), room)
        except BlobNotFound:
            self.history.seen(guid(number), None, began)
        except BlobStoreIOError as error:
            self.failed(error, guid(number))
        else:
            self.history.seen(guid(number), bytes(room), began)

    def failed(self, error, name=None):
        assert name is None or error.guid == name
        assert self.path in str(error), f"the error does not name the file: {error}"
        self.errors.append(error.with_traceback(None))  # which holds a bounce frame, as long as it is kept


async def open_store(path, engine, buffers=2):
    return await AsyncFileBlobStore.open(path, engine=engine, buffers=buffers, create=False)


async def read_all(store):
    room = bytearray(PAGE)
    found = {}
    for name in await store.list_blobs():
        await store.read_blob(name, room)
        found[bytes(name)] = bytes(room)
    return found


async def judge(path, engine, known, *, deep):
    """Reopen the store and look at everything; if ``deep`` go on with it, and reopen once more."""
    async with await open_store(path, engine, buffers=0) as store:
        found = await read_all(store)
        History.judge(known, found)
        assert (await store.verify()).ok
        if not deep:
            return
        news = {bytes(guid(n)): frame(n, PAGE, 1000) for n in (1, 40)}
        await store.commit(news.items())
    async with await open_store(path, engine, buffers=0) as store:
        assert await read_all(store) == {**found, **news}


async def live_with(path, template, engine, disk, faults, *, opening=False, days=1, deep=True):
    """Live on ``disk`` with ``faults`` from the opened store on, judge what is left, return the life.

    With ``opening`` they strike while the store is opened, and the life is without any; one that
    could not begin has that error only.
    """
    shutil.copyfile(template, path)
    life = Life(path, engine, days=days)
    first, then = (faults, None) if opening else (None, faults)

    def begun():
        disk.faults = then

    with small_log():
        with FAULTY[engine](disk):
            disk.faults = first
            try:
                await life.live(begun)
            except (BlobStoreIOError, EngineUnavailable) as error:
                assert life.store is None
                life.failed(error)
            disk.faults = None
        disk.restart(path)
        await judge(path, engine, life.history.knowledge(), deep=deep)
    return life
