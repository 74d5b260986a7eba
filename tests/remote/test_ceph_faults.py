"""A Ceph gateway that is killed, paused for half a minute, and full."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import subprocess
import time
from pathlib import Path

import pytest

from remote.conftest import CEPH, NO_CEPH
from uringblob import BlobGuid, BlobStoreIOError
from uringblob.remote import AsyncRemoteBlobStore

pytestmark = [
    pytest.mark.one_interpreter,
    pytest.mark.ceph,
    pytest.mark.slow,
    pytest.mark.skipif(CEPH is None, reason=NO_CEPH),
    pytest.mark.usefixtures("obstore_here", "credentials"),
]
SCRIPT = Path(__file__).parents[2] / "tools" / "ceph.sh"
PAGE = 1 << 19


def ceph(command, *words):
    subprocess.run([SCRIPT, command, os.environ["URINGBLOB_CEPH_DIR"], *words], check=True, timeout=300)


def frame(number):
    return number.to_bytes(8, "little") * (PAGE // 8)


@pytest.fixture
def url(prefix):
    return f"s3://bucket/{prefix}?endpoint={CEPH}"


@pytest.fixture
def gateway():
    """It is whole again after the test."""
    yield
    with contextlib.suppress(subprocess.CalledProcessError):
        ceph("kill")
    ceph("start")


async def check(url, acknowledged, doubtful):
    """Look from anew: each blob is what was acknowledged last, or what nobody knows the end of."""
    async with AsyncRemoteBlobStore.open(url, read_only=True) as store:
        for guid, number in acknowledged.items():
            room = bytearray(PAGE)
            await store.read_blob(guid, room)
            assert int.from_bytes(room[:8], "little") in {number, *doubtful.get(guid, ())}
        assert (await store.verify()).ok


@pytest.mark.timeout(600)
async def test_a_gateway_killed_under_commits_loses_nothing(url, gateway):
    acknowledged, doubtful = {}, {}
    numbers, enough = itertools.count(1), asyncio.Event()

    async def commit_until_it_fails(store, guid):
        while True:
            number = next(numbers)
            doubtful.setdefault(guid, set()).add(number)
            await asyncio.wait_for(store.commit([(guid, frame(number))]), 120)
            acknowledged[guid], doubtful[guid] = number, set()
            if number % 40 == 0:
                enough.set()

    for _ in range(3):
        enough.clear()
        store = await AsyncRemoteBlobStore.open(f"{url}&timeout=4", page_size=PAGE)
        commits = [
            asyncio.ensure_future(commit_until_it_fails(store, BlobGuid(bytes([n]) * 16))) for n in range(4)
        ]
        await enough.wait()
        await asyncio.to_thread(ceph, "kill")
        for error in await asyncio.gather(*commits, return_exceptions=True):
            assert isinstance(error, BlobStoreIOError), error
            assert "is the server running" in str(error) or "try again" in str(error)
        with contextlib.suppress(BlobStoreIOError):
            await asyncio.wait_for(store.aclose(), 120)
        await asyncio.to_thread(ceph, "start")
        await check(url, acknowledged, doubtful)
    assert len(acknowledged) == 4


@pytest.mark.timeout(600)
async def test_half_a_minutes_pause_ends_in_success_or_in_an_error(url, gateway):
    async with AsyncRemoteBlobStore.open(url, page_size=PAGE) as store:
        await store.commit([(BlobGuid(bytes(16)), frame(1))])
        ceph("pause")
        started = time.monotonic()
        commits = [
            asyncio.ensure_future(store.commit([(BlobGuid(bytes([n]) * 16), frame(n))])) for n in range(1, 9)
        ]
        await asyncio.sleep(30)
        ceph("resume")
        ends = await asyncio.wait_for(asyncio.gather(*commits, return_exceptions=True), 240)
        assert time.monotonic() - started < 240
        for end in ends:
            assert end is None or (isinstance(end, BlobStoreIOError) and "try again" in str(end)), end
        acknowledged = {BlobGuid(bytes([n]) * 16): n for n, end in enumerate(ends, 1) if end is None}
        with contextlib.suppress(BlobStoreIOError):
            await store.flush()
    await check(url, {**acknowledged, BlobGuid(bytes(16)): 1}, {})


@pytest.mark.timeout(600)
async def test_a_full_bucket_refuses_and_goes_on_with_more_room(url):
    async with AsyncRemoteBlobStore.open(url, page_size=PAGE) as store:
        await store.commit([(BlobGuid(bytes(16)), frame(1))])
        ceph("quota", "4096")
        try:
            with pytest.raises(BlobStoreIOError, match="delete blobs, or raise the quota") as caught:
                await asyncio.wait_for(store.commit([(BlobGuid(b"1" * 16), frame(2))]), 120)
            assert caught.value.errno == errno.EDQUOT
            room = bytearray(PAGE)
            await store.read_blob(BlobGuid(bytes(16)), room)
            assert bytes(room) == frame(1)
            assert not await store.has_blob(BlobGuid(b"1" * 16))
        finally:
            ceph("quota", "off")
        await asyncio.wait_for(store.commit([(BlobGuid(b"2" * 16), frame(3))]), 120)
    await check(url, {BlobGuid(bytes(16)): 1, BlobGuid(b"2" * 16): 3}, {})
