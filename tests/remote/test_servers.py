"""The whole contract over real servers: obstore's memory store, moto, and Ceph where there is a gateway."""

from __future__ import annotations

import itertools

import pytest

from uringblob.remote import AsyncRemoteBlobStore, RemoteBlobStore
from uringblob.testing import CHECKS, check_async_blob_store, check_blob_store

pytestmark = pytest.mark.one_interpreter
PAGE = 4096
#: Checks of many tasks and sizes, which take hundreds of requests: for servers that are quicker than moto.
MANY_REQUESTS = (
    "commit_is_visible_at_once all_at_once batches_of_many_sizes created_once one_winner counted_once "
    "every_kind_of_guid no_mix cancelled_calls"
).split()


class Places:
    """Makes stores one beside the other, and opens the last one again."""

    def __init__(self, server_url):
        self._url, self._options = server_url, ""
        if server_url == "memory://":
            from obstore.store import MemoryStore

            self._url = MemoryStore()
        self._number = itertools.count()

    def make(self, kind):
        self._prefix = f"store-{next(self._number)}"
        return kind.open(self._url, prefix=self._prefix, page_size=PAGE)

    def reopen(self, kind):
        return kind.open(self._url, prefix=self._prefix, create=False)


async def test_the_contract_for_tasks(server_url, request):
    places = Places(server_url)
    checks = [check for check in CHECKS if "moto" not in request.node.name or check.name not in MANY_REQUESTS]
    report = await check_async_blob_store(
        lambda: places.make(AsyncRemoteBlobStore),
        reopen=lambda: places.reopen(AsyncRemoteBlobStore),
        checks=checks,
    )
    assert len(report.passed) > 50, report


def test_the_contract_for_threads(server_url, request):
    if "moto" in request.node.name:
        pytest.skip("n/a: the requests are those of the asynchronous store")
    places = Places(server_url)
    report = check_blob_store(
        lambda: places.make(RemoteBlobStore), reopen=lambda: places.reopen(RemoteBlobStore)
    )
    assert len(report.passed) > 60, report
