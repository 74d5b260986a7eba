"""``max_bytes``: the file ends there as on a full disk, with an error that says so."""

from __future__ import annotations

import errno
import os

import pytest

from uringblob import (
    AsyncFileBlobStore,
    AsyncMemoryBlobStore,
    BlobGuid,
    BlobStoreIOError,
    FileBlobStore,
    MemoryBlobStore,
)
from uringblob.completion import Completion
from uringblob.store.opening.create import initial_size
from uringblob.units import PAGE_SIZE

PAGE = 4096
LIMIT = initial_size(PAGE) + 40 * PAGE


def fill(store):
    """Commit blobs until one is refused; return their names and the error."""
    names = []
    while True:
        name = BlobGuid.random()
        try:
            store.commit([(name, name * (PAGE // 16))])
        except BlobStoreIOError as error:
            return names, error
        names.append(name)
        assert len(names) < 10_000


def test_the_file_ends_at_its_limit_and_the_error_says_so(store_path, engine):
    with FileBlobStore.open(store_path, page_size=PAGE, engine=engine, max_bytes=LIMIT) as store:
        names, error = fill(store)
        assert (error.errno, error.applied) == (errno.ENOSPC, False)
        for word in (store.path, f"max_bytes={LIMIT}", "delete blobs", "set_max_bytes()"):
            assert word in str(error)
        assert len(names) >= 38, "two slots at the edge wait for a group"
        assert os.path.getsize(store_path) == store.stats().file_bytes <= LIMIT
        assert store.stats().max_bytes == LIMIT
        assert sorted(store.list_blobs()) == sorted(names)
        assert store.verify().ok


def test_deletions_work_at_the_edge_and_what_they_free_is_used_again(store_path, engine):
    with FileBlobStore.open(store_path, page_size=PAGE, engine=engine, max_bytes=LIMIT) as store:
        names, _ = fill(store)
        for _ in range(300):
            store.commit(deletes=[names.pop(0)])
            store.delete_blob(names.pop(0))
            store.flush()
            more, _ = fill(store)
            assert len(more) == 2
            names += more
        assert store.stats().compactions, "the log was written anew at the edge, too"
        assert store.stats().file_bytes <= LIMIT
        store.commit(deletes=names)
        assert len(fill(store)[0]) == len(names)
    with FileBlobStore.open(store_path, engine=engine) as store:
        assert store.verify().ok
        assert store.stats().max_bytes == 0
        store.commit([(BlobGuid.random(), bytes(PAGE)) for _ in range(100)])


def test_a_limit_below_what_is_there_refuses_growth_only(store_path):
    with FileBlobStore.open(store_path, page_size=PAGE) as store:
        names = [BlobGuid.random() for _ in range(50)]
        store.commit([(name, bytes(PAGE)) for name in names])
        size = store.stats().file_bytes
        store.set_max_bytes(PAGE)
        fill(store)
        assert store.stats().file_bytes == size
        assert len(store) >= len(names)
        store.commit(deletes=names[:2])
        assert len(fill(store)[0]) >= 2
        store.set_max_bytes(size + 100 * PAGE)
        assert len(fill(store)[0]) >= 90
        store.set_max_bytes(None)
        store.commit([(BlobGuid.random(), bytes(PAGE)) for _ in range(200)])
        assert store.stats().file_bytes > size + 100 * PAGE


def test_reopened_with_a_lower_limit_it_opens(store_path):
    with FileBlobStore.open(store_path, page_size=PAGE) as store:
        store.commit([(BlobGuid.random(), bytes(PAGE)) for _ in range(50)])
    with FileBlobStore.open(store_path, max_bytes=1) as store:
        assert len(store) == 50
        names, _ = fill(store)
        store.commit(deletes=[*names, *store.list_blobs()])


def test_a_new_store_needs_room_for_itself(store_path):
    with pytest.raises(BlobStoreIOError, match="max_bytes=4096") as caught:
        FileBlobStore.open(store_path, page_size=PAGE, max_bytes=4096)
    assert caught.value.errno == errno.ENOSPC
    assert not os.path.exists(store_path)


async def test_of_an_asynchronous_store(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine, max_bytes=LIMIT) as store:
        batch = [(BlobGuid.random(), bytes(PAGE)) for _ in range(60)]
        for write in (store.write_blobs, store.write_blobs_with_data_sync, store.commit):
            with pytest.raises(BlobStoreIOError, match=f"max_bytes={LIMIT}"):
                await write(batch)
        assert store.stats().slots_pending == 0
        await store.set_max_bytes(LIMIT + 60 * PAGE)
        await store.commit(batch)


def test_of_a_memory_store():
    store = MemoryBlobStore(PAGE, max_bytes=10 * PAGE + 1)
    names, error = fill(store)
    assert (len(names), error.errno) == (10, errno.ENOSPC)
    assert f"max_bytes={10 * PAGE + 1}" in str(error)
    assert not store.needs_flush() or store.flush() is None
    store.commit([(names[0], bytes(PAGE)), (BlobGuid.random(), bytes(PAGE))], [names[1]])
    with pytest.raises(BlobStoreIOError):
        store.write_blob(BlobGuid.random(), bytes(PAGE))
    store.set_max_bytes(2 * PAGE)
    store.write_blob(names[2], b"x" * PAGE)
    store.delete_blob(names[3])
    store.set_max_bytes(None)
    assert store.stats().max_bytes == 0
    assert len(fill_to(store, 20)) == 20


def fill_to(store, count):
    while len(store) < count:
        store.write_blob(BlobGuid.random(), bytes(PAGE))
    return store.list_blobs()


async def test_of_an_asynchronous_memory_store():
    store = AsyncMemoryBlobStore(PAGE, max_bytes=PAGE)
    await store.write_blob(bytes(16), bytes(PAGE))
    with pytest.raises(BlobStoreIOError):
        await store.write_blob(b"1" * 16, bytes(PAGE))
    await store.set_max_bytes(2 * PAGE)
    await store.write_blob(b"1" * 16, bytes(PAGE))
    assert store.stats().max_bytes == 2 * PAGE


@pytest.mark.parametrize(
    ("limit", "error"), [(0, ValueError), (-1, ValueError), ("1G", TypeError), (1.5, TypeError)]
)
def test_what_is_no_limit_is_refused(store_path, limit, error):
    with pytest.raises(error, match="max_bytes"):
        FileBlobStore.open(store_path, max_bytes=limit)
    with pytest.raises(error, match="max_bytes"):
        MemoryBlobStore(PAGE_SIZE, max_bytes=limit)
    with MemoryBlobStore() as store, pytest.raises(error, match="max_bytes"):
        store.set_max_bytes(limit)


def growths(store):
    """Return a list that gets the length of each growth."""
    engine, asked = store._core._core.file_io.engine, []
    grow = engine.grow

    def counted(size):
        asked.append(size)
        return grow(size)

    engine.grow = counted
    return asked


def test_the_last_step_goes_exactly_to_the_limit(store_path, engine):
    with FileBlobStore.open(store_path, page_size=PAGE, engine=engine, max_bytes=LIMIT + 100) as store:
        asked = growths(store)
        fill(store)
        grown = sorted(size for size in set(asked) if size <= LIMIT + 100)
        assert grown[-1] == LIMIT, "it ends at the last whole slot"
        assert len(grown) <= 3, "single slots near the limit"


def test_a_step_that_finds_no_room_is_halved_and_later_ones_begin_small(store_path, engine):
    """As on a disk that is nearly full: few attempts are refused, and no growth is of single slots for long."""
    room = initial_size(PAGE) + 1000 * PAGE
    with FileBlobStore.open(store_path, page_size=PAGE, engine=engine) as store:
        store.commit([(BlobGuid.random(), bytes(PAGE)) for _ in range(640)])
        asked, core = growths(store), store._core._core
        counted, refused = core.file_io.engine.grow, []

        def full(size):
            if size <= room:
                return counted(size)
            refused.append(size)
            done = Completion(loop=core.file_io.loop)
            done.resolve(-errno.ENOSPC)
            return done

        core.file_io.engine.grow = full
        fill(store)
        assert os.path.getsize(store_path) == room, "all room there is was used"
        assert len(refused) <= 16
        assert len(asked) <= 40
