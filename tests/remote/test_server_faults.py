"""A real server that is cut off, paused, killed: nothing acknowledged is lost, nothing hangs, errors say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import time

import pytest

import seeds
from remote import servers
from uringblob import BlobGuid, BlobStoreIOError
from uringblob.remote import AsyncRemoteBlobStore, RemoteBlobStore

pytestmark = pytest.mark.one_interpreter
PAGE = 4096
GUIDS = [BlobGuid(bytes([number]) * 16) for number in range(8)]


def frame(number):
    return bytes([number]) * PAGE


async def contents(store):
    room, found = bytearray(PAGE), {}
    for guid in await store.list_blobs():
        await store.read_blob(guid, room)
        found[guid] = bytes(room)
    return found


async def count_requests(proxy, work):
    before = proxy.requests
    await work
    return proxy.requests - before


@pytest.mark.parametrize("action", ["cut", "lose"])
async def test_each_request_of_a_life_is_broken_once(s3_port, moto, prefix, action):
    """Opening, committing, deleting, compacting: the client tries again, and who made what is compared."""
    async with servers.Proxy(s3_port) as proxy:

        async def live(number):
            url = f"s3://bucket/{prefix}/{number}?endpoint={proxy.endpoint}&timeout=10"
            async with AsyncRemoteBlobStore.open(url, page_size=PAGE) as store:
                await store.commit([(GUIDS[0], frame(1)), (GUIDS[1], frame(2))])
                await store.write_blob(GUIDS[2], frame(3))
                await store.commit([(GUIDS[0], frame(4))], deletes=[GUIDS[1]])
                await store.compact()
            direct = f"s3://bucket/{prefix}/{number}?endpoint=http://127.0.0.1:{s3_port}"
            async with AsyncRemoteBlobStore.open(direct, read_only=True) as store:
                assert await contents(store) == {GUIDS[0]: frame(4), GUIDS[2]: frame(3)}

        number = await count_requests(proxy, live("whole"))
        # Moto is slow, and CI's time short: every fourth request, others with each commit.
        step = 4 if s3_port == moto.port else 1
        for broken in range(seeds.number() % step, number, step):
            proxy.plan = {proxy.requests + broken: action}
            await live(broken)
        assert number > 20


async def test_what_is_acknowledged_while_connections_break_is_there(moto, prefix, monkeypatch):
    """Every second request breaks; a commit that fails says so, and may be there or not."""
    monkeypatch.setattr("uringblob.remote.obstore_bucket._RETRIES_MAX", 0)
    dice = random.Random(seeds.first())
    acknowledged, doubtful = {}, {}
    async with servers.Proxy(moto.port) as proxy:
        url = f"s3://bucket/{prefix}?endpoint={proxy.endpoint}"
        async with AsyncRemoteBlobStore.open(url, page_size=PAGE) as store:
            first = proxy.requests
            proxy.plan = {n: dice.choice(["cut", "lose", "", ""]) for n in range(first, first + 10_000)}
            for number in range(12):
                guid = GUIDS[number % 4]
                try:
                    await store.commit([(guid, frame(number))])
                    acknowledged[guid], doubtful[guid] = frame(number), set()
                except BlobStoreIOError:
                    doubtful.setdefault(guid, set()).add(frame(number))
            proxy.plan = {}
    async with AsyncRemoteBlobStore.open(
        f"s3://bucket/{prefix}?endpoint={moto.endpoint}", read_only=True
    ) as store:
        found = await contents(store)
    for guid, content in acknowledged.items():
        assert found[guid] == content or found[guid] in doubtful[guid]
    assert acknowledged


@pytest.fixture
def own_moto(credentials, obstore_here):
    """One that may be paused and killed."""
    server = servers.Moto()
    yield server
    server.kill()


async def expect_error(call, *numbers):
    started = time.monotonic()
    with pytest.raises(BlobStoreIOError) as caught:
        await asyncio.wait_for(call, 60)
    assert caught.value.errno in numbers, caught.value
    assert "try again" in str(caught.value) or "is the server running" in str(caught.value)
    assert "s3://bucket" in str(caught.value)
    assert time.monotonic() - started < 50


async def test_a_paused_server_is_an_error_and_then_goes_on(own_moto):
    url = f"s3://bucket/p?endpoint={own_moto.endpoint}&timeout=2"
    async with AsyncRemoteBlobStore.open(url, page_size=PAGE) as store:
        await store.commit([(GUIDS[0], frame(1))])
        own_moto.pause()
        room = bytearray(PAGE)
        await asyncio.gather(
            expect_error(store.read_blob(GUIDS[0], room), errno.ETIMEDOUT),
            expect_error(store.commit([(GUIDS[1], frame(2))]), errno.ETIMEDOUT),
        )
        own_moto.resume()
        await store.read_blob(GUIDS[0], room)
        assert bytes(room) == frame(1)
        with contextlib.suppress(BlobStoreIOError):
            await store.flush()
    # Who cannot know what became of its last group opens the store again.
    async with AsyncRemoteBlobStore.open(url) as store:
        await store.commit([(GUIDS[2], frame(3))])
        found = await contents(store)
    assert found.pop(GUIDS[1], frame(2)) == frame(2)
    assert found == {GUIDS[0]: frame(1), GUIDS[2]: frame(3)}


async def test_a_short_pause_is_waited_for(own_moto):
    url = f"s3://bucket/p?endpoint={own_moto.endpoint}&timeout=30"
    async with AsyncRemoteBlobStore.open(url, page_size=PAGE) as store:
        own_moto.pause()
        commit = asyncio.ensure_future(store.commit([(GUIDS[0], frame(1))]))
        await asyncio.wait([commit], timeout=0.3)
        assert not commit.done()
        own_moto.resume()
        await commit
        assert await contents(store) == {GUIDS[0]: frame(1)}


async def test_a_killed_server_is_an_error_and_closing_ends(own_moto):
    url = f"s3://bucket/p?endpoint={own_moto.endpoint}&timeout=2"
    store = await AsyncRemoteBlobStore.open(url, page_size=PAGE)
    await store.commit([(GUIDS[0], frame(1))])
    own_moto.kill()
    lost = (errno.ECONNREFUSED, errno.ECONNRESET)
    await asyncio.gather(
        expect_error(store.commit([(GUIDS[1], frame(2))]), *lost),
        expect_error(store.read_blob(GUIDS[0], bytearray(PAGE)), *lost),
    )
    with contextlib.suppress(BlobStoreIOError):
        await asyncio.wait_for(store.aclose(), 60)
    await store.aclose()
    with pytest.raises(BlobStoreIOError, match="is the server running, and the endpoint right"):
        await AsyncRemoteBlobStore.open(url)


def test_a_thread_gets_the_same_errors(moto):
    with pytest.raises(BlobStoreIOError, match=r"s3://nowhere/p: .*make the bucket first") as caught:
        RemoteBlobStore.open(f"s3://nowhere/p?endpoint={moto.endpoint}", page_size=PAGE)
    assert (caught.value.errno, caught.value.applied) == (errno.ENOENT, False)
