"""A tier before real servers: the contract, and servers that are away, paused, or taken over by another process."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from remote import servers
from remote.tiers import Commits, contents, open_tier
from uringblob import BlobStoreIOError, WriterFenced
from uringblob.testing import CHECKS, check_async_blob_store

pytestmark = pytest.mark.one_interpreter
PAGE = 4096
FRAMES_MAX = 40  #: the largest batch of the conformance suite
#: For moto, which is slow: what goes through to the bucket, and comes back from it.
FEW = (
    "write_then_read delete commit if_absent writes_survive deletes_survive metadata_is_durable snapshot_stays read_many"
).split()


async def test_the_contract(s3_port, moto, prefix, disk_dir):
    """On a small tier: frames are evicted and fetched all the while.  ``has_many`` counts reads, and uploads read."""
    numbers, now = itertools.count(), {}

    async def reopen():
        local, url = now["place"]
        return await open_tier(local, url, PAGE, max_local_bytes=FRAMES_MAX * PAGE)

    async def make():
        number = next(numbers)
        url = f"s3://bucket/{prefix}/{number}?endpoint=http://127.0.0.1:{s3_port}"
        now["place"] = disk_dir / f"store-{number}", url
        return await reopen()

    checks = [check for check in CHECKS if check.name != "has_many"]
    if s3_port == moto.port:
        checks = [check for check in checks if check.name in FEW]
    report = await check_async_blob_store(make, reopen=reopen, checks=checks)
    assert len(report.passed) + len(report.not_asked) == len(checks) >= len(FEW), report


@pytest.mark.parametrize("action", ["cut", "lose"])
async def test_a_server_that_is_away_for_a_while(s3_port, moto, prefix, disk_dir, action, monkeypatch):
    """Every connection breaks: commits go on locally, and the upload goes on when it is back."""
    monkeypatch.setattr("uringblob.remote.obstore_bucket._RETRIES_MAX", 0)
    commits = Commits(PAGE)
    direct = f"s3://bucket/{prefix}?endpoint=http://127.0.0.1:{s3_port}"
    async with servers.Proxy(s3_port) as proxy:
        url = f"s3://bucket/{prefix}?endpoint={proxy.endpoint}&timeout=10"
        async with await open_tier(disk_dir / "one", url, PAGE) as tier:
            await commits.make(tier, 3)
            await commits.until_uploaded(tier, direct)
            proxy.plan = dict.fromkeys(range(proxy.requests, proxy.requests + 10_000), action)
            await commits.make(tier, 3)
            with pytest.raises(BlobStoreIOError):
                await asyncio.wait_for(tier.durable_remotely(), 60)
            await commits.make(tier, 3)
            await commits.judge(direct)
            assert await contents(tier) == commits.now
            proxy.plan = {}
            await commits.until_uploaded(tier, direct)


async def test_a_server_that_pauses_under_an_upload(moto, prefix, disk_dir):
    commits = Commits(PAGE)
    url = f"s3://bucket/{prefix}?endpoint={moto.endpoint}&timeout=10"
    async with await open_tier(disk_dir / "one", url, PAGE) as tier:
        await commits.make(tier, 3)
        moto.pause()
        try:
            await commits.make(tier, 3)
            waiting = asyncio.ensure_future(tier.durable_remotely())
            await asyncio.wait([waiting], timeout=0.5)
            assert not waiting.done()
        finally:
            moto.resume()
        await asyncio.wait_for(waiting, 60)
        await commits.until_uploaded(tier, url)


async def test_another_process_takes_over(s3_port, moto, prefix, disk_dir):
    commits = Commits(PAGE)
    url = f"s3://bucket/{prefix}?endpoint=http://127.0.0.1:{s3_port}"
    async with await open_tier(disk_dir / "one", url, PAGE) as one:
        await commits.make(one, 7)
        await commits.until_uploaded(one, url)
        await commits.taken_over_by_another_process(disk_dir / "two", url)
        await commits.make(one)  # durable here alone
        with pytest.raises(WriterFenced, match="took this store over"):
            await one.durable_remotely()
        with pytest.raises(WriterFenced):
            await commits.make(one)
        commits.states.pop()
        assert await contents(one) == commits.now
