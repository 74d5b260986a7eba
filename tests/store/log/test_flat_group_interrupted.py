"""A signal handler that raises at any line of a group by callbacks, or an allocation that fails there.

Every commit ends, and so does the close.  The store is poisoned, or it goes on; what was acknowledged is there
after the next opening, and what was refused is there wholly or not at all.
"""

from __future__ import annotations

import asyncio
import os

import pytest

import seeds
from behaviour.work import frame, guid
from striking import Handler
from uringblob import AsyncFileBlobStore, BlobStoreError
from uringblob.store.index import blob_index
from uringblob.store.io import job, pending_write
from uringblob.store.log import commit, flat_group, group, group_commit

PAGE = 4096
PATIENCE = 10  # seconds until a call that does not end fails the test
TASKS, ROUNDS = 3, 2
#: Each run strikes other lines.
STEP = 11

#: A group by callbacks, from the first member's joining to the last one's end.  (Between two lines of a wait's
#: hand-over no handler can run.)
GROUPS = {module.__file__ for module in (flat_group, group_commit, commit, group)}
#: What takes its results.
SINKS = {module.__file__ for module in (flat_group, commit, pending_write)}


class Struck(BaseException):
    """What the tests' signal handlers raise."""


async def in_time(call):
    """Await ``call``, which ``wait_for`` could not cancel."""
    task = asyncio.ensure_future(call)
    _, left = await asyncio.wait([task], timeout=PATIENCE)
    assert not left, f"{call!r} does not end"
    await task


class Life:
    """A few tasks that commit, on a store in which a handler strikes once."""

    def __init__(self, path, engine, handler):
        self.path, self.engine, self.handler = path, engine, handler
        self.acknowledged = {}
        self.tried = {}
        self.errors = []
        self.poisoned = False

    async def run(self):
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        with self.handler.pause():
            store = await AsyncFileBlobStore.open(self.path, engine=self.engine, page_size=PAGE)
        tasks = [asyncio.ensure_future(self.commits(store, number)) for number in range(TASKS)]
        _, left = await asyncio.wait(tasks, timeout=PATIENCE)
        with self.handler.pause():
            assert not left, f"{len(left)} of {TASKS} callers wait for ever"
            await self.look_and_close(store)

    async def commits(self, store, number):
        for turn in range(ROUNDS):
            name, content = guid(number), frame(number, PAGE, turn)
            with self.handler.pause():
                buffer = store.alloc_blob_buf_uninit()  # one that the engine moves as it lies
                buffer.view[:] = content
            self.tried.setdefault(number, []).append(content)
            try:
                await store.commit([(name, buffer), (guid(100 + number), buffer)])
            except (Struck, MemoryError, RuntimeError, BlobStoreError) as error:
                self.errors.append(error)
            else:
                self.acknowledged[number] = content

    async def look_and_close(self, store):
        core = store._core
        self.exclusive = core.groups.active.exclusive
        self.poisoned = core.file_io.poison_cause is not None
        if not self.poisoned:
            await in_time(store.commit([(guid(50), frame(50, PAGE))]))
            self.acknowledged[50] = frame(50, PAGE)
        room = bytearray(PAGE)
        for number, content in self.acknowledged.items():
            await store.read_blob(guid(number), room)
            assert room in (content, *self.tried.get(number, ())), f"blob {number} is another one's"
        try:
            await in_time(store.aclose())
        except BlobStoreError:
            assert self.poisoned

    async def judge(self):
        async with AsyncFileBlobStore.open(self.path, engine="pread") as store:
            assert (await store.verify()).ok
            for number in range(TASKS):
                got = []
                for name in (guid(number), guid(100 + number)):
                    room = bytearray(PAGE)
                    if await store.has_blob(name):
                        await store.read_blob(name, room)
                    got.append(bytes(room))
                assert got[0] == got[1], "half of a commit"
                tried = self.tried.get(number, [])
                newest = tried.index(self.acknowledged[number]) if number in self.acknowledged else -1
                allowed = tried[max(newest, 0) :] + ([bytes(PAGE)] if newest < 0 else [])
                assert got[0] in allowed, f"blob {number} is not what was acknowledged"


def run(coroutine):
    """Run it as ``asyncio.run`` does, which would wait for callers that wait for ever."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(coroutine)
    finally:
        loop.close()


def strike_at(path, engine, files, line, kind, only=None):
    def strike():
        raise kind("struck")

    handler = Handler(files, strike, only)
    life = Life(path, engine, handler)
    struck = handler.at(line, lambda: run(life.run()))
    run(life.judge())
    os.unlink(path)
    return struck, life


def strike_everywhere(path, engine, files, kind):
    """Strike each line of ``files`` once, in a life of its own; return how many, and how often it poisoned."""
    line, poisoned = seeds.first() % STEP, 0
    struck = True
    while struck:
        try:
            struck, life = strike_at(path, engine, files, line, kind)
        except Exception as error:
            raise AssertionError(f"{error!r}\nreplay: {engine=} {line=} {kind.__name__}") from error
        line += STEP
        poisoned += life.poisoned
    return line, poisoned


@pytest.mark.untraced("it has a tracer of its own")
def test_every_commit_ends_when_a_handler_raises(store_path, engine):
    """Twelve of a hundred lines left callers, or the close, waiting for ever."""
    lines, poisoned = strike_everywhere(store_path, engine, GROUPS, Struck)
    assert lines > 200
    assert poisoned


@pytest.mark.untraced("it has a tracer of its own")
def test_every_commit_ends_where_there_is_no_memory(store_path, engine):
    lines, _ = strike_everywhere(store_path, engine, SINKS, MemoryError)
    assert lines > 100


@pytest.mark.untraced("it has a tracer of its own")
def test_a_group_that_could_not_be_merged_is_not_acknowledged(store_path, engine):
    """It had no change yet, and was taken for an empty group that needs no write."""
    line, struck = 0, True
    while struck:
        struck, life = strike_at(
            store_path, engine, {blob_index.__file__}, line, MemoryError, only="begin_commits"
        )
        assert bool(life.errors) is struck
        line += 1
    assert line > 10


async def test_the_log_is_let_go_of_when_a_handler_raises_there(store_path, engine, monkeypatch):
    """The group kept it: what waits for the log would wait for ever."""
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    store = await AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE)
    exclusive, real, struck = store._core.groups.active.exclusive, job.Lock.release, []

    def release(lock):
        if lock is exclusive and not struck:
            struck.append(lock)
            raise Struck
        real(lock)

    with store.alloc_blob_buf_uninit() as buffer:
        await store.commit([(guid(0), buffer)])  # by a coroutine: the file grows
        monkeypatch.setattr(job.Lock, "release", release)
        await asyncio.wait([asyncio.ensure_future(store.commit([(guid(0), buffer)]))], timeout=PATIENCE)
    assert struck
    assert not exclusive.locked()
    await store.aclose(flush=False)


def test_only_who_holds_the_log_lets_go_of_it():
    lock, holder, other = job.Lock(), object(), object()
    assert lock.try_acquire(holder)
    assert not lock.try_acquire(other)
    lock.release_from(other)
    assert lock.locked()
    for _ in range(2):
        lock.release_from(holder)
    assert not lock.locked()
