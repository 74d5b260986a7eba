"""The contract over a bucket: without faults for tasks and threads, and with every fifth request failing."""

from __future__ import annotations

import logging

import pytest

import seeds
from uringblob.remote import AsyncRemoteBlobStore, RemoteBlobStore
from uringblob.testing import CHECKS, SimLoop, check_async_blob_store, check_blob_store
from uringblob.testing.sim.bucket import SimBucket, chance, no_faults

pytestmark = pytest.mark.one_interpreter


class Stores:
    """Makes stores of one kind, each in a bucket of its own, and opens the last one again."""

    def __init__(self, kind, faults=no_faults):
        self.kind, self.faults, self.bucket = kind, faults, None

    def make(self):
        self.bucket = SimBucket(seeds.number())
        return self.kind.open(self.bucket.client(self.faults), page_size=4096)

    def reopen(self):
        return self.kind.open(self.bucket.client(self.faults))


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_for_tasks(check):
    stores = Stores(AsyncRemoteBlobStore)
    await check_async_blob_store(stores.make, reopen=stores.reopen, checks=[check])


def test_for_threads():
    stores = Stores(RemoteBlobStore)
    check_blob_store(stores.make, reopen=stores.reopen)


def test_beside_faults():
    """Each of a task's requests fails at most twice in a row, and is tried three times: nobody notices."""
    logging.getLogger("uringblob").setLevel(logging.ERROR)
    stores = Stores(AsyncRemoteBlobStore, chance(seeds.number(), 0.2))
    SimLoop().run(check_async_blob_store(stores.make, reopen=stores.reopen))
