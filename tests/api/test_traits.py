"""The trait's defaults: what follows from five methods."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import subprocess
import sys

import pytest

import uringblob
from broken_stores import PAGE, Sound, SoundAsync
from uringblob import (
    AsyncBlobStore,
    BlobCorrupt,
    BlobGuid,
    BlobNotFound,
    BlobStore,
    ConditionFailed,
    StoreClosed,
    StoreStats,
)
from uringblob.api import async_reads
from uringblob.api.sync_store import SyncToAsyncAdapter, run_to_completion
from uringblob.buffers.checksum import frame_checksum

A = b"a" * PAGE
B = b"b" * PAGE
GUID = BlobGuid(bytes(range(16)))


class Recording(Sound):
    """Records the calls of the five methods; ``corrupt`` and ``flush_error`` make them fail."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.corrupt = set()
        self.flush_error = None

    def write_blob(self, guid, src):
        self.calls.append("write")
        super().write_blob(guid, src)

    def delete_blob(self, guid):
        self.calls.append("delete")
        super().delete_blob(guid)

    def read_blob(self, guid, dst):
        self.calls.append("read")
        if guid in self.corrupt:
            raise BlobCorrupt("bad checksum", guid)
        super().read_blob(guid, dst)

    def flush(self):
        self.calls.append("flush")
        if self.flush_error:
            raise self.flush_error


@pytest.fixture
def store():
    return Recording()


@pytest.mark.parametrize("base", [BlobStore, AsyncBlobStore])
def test_five_methods_are_abstract(base):
    assert base.__abstractmethods__ == {"read_blob", "write_blob", "delete_blob", "list_blobs", "flush"}


@pytest.mark.parametrize(
    "cls", [getattr(uringblob, name) for name in uringblob.__all__ if name.endswith("BlobStore")]
)
def test_every_method_is_documented_by_help(cls):
    """The documentation is written once, in the trait, and inherited."""
    public = [name for name in dir(cls) if not name.startswith("_")]
    assert [name for name in public if not inspect.getdoc(getattr(cls, name))] == []
    assert inspect.getdoc(cls.read_blob) == inspect.getdoc(AsyncBlobStore.read_blob)


async def test_the_methods_of_an_observed_store_keep_their_inherited_documentation():
    """``inspect`` finds none for a wrapper that stands in another class than its method."""

    class Derived(SoundAsync):
        pass

    class Observer:
        def observe(self, *_):
            pass

    uringblob.observe(Derived(), Observer())
    assert inspect.getdoc(Derived.write_blobs) == inspect.getdoc(AsyncBlobStore.write_blobs)
    assert inspect.getdoc(Derived.read_blob) == inspect.getdoc(AsyncBlobStore.read_blob)


def test_both_faces_have_the_same_names():
    def names(base):
        return {name for name in dir(base) if not name.startswith("_")} - {"close", "aclose"}

    assert names(BlobStore) == names(AsyncBlobStore)


def test_every_public_name_is_there():
    assert len(uringblob.__all__) == 37
    for name in uringblob.__all__:
        value = getattr(uringblob, name)
        assert name.isupper() or value.__name__ == name
    assert uringblob.PAGE_SIZE == 524288
    assert uringblob.BUF_ALIGN == 4096


def test_on_windows_a_clear_import_error():
    script = "import sys; sys.platform = 'win32'; import uringblob"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "ImportError: uringblob needs a POSIX system" in child.stderr


def test_commit_writes_then_deletes_then_flushes(store):
    store.commit([(GUID, A)], [BlobGuid.random()])
    assert store.calls == ["write", "delete", "flush"]
    assert "not atomic" in BlobStore.commit.__doc__
    assert "not atomic" in AsyncBlobStore.commit.__doc__


def test_commit_checks_its_conditions_before_it_writes(store):
    store.write_blob(GUID, A)
    store.calls.clear()
    for conditions in ({"if_absent": [GUID]}, {"if_checksum": {GUID: 0}}):
        with pytest.raises(ConditionFailed) as caught:
            store.commit([(BlobGuid.random(), B)], **conditions)
        assert (caught.value.guid, caught.value.found) == (GUID, frame_checksum(A))
    assert set(store.calls) == {"read"}
    store.commit([(GUID, B)], if_checksum={GUID: frame_checksum(A)})
    assert bytes(store.frames[GUID]) == B


def test_without_a_word_a_frame_is_a_page():
    class Five(AsyncBlobStore):
        read_blob = write_blob = delete_blob = list_blobs = flush = None

    assert Five().page_size == uringblob.PAGE_SIZE
    assert not Five().closed


def test_the_adapter_of_a_store_answers_as_the_store(store):
    view = SyncToAsyncAdapter(store)
    assert view.stats() == store.stats()
    assert not view.closed
    run_to_completion(view.aclose())
    assert view.closed
    assert store.closed


def test_a_store_that_is_closed_meanwhile_ends_the_whole_batch(store, monkeypatch):
    """The call raises StoreClosed, instead of returning it for each position that is left."""

    def read_blob(guid, dst):
        raise StoreClosed("the store is closed")

    monkeypatch.setattr(store, "read_blob", read_blob)
    with pytest.raises(StoreClosed):
        store.read_blobs([(GUID, bytearray(PAGE)), (GUID, bytearray(PAGE))])


def test_a_batch_writes_each_guid_once(store):
    store.write_blobs([(GUID, A), (GUID.uuid, B)])
    assert store.calls == ["write"]
    assert store.frames[GUID] == B


def test_data_sync_flushes(store):
    store.write_blobs_with_data_sync([(GUID, A)])
    assert store.calls == ["write", "flush"]


def test_defaults_use_what_a_subclass_overrides():
    class Batches(Recording):
        def write_blobs(self, writes):
            self.calls.append("batch")
            super().write_blobs(writes)

    store = Batches()
    store.commit([(GUID, A)])
    assert store.calls == ["batch", "write", "flush"]


def test_has_blob_is_true_for_a_corrupt_one(store):
    store.write_blob(GUID, A)
    store.corrupt.add(GUID)
    assert store.has_blob(GUID)
    assert not store.has_blob(BlobGuid.random())


def test_has_blobs_asks_for_each_one_when_all_are_checked(store):
    store.write_blob(GUID, A)
    store.calls.clear()
    with pytest.raises(ValueError):
        store.has_blobs([GUID, b"short"])
    assert store.calls == []
    assert store.has_blobs([GUID, BlobGuid.random(), GUID]) == [True, False, True]


async def test_has_blobs_lets_other_tasks_run(monkeypatch):
    monkeypatch.setattr(async_reads, "GUIDS_AT_ONCE", 2)
    ticks = []
    asyncio.get_running_loop().call_soon(ticks.append, 1)
    assert await uringblob.AsyncMemoryBlobStore(PAGE).has_blobs([GUID] * 3) == [False] * 3
    assert ticks == []  # an adapter's store has no other tasks to wait for it
    assert await SoundAsync().has_blobs([GUID] * 3) == [False] * 3
    assert ticks == [1]


async def test_an_iteration_lets_other_tasks_run(monkeypatch):
    monkeypatch.setattr(async_reads, "GUIDS_AT_ONCE", 2)
    store = uringblob.AsyncMemoryBlobStore(PAGE)
    await store.write_blobs((BlobGuid.random(), A) for _ in range(3))
    ticks = []
    asyncio.get_running_loop().call_soon(ticks.append, 1)
    names = [guid async for guid in store.iter_blobs()]
    assert names == sorted(await store.list_blobs())
    assert ticks == [1]


@pytest.mark.parametrize("count", [0, 1, 7, 64])
@pytest.mark.parametrize("limit", [None, 0, 3, 100])
async def test_names_come_in_order_however_many_are_sorted_in_a_step(monkeypatch, count, limit):
    monkeypatch.setattr(async_reads, "GUIDS_AT_ONCE", 5)
    monkeypatch.setattr(async_reads, "SORTED_AT_ONCE", 3)
    inner = SoundAsync()
    guids = [BlobGuid.random() for _ in range(count)]
    await inner.write_blobs((guid, A) for guid in guids)
    guids.sort()
    assert [guid async for guid in inner.iter_blobs(limit=limit)] == guids[:limit]
    assert list(inner.inner.iter_blobs(limit=limit)) == guids[:limit]
    middle = bytes([128]) * 16
    beyond = [guid for guid in guids if guid > middle]
    assert [guid async for guid in inner.iter_blobs(middle, limit)] == beyond[:limit]
    assert list(inner.inner.iter_blobs(middle, limit)) == beyond[:limit]


def test_what_an_iteration_is_given_is_checked_when_it_is_called(store):
    for wrong in ({"after": b"short"}, {"limit": -1}):
        with pytest.raises(ValueError):
            store.iter_blobs(**wrong)
    with pytest.raises(TypeError):
        store.iter_blobs(limit=1.5)
    assert list(store.iter_blobs(limit=1 << 100)) == []  # more than a C integer holds
    store.close()
    with pytest.raises(StoreClosed):
        store.iter_blobs()


def test_verify_names_the_bad_ones_and_goes_on(store):
    guids = [BlobGuid.random() for _ in range(4)]
    store.write_blobs((guid, A) for guid in guids)
    store.corrupt = {guids[1], guids[3]}
    progressed = []
    report = store.verify(progress=lambda done, total: progressed.append((done, total)))
    assert not report.ok
    assert {guid for guid, error in report.bad} == store.corrupt
    assert all(isinstance(error, BlobCorrupt) for _, error in report.bad)
    assert (report.blobs_checked, report.bytes_checked) == (4, 2 * PAGE)
    assert progressed == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert str(guids[1]) in str(report)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.bad = ()


def test_verify_is_slow_where_a_rate_says_so_and_goes_on_where_a_deadline_ended_it(store, monkeypatch):
    now, slept = [1000.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", sleep)
    guids = sorted(BlobGuid.random() for _ in range(5))
    store.write_blobs((guid, A) for guid in guids)
    first = store.verify(rate=2 * PAGE, deadline=1.25)
    assert (first.blobs_checked, first.resume, slept) == (3, guids[2], [0.5, 0.5])
    rest = store.verify(since=first.resume)
    assert (rest.blobs_checked, rest.resume, len(slept)) == (2, None, 2)


def test_verify_does_not_miss_what_is_deleted_meanwhile(store):
    store.write_blob(GUID, A)
    store.list_blobs = lambda: [GUID, BlobGuid.random()]
    report = store.verify(None)
    assert report.ok
    assert report.blobs_checked == 1


def test_read_blobs_gives_each_position_its_error(store):
    store.write_blob(GUID, A)
    bad = BlobGuid.random()
    store.write_blob(bad, A)
    store.corrupt.add(bad)
    answers = store.read_blobs([(guid, bytearray(PAGE)) for guid in (GUID, bad, BlobGuid.random())])
    assert [type(answer) for answer in answers] == [type(None), BlobCorrupt, BlobNotFound]


def test_a_view_of_a_part_is_read_into(store):
    store.write_blob(GUID, A)
    part = bytearray(PAGE)
    store.read_blob_range(GUID, 0, part)
    assert part == A
    with pytest.raises(TypeError):
        store.read_blob_range(GUID, 0.5, part)


def test_stats_by_default_know_the_frame_size(store):
    assert store.stats() == StoreStats(page_size=PAGE)
    assert store.needs_flush()


class TestClosing:
    def test_the_default_flushes_once(self, store):
        with store as entered:
            assert entered is store
        store.close()
        assert store.calls == ["flush"]
        assert "closed" in repr(store)

    def test_without_flush(self, store):
        store.close(flush=False)
        assert store.calls == []

    def test_the_error_of_the_flush_is_raised_once(self, store):
        store.flush_error = OSError(5, "EIO")
        with pytest.raises(OSError, match="EIO"):
            store.close()
        store.close()
        assert store.closed

    def test_the_defaults_refuse_later_calls(self, store):
        store.close()
        for call in (
            store.alloc_blob_buf_zeroed,
            store.needs_flush,
            store.verify,
            store.commit,
            store.__enter__,
        ):
            with pytest.raises(StoreClosed):
                call()
        assert store.stats().page_size == PAGE

    async def test_cancelling_does_not_stop_the_asynchronous_default(self):
        gate = asyncio.Event()

        class Slow(SoundAsync):
            async def flush(self):
                await gate.wait()
                self.flushed = True

        store = Slow()
        task = asyncio.ensure_future(store.aclose())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert store.flushed
        assert store.closed

    async def test_the_flush_error_wins_over_the_cancel(self):
        class Fails(SoundAsync):
            async def flush(self):
                await asyncio.sleep(0)
                raise OSError(5, "EIO")

        store = Fails()
        task = asyncio.ensure_future(store.aclose())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(OSError, match="EIO"):
            await task
        await store.aclose()


class TestInline:
    def test_a_coroutine_that_waits_is_refused(self):
        async def waits():
            await asyncio.sleep(0)

        with pytest.raises(RuntimeError, match="event loop"):
            run_to_completion(waits())

    def test_errors_pass_through(self):
        async def fails():
            raise KeyError(1)

        with pytest.raises(KeyError):
            run_to_completion(fails())

    def test_in_a_thread_in_which_a_loop_runs(self, store):
        async def main():
            store.commit([(GUID, A)])
            return store.has_blob(GUID)

        assert asyncio.run(main())
