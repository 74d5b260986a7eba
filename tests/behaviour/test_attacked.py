"""Found by somebody who had read only the contract."""

from __future__ import annotations

import asyncio
import gc
import os
import warnings

import pytest

from behaviour.work import guid
from uringblob import AsyncFileBlobStore, FileBlobStore, StoreReadOnly

FRAME = bytes(4096)


@pytest.mark.parametrize("turns", range(1, 5))
async def test_a_cancelled_read_blobs_lets_go_of_its_buffers(store_path, engine, turns):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096) as store:
        await store.write_blob(guid(0), FRAME)
        buffer = store.alloc_blob_buf_uninit()
        task = asyncio.ensure_future(store.read_blobs([(guid(0), buffer)]))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        buffer.release()
        assert store.stats().buffers_leased == 0


def test_an_empty_batch_is_a_change_too(store_path, engine):
    FileBlobStore.open(store_path, engine=engine, page_size=4096).close()
    with FileBlobStore.open(store_path, engine=engine, read_only=True) as store:
        for change in (store.write_blobs, store.write_blobs_with_data_sync, store.commit):
            with pytest.raises(StoreReadOnly):
                change([])


@pytest.mark.parametrize("length", [234, 255])
def test_a_name_may_be_as_long_as_the_file_system_takes(disk_dir, engine, length):
    path = disk_dir / ("n" * length)
    FileBlobStore.open(path, engine=engine, page_size=4096).close()
    FileBlobStore.open(path, engine=engine).close()
    assert os.listdir(disk_dir) == [path.name]


def test_a_collected_store_lets_go_though_its_warning_is_kept(store_path, engine):
    store = FileBlobStore.open(store_path, engine=engine, page_size=4096)
    with warnings.catch_warnings(record=True) as kept:
        warnings.simplefilter("always")
        del store
        gc.collect()
    assert [warning.category for warning in kept] == [ResourceWarning]
    FileBlobStore.open(store_path, engine=engine, lock_timeout=2).close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
async def test_a_collected_store_lets_go_though_warnings_are_errors(store_path, engine, sync):
    if sync:
        store = FileBlobStore.open(store_path, engine=engine, page_size=4096)
    else:
        store = await AsyncFileBlobStore.open(store_path, engine=engine, page_size=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del store
        gc.collect()
    async with AsyncFileBlobStore.open(store_path, engine=engine, lock_timeout=2):
        pass
