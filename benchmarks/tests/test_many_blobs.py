"""A store that is written by the description of the format is one, and compacts when it was built to."""

from __future__ import annotations

import pytest

from uringblob import FileBlobStore
from uringblob_bench.scale.build import COMMITS_LEFT, build, guid_of

pytestmark = pytest.mark.one_interpreter
BLOBS = 300  # more than two blocks of records


@pytest.fixture
def built(store_path, page_size):
    def make(**options):
        build(store_path, BLOBS, page_size, **options)
        return FileBlobStore.open(store_path, create=False)

    return make


@pytest.mark.parametrize("page_size", [4096, 65536, 524288], indirect=True)
def test_every_blob_is_there_and_is_zeros(built, page_size):
    frame = bytearray(b"x" * page_size)
    with built() as store:
        assert set(store.list_blobs()) == {guid_of(number) for number in range(BLOBS)}
        assert (store.verify().blobs_checked, store.verify().bad) == (BLOBS, ())
        store.read_blob(guid_of(7), frame)
        assert not any(frame)
        assert store.stats().notes == ()


def test_it_takes_commits_as_any_other_and_keeps_them(built, store_path, page_size):
    with built() as store:
        store.commit([(guid_of(0), b"n" * page_size)], deletes=[guid_of(1)])
    with FileBlobStore.open(store_path) as store:
        assert store.stats().blobs == BLOBS - 1
        assert store.verify().ok


def test_near_its_compaction_it_takes_some_commits_and_compacts(built, page_size):
    with built(near_compaction=True) as store:
        for _ in range(COMMITS_LEFT - 1):
            store.commit([(guid_of(0), bytes(page_size))])
        assert store.stats().compactions == 0
        for _ in range(COMMITS_LEFT):
            store.commit([(guid_of(0), bytes(page_size))])
        assert store.stats().compactions == 1
