"""Frames on their way: whoever asks hears the same end, and afterwards nobody holds the caller's memory."""

from __future__ import annotations

import asyncio
import errno
import gc
import weakref

import pytest

from uringblob import AsyncFileBlobStore, BlobGuid, BlobStoreIOError
from uringblob.completion import Completion
from uringblob.store import groups
from uringblob.store.landing import Landing

PAGE = 4096


class Struck(BaseException):
    """What a signal handler raises."""


@pytest.fixture
async def store(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine, buffers=80) as store:
        yield store


class Frames:
    """Stands for a caller's memory."""


class Asked:
    """A landing of one request, with the frames that it holds and the jobs that finished it."""

    def __init__(self, store, outcome=None):
        self.frames = Frames()
        self.alive = weakref.ref(self.frames)
        self.answer = Completion(loop=asyncio.get_running_loop())
        self.finished = []

        async def finish(got, frames=self.frames):
            assert frames is not None
            self.finished.append(got)
            await store._core.medium.next_tick()
            if outcome is not None:
                raise outcome

        self.landing = Landing(store._core.medium, self.answer, PAGE, finish)
        del self.frames


async def ended(awaitable):
    await awaitable


async def test_a_whole_write_ends_for_everybody_who_asks_and_needs_no_job(store):
    asked = Asked(store)
    waiting = [asyncio.ensure_future(ended(asked.landing)) for _ in range(2)]
    await asyncio.sleep(0)
    assert not asked.landing.done()
    assert not asked.landing.whole
    asked.answer.finish(PAGE)
    assert asked.landing.done()
    assert asked.landing.whole
    await asyncio.gather(*waiting)
    await asked.landing
    assert asked.finished == []
    gc.collect()
    assert asked.alive() is None


@pytest.mark.parametrize("got", [512, 0, -errno.EINTR, -errno.ENOSPC])
async def test_a_short_one_is_finished_once_however_many_ask(store, got):
    asked = Asked(store)
    waiting = [asyncio.ensure_future(ended(asked.landing)) for _ in range(3)]
    await asyncio.sleep(0)
    asked.answer.finish(got)
    assert not asked.landing.whole
    await asyncio.gather(*waiting)
    assert asked.finished == [got]
    assert asked.landing.done()
    await asked.landing
    assert asked.finished == [got]


async def test_what_it_failed_with_is_raised_to_everybody(store):
    asked = Asked(store, BlobStoreIOError(errno.EIO, "no"))
    waiting = [asyncio.ensure_future(ended(asked.landing)) for _ in range(2)]
    await asyncio.sleep(0)
    asked.answer.finish(-errno.EIO)
    errors = await asyncio.gather(*waiting, ended(asked.landing), return_exceptions=True)
    assert [type(error) for error in errors] == [BlobStoreIOError] * 3
    assert asked.finished == [-errno.EIO]


async def test_one_whose_finish_could_not_begin_is_not_taken_for_whole(store, monkeypatch):
    asked = Asked(store)
    asked.answer.finish(512)
    medium = store._core.medium

    def strike(coroutine):
        coroutine.close()
        raise Struck

    monkeypatch.setattr(medium, "start", strike)
    with pytest.raises(Struck):
        asked.landing.__await__().send(None)
    monkeypatch.undo()
    await asked.landing
    assert asked.finished == [512]


def test_it_says_how_it_stands():
    loop = asyncio.new_event_loop()
    answer = Completion(loop=loop)
    landing = Landing(None, answer, PAGE, None)
    assert repr(landing) == "<Landing of 4096 bytes, under way>"
    answer.finish(PAGE)
    assert repr(landing) == "<Landing of 4096 bytes, done>"
    loop.close()


async def test_a_commit_among_many_can_release_its_buffer_when_it_returns(store):
    """The group goes on to tell the others: it must not hold the first one's frames meanwhile."""
    released = []

    async def committer(number):
        buffer = store.alloc_blob_buf_zeroed()
        await store.commit([(BlobGuid(number.to_bytes(16, "big")), buffer)])
        buffer.release()
        released.append(number)

    for _ in range(3):
        await asyncio.gather(*(committer(n) for n in range(64)))
    assert len(released) == 3 * 64


async def test_of_many_committers_few_hear_of_their_group_in_one_iteration(store):
    """So that their next frames reach the device while the others hear of it."""
    heard = [0]

    def beat():
        heard.append(0)
        handles[0] = asyncio.get_running_loop().call_soon(beat)

    async def committer(number):
        buffer = store.alloc_blob_buf_zeroed()
        for _ in range(6):
            await store.commit([(BlobGuid(number.to_bytes(16, "big")), buffer)])
            heard[-1] += 1

    handles = [asyncio.get_running_loop().call_soon(beat)]
    before = store.stats().log_groups
    await asyncio.gather(*(committer(n) for n in range(64)))
    handles[0].cancel()
    assert sum(heard) == 6 * 64
    assert store.stats().log_groups - before <= 24  # they did come as a crowd
    assert max(heard) <= groups.HEARD_AT_ONCE
