"""Observers are called once for every call, change nothing, and cost nothing where there is none."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import weakref

import pytest

from uringblob import (
    AsyncFileBlobStore,
    AsyncMemoryBlobStore,
    BlobGuid,
    BlobNotFound,
    BlobStore,
    FileBlobStore,
    MemoryBlobStore,
    observe,
)
from uringblob.api import base
from uringblob.api import observer as observing
from uringblob.api.sync_store import BlobStore as SyncTrait

PAGE = 4096
GUID = BlobGuid.random()


class Notes(list):
    """Records its calls, and the thread of the last one."""

    def observe(self, operation, size_bytes, duration_s, outcome):
        assert duration_s >= 0
        self.append((operation, size_bytes, outcome))
        self.thread = threading.get_ident()


def sync_stores(path, notes):
    yield MemoryBlobStore(page_size=PAGE, observer=notes)
    yield FileBlobStore.open(path, page_size=PAGE, observer=notes)


def test_every_operation_of_a_sync_store_is_reported_once_with_its_bytes(store_path):
    for store in sync_stores(store_path, notes := Notes()):
        notes.clear()
        frame = bytearray(PAGE)
        with store:
            store.write_blob(GUID, bytes(PAGE))
            store.write_blobs((guid, bytes(PAGE)) for guid in [bytes(16), b"1" * 16])
            store.write_blobs_with_data_sync([(bytes(16), bytes(PAGE))])
            store.commit(writes=iter([(GUID, bytes(PAGE))]), deletes=[bytes(16)])
            store.read_blob(GUID, dst=frame)
            store.read_blob_range(GUID, 0, frame)
            assert store.has_blob(GUID)
            assert store.has_blobs([GUID, bytes(range(16))]) == [True, False]
            store.checksum(GUID)
            assert [error is None for error in store.read_blobs([(GUID, frame), (bytes(16), frame)])] == [
                True,
                False,
            ]
            store.delete_blob(b"1" * 16)
            assert store.list_blobs() == [GUID] == list(store.iter_blobs())
            assert store.verify().ok
            store.snapshot().close()  # its own calls are another store's
            assert store.backup(MemoryBlobStore(PAGE)).ok
            store.vacuum()
            store.flush()
        assert list(notes) == [
            ("write_blob", PAGE, "ok"),
            ("write_blobs", 2 * PAGE, "ok"),
            ("write_blobs_with_data_sync", PAGE, "ok"),
            ("commit", PAGE, "ok"),
            ("read_blob", PAGE, "ok"),
            ("read_blob_range", PAGE, "ok"),
            ("has_blob", 0, "ok"),
            ("has_blobs", 0, "ok"),
            ("checksum", 0, "ok"),
            ("read_blobs", PAGE, "ok"),
            ("delete_blob", 0, "ok"),
            *[("list_blobs", 0, "ok")] * 2,
            ("verify", PAGE, "ok"),
            ("snapshot", 0, "ok"),
            ("backup", PAGE, "ok"),
            ("vacuum", 0, "ok"),
            ("flush", 0, "ok"),
            ("close", 0, "ok"),
        ]
        assert notes.thread == threading.get_ident()


def test_the_table_of_operations_is_whole():
    # An iteration is reported as the list_blobs that it begins with.
    plain = {"iter_blobs"} | {
        "alloc_blob_buf_zeroed",
        "alloc_blob_buf_uninit",
        "needs_flush",
        "stats",
        "page_size",
        "closed",
    }
    public = {name for name in dir(SyncTrait) if not name.startswith("_")}
    assert public - plain == set(observing.OPERATIONS) - {"aclose"}


async def test_every_operation_of_an_async_store_is_reported_once(store_path):
    notes = Notes()
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, observer=notes) as store:
        await store.write_blob(GUID, bytes(PAGE))  # which is write_blobs inside
        await store.commit([(GUID, bytes(PAGE))])
        await asyncio.gather(*(store.read_blob(GUID, bytearray(PAGE)) for _ in range(3)))
        with pytest.raises(BlobNotFound):
            await store.read_blob(bytes(16), bytearray(PAGE))
        with pytest.raises(ValueError):
            await store.write_blob(GUID, b"short")
    assert list(notes) == [
        ("write_blob", PAGE, "ok"),
        ("commit", PAGE, "ok"),
        *[("read_blob", PAGE, "ok")] * 3,
        ("read_blob", 0, "BlobNotFound"),
        ("write_blob", 0, "ValueError"),
        ("close", 0, "ok"),
    ]


async def test_an_iteration_of_an_async_store_is_reported_as_the_listing_that_it_begins_with(store_path):
    notes = Notes()
    for store in (
        AsyncMemoryBlobStore(PAGE, observer=notes),
        await AsyncFileBlobStore.open(store_path, page_size=PAGE, observer=notes),
    ):
        notes.clear()
        assert [guid async for guid in store.iter_blobs()] == []
        await store.aclose()
        assert list(notes) == [("list_blobs", 0, "ok"), ("close", 0, "ok")]


def test_an_observer_finds_the_exception_of_a_failed_call_where_its_docstring_says(store_path):
    class Errors(Notes):
        def observe(self, operation, size_bytes, duration_s, outcome):
            self.append((outcome, str(sys.exc_info()[1])))

    for store in sync_stores(store_path, notes := Errors()):
        with pytest.raises(BlobNotFound) as caught:
            store.read_blob(GUID, bytearray(PAGE))
        assert list(notes) == [("BlobNotFound", str(caught.value))]
        store.close()
        notes.clear()


def test_an_observers_own_calls_of_the_store_are_not_reported(store_path):
    class Curious(Notes):
        def observe(self, operation, size_bytes, duration_s, outcome):
            super().observe(operation, size_bytes, duration_s, outcome)
            assert GUID in self.store

    for store in sync_stores(store_path, notes := Curious()):
        notes.store = store
        store.write_blob(GUID, bytes(PAGE))
        store.flush()
        assert list(notes) == [("write_blob", PAGE, "ok"), ("flush", 0, "ok")]
        notes.store = [GUID]
        store.close()
        notes.clear()


async def test_a_cancelled_call_is_reported_as_cancelled(store_path):
    notes = Notes()
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, observer=notes) as store:
        await store.write_blob(GUID, bytes(PAGE))
        task = asyncio.ensure_future(store.read_blob(GUID, bytearray(PAGE)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ("read_blob", 0, "cancelled") in notes


class FiveMethods(BlobStore):
    """The smallest store there is: its commit is writes, deletes and a flush."""

    page_size = PAGE

    def __init__(self):
        self.frames = {}

    def read_blob(self, guid, dst):
        dst[:] = self.frames[bytes(guid)]

    def write_blob(self, guid, src):
        self.frames[bytes(guid)] = bytes(src)

    def delete_blob(self, guid):
        self.frames.pop(bytes(guid), None)

    def list_blobs(self):
        return [BlobGuid(guid) for guid in self.frames]

    def flush(self):
        pass


def test_a_default_made_of_other_operations_is_one_call():
    with observe(FiveMethods(), notes := Notes()) as store:
        store.commit([(GUID, bytes(PAGE))], [bytes(16)])
    assert list(notes) == [("commit", PAGE, "ok"), ("close", 0, "ok")]


def test_what_a_measured_call_asks_of_another_store_is_measured_there():
    inner = MemoryBlobStore(page_size=PAGE, observer=(inner_notes := Notes()))

    class Outer(FiveMethods):
        def write_blob(self, guid, src):
            inner.write_blob(guid, src)
            super().write_blob(guid, src)

    outer = observe(Outer(), outer_notes := Notes())
    outer.commit([(GUID, bytes(PAGE)), (bytes(16), bytes(PAGE))])
    assert list(inner_notes) == [("write_blob", PAGE, "ok")] * 2
    assert list(outer_notes) == [("commit", 2 * PAGE, "ok")]


async def test_a_task_begun_inside_a_call_is_measured_when_the_call_is_over():
    notes = Notes()
    store = AsyncMemoryBlobStore(page_size=PAGE, observer=notes)
    go_on, tasks = asyncio.Event(), []

    async def later():
        await go_on.wait()
        await store.has_blob(GUID)

    def progress(done, total):
        tasks.append(asyncio.ensure_future(later()))

    await store.write_blob(GUID, bytes(PAGE))
    await store.verify(progress)
    go_on.set()
    await asyncio.gather(*tasks)
    assert [operation for operation, _, _ in notes] == ["write_blob", "verify", "has_blob"]


def test_an_observer_that_fails_is_logged_and_changes_nothing(caplog):
    class Broken:
        def observe(self, *call):
            raise ZeroDivisionError

    store = MemoryBlobStore(page_size=PAGE, observer=Broken())
    observe(store, notes := Notes())
    store.write_blob(GUID, bytes(PAGE))
    assert list(notes) == [("write_blob", PAGE, "ok")]
    (record,) = caplog.records
    assert (record.event, record.operation) == ("observer_failed", "write_blob")
    assert "ZeroDivisionError" in caplog.text


def test_a_store_is_observed_once_where_its_caller_waits(store_path):
    with FileBlobStore.open(store_path, page_size=PAGE, observer=Notes()) as store:
        assert type(store) is FileBlobStore
        assert not store._core._observers
        assert store._observers


def test_a_store_beside_an_observed_one_is_not_measured(monkeypatch):
    observe(MemoryBlobStore(PAGE), Notes())
    monkeypatch.setattr(base, "observed_call", None)
    monkeypatch.setattr(base, "is_part_of_call", None)
    with MemoryBlobStore(PAGE) as store:
        store.write_blob(GUID, bytes(PAGE))
        assert store.verify().ok


def test_a_class_of_which_no_store_is_observed_keeps_its_methods():
    class Unobserved(MemoryBlobStore):
        def has_blob(self, guid):
            return super().has_blob(guid)

    plain = Unobserved.has_blob
    with Unobserved(PAGE) as store:
        assert not store.has_blob(GUID)
        assert Unobserved.has_blob is plain
        observe(store, notes := Notes())
        assert not store.has_blob(GUID)
    assert notes == [("has_blob", 0, "ok"), ("close", 0, "ok")]


def test_the_methods_of_an_observed_async_store_stay_coroutine_functions():
    """What makes a mock of one asynchronous."""
    store = observe(AsyncMemoryBlobStore(PAGE), Notes())
    assert inspect.iscoroutinefunction(store.commit)


def test_an_observed_store_is_no_cycle_and_ends_as_any_other():
    gc.disable()
    try:
        store = MemoryBlobStore(page_size=PAGE, observer=Notes())
        store.write_blob(GUID, bytes(PAGE))
        gone = weakref.ref(store)
        del store
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("wrong", [(object(), Notes()), (MemoryBlobStore(page_size=PAGE), print)])
def test_what_cannot_be_observed_is_a_type_error(wrong):
    with pytest.raises(TypeError):
        observe(*wrong)
