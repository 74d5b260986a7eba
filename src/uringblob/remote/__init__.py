"""Stores beyond one machine: the trait over objects in a bucket.

::

    async with AsyncRemoteBlobStore.open("s3://bucket/prefix") as store:
        await store.commit([(guid, frame)])

Needs the extra ``uringblob[remote]`` for anything but a ``Bucket`` of your own.
"""

from __future__ import annotations

from uringblob.remote.async_store import AsyncRemoteBlobStore
from uringblob.remote.bucket import Bucket, BucketError, KeyChanged, KeyMissing, KeyTaken, Listed
from uringblob.remote.remote_stats import RemoteStats
from uringblob.remote.sync_store import RemoteBlobStore

__all__ = [
    "AsyncRemoteBlobStore",
    "Bucket",
    "BucketError",
    "KeyChanged",
    "KeyMissing",
    "KeyTaken",
    "Listed",
    "RemoteBlobStore",
    "RemoteStats",
]
