"""A file store as the tier of a remote one: reads at the speed of the disk, commits that outlive the machine.

::

    local = await AsyncFileBlobStore.open("/var/cache/frames.blob")
    remote = await AsyncRemoteBlobStore.open("s3://bucket/prefix")
    async with AsyncTieredBlobStore(local, remote, max_local_bytes=100 << 30) as store:
        await store.commit([(guid, frame)])  # durable on this disk
        await store.durable_remotely()  # and in the bucket
"""

from __future__ import annotations

from uringblob.tiered.async_tiered import AsyncTieredBlobStore
from uringblob.tiered.sync_tiered import TieredBlobStore
from uringblob.tiered.tier_stats import TierStats

__all__ = ["AsyncTieredBlobStore", "TierStats", "TieredBlobStore"]
