"""A pending write has one outcome for all that await it, and then no reference to the caller's memory.

Also how the members of a group are acknowledged: a few in each iteration.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import gc
import weakref
from types import SimpleNamespace

import pytest

from uringblob import AsyncFileBlobStore, BlobGuid, BlobStoreIOError, tuning
from uringblob.completion import Completion
from uringblob.store.io.pending_write import PendingWrite
from uringblob.store.log.commit import Commit

PAGE = 4096


class Struck(BaseException):
    """What a signal handler raises."""


@pytest.fixture
async def store(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine, buffers=80) as store:
        yield store


@pytest.fixture
def in_turns(monkeypatch):
    monkeypatch.setattr(tuning, "ACKNOWLEDGED_AT_ONCE", 2)


class Frames:
    """Stands for a caller's memory."""


class Engine:
    """Takes one write, into its sink or by a completion, and keeps the memory until it is answered."""

    def __init__(self, way):
        self.way = way
        self.answer = None

    def start_write(self, _offset, frames, sink):
        if self.way == "by a completion":
            return False
        self.answer = sink
        sink.keep = frames
        return True

    def write(self, _offset, frames):
        self.answer = Completion(loop=asyncio.get_running_loop())
        self.answer.keep = frames
        return self.answer


class Asked:
    """A write of one request, with the frames that it references and the answers that were finished."""

    def __init__(self, store, way, outcome=None):
        self.frames = Frames()
        self.alive = weakref.ref(self.frames)
        self.finished = []

        async def finish(frames, got):
            assert frames is not None
            self.finished.append(got)
            await store._core.file_io.next_tick()
            if outcome is not None:
                raise outcome

        self.file_io = file_io = SimpleNamespace(
            engine=Engine(way), loop=store._core.file_io.loop, start=store._core.file_io.start
        )
        self.write = PendingWrite(file_io, 0, [self.frames], PAGE, finish, self.frames)
        del self.frames

    def answer(self, result):
        self.file_io.engine.answer.complete(result)

    def reject(self, error):
        self.file_io.engine.answer.reject(error)


@pytest.fixture(params=["into its sink", "by a completion"])
def way(request):
    return request.param


async def ended(awaitable):
    await awaitable


async def test_a_whole_write_resumes_all_that_await_it_and_needs_no_job(store, way):
    asked = Asked(store, way)
    waiting = [asyncio.ensure_future(ended(asked.write)) for _ in range(2)]
    await asyncio.sleep(0)
    assert not asked.write.done()
    assert not asked.write.whole
    asked.answer(PAGE)
    assert asked.write.done()
    assert asked.write.whole
    asked.write.finish_short()
    await asyncio.gather(*waiting)
    await asked.write
    assert asked.finished == []
    gc.collect()
    assert asked.alive() is None


@pytest.mark.parametrize("got", [512, 0, -errno.EINTR, -errno.ENOSPC])
async def test_a_short_write_is_finished_once_however_many_await_it(store, way, got):
    asked = Asked(store, way)
    waiting = [asyncio.ensure_future(ended(asked.write)) for _ in range(3)]
    await asyncio.sleep(0)
    asked.answer(got)
    assert not asked.write.whole
    assert not asked.write.done()
    await asyncio.gather(*waiting)
    assert asked.finished == [got]
    assert asked.write.done()
    await asked.write
    assert asked.finished == [got]


async def test_its_error_is_raised_to_all_that_await_it(store, way):
    asked = Asked(store, way, BlobStoreIOError(errno.EIO, "no"))
    waiting = [asyncio.ensure_future(ended(asked.write)) for _ in range(2)]
    await asyncio.sleep(0)
    asked.answer(-errno.EIO)
    errors = await asyncio.gather(*waiting, ended(asked.write), return_exceptions=True)
    assert [type(error) for error in errors] == [BlobStoreIOError] * 3
    assert asked.finished == [-errno.EIO]


async def test_a_short_write_may_be_finished_before_it_is_awaited(store, way):
    asked = Asked(store, way)
    asked.write.finish_short()  # nothing is known yet
    asked.answer(512)
    asked.write.finish_short()
    asked.write.finish_short()
    assert asked.finished == [512]
    await asked.write
    assert asked.finished == [512]
    gc.collect()
    assert asked.alive() is None


async def test_an_answer_that_is_an_error_is_as_one_that_an_interrupt_cut(store, way):
    """No engine does that of its own accord: its answers are numbers.  A lasting fault is raised to all."""
    asked = Asked(store, way, ValueError("the engine's own fault"))
    asked.reject(ValueError("the engine's own fault"))
    assert not asked.write.whole
    asked.write.finish_short()
    for _ in range(2):
        with pytest.raises(ValueError, match="the engine's own fault"):
            await asked.write
    assert asked.finished == [-errno.EINTR]


async def test_whoever_counts_writes_is_called_with_the_write_and_again_if_the_answer_comes_again(store, way):
    """A reaper that a signal handler interrupted starts over."""
    asked, seen = Asked(store, way), []
    asked.write.on_end = seen.append
    asked.answer(PAGE)
    assert seen == [asked.write]
    asked.write.complete(512)
    assert seen == [asked.write] * 2
    assert asked.write.whole, "the first answer counts"
    assert asked.write.keep is None


async def test_a_short_write_whose_finish_could_not_start_is_not_whole(store, way, monkeypatch):
    asked = Asked(store, way)
    asked.answer(512)
    file_io = asked.file_io

    def strike(coroutine):
        coroutine.close()
        raise Struck

    monkeypatch.setattr(file_io, "start", strike)
    with pytest.raises(Struck):
        asked.write.__await__().send(None)
    monkeypatch.undo()
    await asked.write
    assert asked.finished == [512]


async def test_a_commit_among_many_can_release_its_buffer_when_it_returns(store, in_turns):
    """The group goes on to acknowledge the others: it must not reference the first one's frames meanwhile."""
    released = []

    async def committer(number):
        buffer = store.alloc_blob_buf_zeroed()
        await store.commit([(BlobGuid(number.to_bytes(16, "big")), buffer)])
        buffer.release()
        released.append(number)

    for _ in range(3):
        await asyncio.gather(*(committer(n) for n in range(64)))
    assert len(released) == 3 * 64


async def make_room(store):
    """Write and free slots beforehand: a commit that waits for growth comes at another time."""
    rooms = [BlobGuid(bytes([n]) * 16) for n in range(255)]
    await store.commit([(guid, bytes(PAGE)) for guid in rooms])
    await store.commit(deletes=rooms)
    await store.commit([(rooms[0], bytes(PAGE))])


@pytest.mark.parametrize("limit", ["members", "bytes"])
async def test_of_many_committers_few_are_acknowledged_in_one_iteration(store, monkeypatch, limit):
    """So that their next frames reach the device while the others are acknowledged."""
    if limit == "members":
        monkeypatch.setattr(tuning, "ACKNOWLEDGED_AT_ONCE", 4)
    else:
        monkeypatch.setattr(tuning, "ACKNOWLEDGED_BYTES_AT_ONCE", 4 * PAGE)
    await make_room(store)
    resumed, acknowledged = [0], []
    resolve = Commit.resolve

    def noted(commit, _result=None):
        """Count one group's members in an iteration: another's last may be acknowledged in the same."""
        group = store._core.queue._group
        if not acknowledged or acknowledged[-1][0] is not group:
            acknowledged.append((group, collections.Counter()))
        acknowledged[-1][1][len(resumed)] += 1
        resolve(commit)

    monkeypatch.setattr(Commit, "resolve", noted)

    def beat():
        resumed.append(0)
        handles[0] = asyncio.get_running_loop().call_soon(beat)

    async def committer(number):
        buffer = store.alloc_blob_buf_zeroed()
        for _ in range(6):
            await store.commit([(BlobGuid(number.to_bytes(16, "big")), buffer)])
            resumed[-1] += 1

    handles = [asyncio.get_running_loop().call_soon(beat)]
    before = store.stats().log_groups
    await asyncio.gather(*(committer(n) for n in range(64)))
    handles[0].cancel()
    assert sum(resumed) == 6 * 64
    assert store.stats().log_groups - before <= 24  # they did come as a crowd
    # A few found no free slot, and came by a job.
    assert sum(sum(counts.values()) for _, counts in acknowledged) > 5 * 64
    assert max(max(counts.values()) for _, counts in acknowledged) <= 4


async def some_but_not_all_acknowledged(store, count):
    """Begin commits by tasks; return them while some are acknowledged and others are not."""

    async def one(number):
        await store.commit([(BlobGuid(number.to_bytes(16, "big")), bytes(PAGE))])

    tasks = [asyncio.ensure_future(one(n)) for n in range(count)]
    while sum(task.done() for task in tasks) < 3:
        await asyncio.sleep(0)
    assert not all(task.done() for task in tasks)
    return tasks


async def test_a_close_waits_for_those_not_acknowledged_yet(store, in_turns):
    tasks = await some_but_not_all_acknowledged(store, 64)
    await store.aclose()
    await asyncio.sleep(0)
    assert [task.exception() for task in tasks] == [None] * 64


async def test_changes_made_while_some_are_not_acknowledged_yet_are_flushed(store, in_turns):
    tasks = await some_but_not_all_acknowledged(store, 64)
    await store.delete_blob(BlobGuid(bytes(16)))
    await store.write_blob(BlobGuid(bytes(15) + b"\1"), b"x" * PAGE)
    await store.flush()
    assert not store.needs_flush()
    await asyncio.gather(*tasks)
    assert len(await store.list_blobs()) == 63
    got = bytearray(PAGE)
    await store.read_blob(BlobGuid(bytes(15) + b"\1"), got)
    assert got == b"x" * PAGE


# ---- members at fault -------------------------------------------------------------------------


class Answers:
    """Gives writes of frames that begin with ``XX`` another answer."""

    def __init__(self, store, monkeypatch, answer):
        self.engine = store._core.file_io.engine
        self.real, self.real_start = self.engine.write, self.engine.start_write
        self.answer = answer
        self.asked = set()
        self.passing = False
        monkeypatch.setattr(self.engine, "write", self.write)
        monkeypatch.setattr(self.engine, "start_write", self.start_write)

    def start_write(self, offset, frames, sink):
        if self.passing or bytes(frames[0].view[:2]) != b"XX":
            return self.real_start(offset, frames, sink)
        return False  # the other way, which is below

    def write(self, offset, frames):
        self.passing = True
        try:
            written = self.real(offset, frames)
        finally:
            self.passing = False
        if bytes(frames[0].view[:2]) != b"XX":
            return written
        first = offset not in self.asked
        self.asked.add(offset)
        answer = Completion(loop=asyncio.get_running_loop())
        written.add_immediate_callback(lambda _: self.answer(answer, first))
        return answer


async def commit_all(store, contents):
    """Commit each by a task of its own; return what each one raised."""

    async def one(number, content):
        buffer = store.alloc_blob_buf_zeroed()
        buffer.view[:] = content * (PAGE // 2)
        await store.commit([(BlobGuid(number.to_bytes(16, "big")), buffer)])
        buffer.release()

    return await asyncio.gather(*(one(n, c) for n, c in enumerate(contents)), return_exceptions=True)


@pytest.mark.parametrize("bad", [0, 3, 7])
async def test_an_engine_that_answers_with_an_error_costs_that_member_alone(store, monkeypatch, bad):
    """Its group is wiped and written again without it, and the log write was waited for."""
    Answers(store, monkeypatch, lambda answer, _first: answer.reject(ValueError("the engine's own fault")))
    outcomes = await commit_all(store, [b"XX" if n == bad else b"YY" for n in range(8)])
    assert [n for n, outcome in enumerate(outcomes) if outcome is not None] == [bad]
    assert isinstance(outcomes[bad], ValueError)
    assert sorted(await store.list_blobs()) == [n.to_bytes(16, "big") for n in range(8) if n != bad]
    assert (await store.verify()).ok


async def test_what_fell_short_is_finished_together_and_not_one_after_the_other(store, monkeypatch):
    """EAGAIN makes each wait for a while before it is asked for again: meanwhile others wait, too."""
    await make_room(store)
    loop = asyncio.get_running_loop()
    real, waiting = loop.call_later, [0]

    def call_later(delay, callback, *args, **kwargs):
        waiting.append(waiting[-1] + 1)
        return real(delay, callback, *args, **kwargs)

    def again_or_whole(answer, first):
        if not first:
            waiting.append(waiting[-1] - 1)
        answer.resolve(-errno.EAGAIN if first else PAGE)

    Answers(store, monkeypatch, again_or_whole)
    monkeypatch.setattr(loop, "call_later", call_later)
    assert await commit_all(store, [b"XX"] * 16) == [None] * 16
    assert max(waiting) >= 8
