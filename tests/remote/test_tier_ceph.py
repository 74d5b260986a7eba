"""A tier before a Ceph gateway that is killed, paused for half a minute, and full."""

from __future__ import annotations

import asyncio

import pytest

from remote.conftest import CEPH, NO_CEPH
from remote.test_ceph_faults import PAGE, ceph, gateway, url  # noqa: F401 - two are fixtures
from remote.tiers import Commits, contents, open_tier, until_it_works
from uringblob import BlobStoreIOError

pytestmark = [
    pytest.mark.one_interpreter,
    pytest.mark.ceph,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CEPH is None, reason=NO_CEPH),
    pytest.mark.usefixtures("obstore_here", "credentials"),
]


async def test_a_gateway_killed_under_uploads_loses_nothing(url, gateway, disk_dir):  # noqa: F811
    """Three times, at any moment of an upload; commits go on all the while."""
    commits = Commits(PAGE)
    async with await open_tier(disk_dir / "one", f"{url}&timeout=20", PAGE) as tier:
        for _ in range(3):
            before = tier.tier_stats().uploads
            while tier.tier_stats().uploads < before + 3:
                await commits.make(tier)
                await asyncio.sleep(0)
            killed = asyncio.ensure_future(asyncio.to_thread(ceph, "kill"))
            while not killed.done():
                await commits.make(tier)
                await asyncio.sleep(0.01)
            await killed
            await commits.make(tier, 5)
            with pytest.raises(BlobStoreIOError):
                await asyncio.wait_for(tier.durable_remotely(), 120)
            assert await contents(tier) == commits.now
            await asyncio.to_thread(ceph, "start")
            await commits.judge(url)
            await commits.until_uploaded(tier, url)


async def test_half_a_minutes_pause(url, gateway, disk_dir):  # noqa: F811
    commits = Commits(PAGE)
    async with await open_tier(disk_dir / "one", url, PAGE) as tier:
        await commits.make(tier, 3)
        ceph("pause")
        await commits.make(tier, 10)
        waiting = asyncio.ensure_future(tier.durable_remotely())
        await asyncio.sleep(30)
        await commits.make(tier, 3)
        assert await contents(tier) == commits.now
        ceph("resume")
        error = (await asyncio.wait_for(asyncio.gather(waiting, return_exceptions=True), 240))[0]
        assert error is None or isinstance(error, BlobStoreIOError), error
        await commits.until_uploaded(tier, url)


async def test_a_full_bucket(url, disk_dir):  # noqa: F811
    """Commits go on here, closing does not hang, and the next opening uploads what the bucket had no room for."""
    commits = Commits(PAGE)
    tier = await open_tier(disk_dir / "one", url, PAGE)
    await commits.make(tier, 3)
    await commits.until_uploaded(tier, url)
    ceph("quota", "4096")
    try:
        await commits.make(tier, 5)
        with pytest.raises(BlobStoreIOError, match="raise the quota"):
            await asyncio.wait_for(tier.durable_remotely(), 120)
        await commits.judge(url)
        await asyncio.wait_for(tier.aclose(), 120)
    finally:
        ceph("quota", "off")
    # The gateway goes on refusing for a while.
    async with await until_it_works(lambda: open_tier(disk_dir / "one", url, PAGE)) as tier:
        assert await contents(tier) == commits.now
        await commits.until_uploaded(tier, url)
