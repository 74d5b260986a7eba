"""What a call decides where reads fail, files shrink, and handlers strike."""

from __future__ import annotations

import asyncio
import errno
import os
import warnings

import pytest

from uringblob import AsyncFileBlobStore, BlobCorrupt, BlobGuid, StoreLocked, StorePoisoned
from uringblob.store import async_store
from uringblob.store import frame_writes as batch
from uringblob.store.index.slot_states import SlotState

PAGE = 4096
GUIDS = [BlobGuid(bytes([n]) * 16) for n in range(6)]


class Struck(BaseException):
    """What a signal handler raises."""


def fill(number):
    return bytes([number]) * PAGE


@pytest.fixture
async def store(store_path, engine):
    store = await AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine)
    for number, guid in enumerate(GUIDS):
        await store.commit([(guid, fill(number))])
    yield store
    await store.aclose(flush=False)


@pytest.mark.parametrize("left", [0, 512])
async def test_a_file_cut_off_while_it_is_open_costs_the_frames_behind_the_end(store, left):
    slot = store._core.index.find(GUIDS[5]) >> 64
    kept = store._core.index.find(GUIDS[0]) >> 64
    assert kept < slot
    size = os.stat(store.path).st_size
    os.truncate(store.path, slot * PAGE + left)
    frame = bytearray(PAGE)
    with pytest.raises(BlobCorrupt, match=f"the file ends after {left} of its bytes") as raised:
        await store.read_blob(GUIDS[5], frame)
    assert raised.value.guid == GUIDS[5]
    assert str(slot * PAGE) in str(raised.value)
    part = bytearray(PAGE)
    with pytest.raises(BlobCorrupt, match="the file ends after"):
        await store.read_blob_range(GUIDS[5], 0, part)
    await store.read_blob(GUIDS[0], frame)
    assert frame == fill(0)
    report = await store.verify()
    assert GUIDS[5] in [guid for guid, _ in report.bad]
    os.truncate(store.path, size)


async def test_a_handler_that_strikes_a_changes_first_step_poisons_and_close_does_not_wait(
    store, monkeypatch
):
    """The change never became a job that somebody counts; what it was about to do is lost."""

    def strike(guid):
        raise Struck

    monkeypatch.setattr(store._core.index, "publish_deletion", strike)
    with pytest.raises(Struck):
        await store.delete_blob(GUIDS[0])
    monkeypatch.undo()
    with pytest.raises(StorePoisoned, match="signal handler raised Struck"):
        await store.delete_blob(GUIDS[0])
    frame = bytearray(PAGE)
    await store.read_blob(GUIDS[0], frame)
    assert frame == fill(0)
    assert store._active == 0
    with pytest.raises(StorePoisoned):
        await asyncio.wait_for(store.aclose(), 60)


async def test_a_change_whose_caller_is_dropped_counts_until_it_has_ended(store):
    call = store.write_blob(GUIDS[0], fill(9))
    call.send(None)
    call.close()
    assert store._active == 1
    await store.aclose()
    assert store._active == 0
    async with AsyncFileBlobStore.open(store.path) as again:
        frame = bytearray(PAGE)
        await again.read_blob(GUIDS[0], frame)
    assert frame == fill(9)


@pytest.mark.parametrize("call", ["commit", "write_blobs", "write_blobs_with_data_sync"])
async def test_a_change_that_fails_before_a_byte_is_written_gives_its_slots_back(store, monkeypatch, call):
    def no_memory(view):
        raise MemoryError("for a checksum")

    monkeypatch.setattr(batch, "frame_checksum", no_memory)
    slots = store._core.index.slots
    free = slots.count(SlotState.FREE)
    with pytest.raises(MemoryError, match="for a checksum"):
        await getattr(store, call)([(GUIDS[0], fill(9))])
    monkeypatch.undo()
    assert slots.count(SlotState.WRITING) == 0
    assert slots.count(SlotState.FREE) == free
    frame = bytearray(PAGE)
    await store.read_blob(GUIDS[0], frame)
    assert frame == fill(0)
    await store.commit([(GUIDS[0], fill(9))])
    assert (await store.verify()).ok


async def test_closing_twice_at_once_waits_for_one_end_and_its_error_is_raised_once(store, monkeypatch):
    gate = asyncio.Event()
    real = async_store.close_core

    async def close(core, *, flush):
        await gate.wait()
        await real(core, flush=flush)
        raise StorePoisoned("the flush's")

    monkeypatch.setattr(async_store, "close_core", close)
    first, second = (asyncio.ensure_future(store.aclose()) for _ in range(2))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not first.done()
    assert not second.done()
    gate.set()
    assert await second is None
    with pytest.raises(StorePoisoned, match="the flush's"):
        await first
    assert await store.aclose() is None


async def test_collected_in_a_forked_child_it_says_nothing_and_unlocks_nothing(store):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 3.12 warns of any fork beside threads
        pid = os.fork()
    if not pid:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                store.__del__()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with pytest.raises(StoreLocked):
        await AsyncFileBlobStore.open(store.path, lock_timeout=0)
    await store.commit([(GUIDS[0], fill(9))])


def leave_every_second_slot_free(slots):
    for run in slots.allocate_runs(slots.count(SlotState.FREE), SlotState.WRITING):
        for slot in range(run.slot, run.end, 2):
            slots.move(slot, SlotState.FREE)


async def cannot_grow(_size):
    return -errno.ENOSPC


async def test_unaligned_memory_for_scattered_slots_is_copied_piece_by_piece(
    needs_direct, store_path, engine, monkeypatch
):
    """Through few bounce frames: each piece has let go of its own before the next one takes some."""
    async with AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine, direct=True) as store:
        names = [n.to_bytes(16, "big") for n in range(64)]
        await store.commit([(name, fill(1)) for name in names])
        await store.commit(deletes=names[::2])
        await store.commit([(names[1], fill(2))])  # now the last group no longer needs what was deleted
        leave_every_second_slot_free(store._core.index.slots)
        monkeypatch.setattr(store._core.file_io.engine, "grow", cannot_grow)
        batch = {name: memoryview(bytearray(PAGE + 1))[1:] for name in names[:40:4]}
        for number, view in enumerate(batch.values()):
            view[:] = fill(number)
        before, writes = store._core.file_io.bounces.lent, store.stats().writes
        await store.commit(batch.items())
        assert store._core.file_io.bounces.lent - before == len(batch)
        assert store.stats().writes - writes > len(batch), "the frames went to slots side by side"
        frame = bytearray(PAGE)
        for name, view in batch.items():
            await store.read_blob(name, frame)
            assert frame == view
        assert (await store.verify()).ok


async def test_as_many_blocks_as_come_together_are_kept_and_no_more(store):
    """A burst of metadata reads leaves eight pieces of scratch memory behind."""
    file_io = store._core.file_io
    blocks = await asyncio.gather(*(file_io.start(file_io.read(0, PAGE, "a test's read")) for _ in range(20)))
    assert set(blocks) == {blocks[0]}
    assert len(file_io._scratch[PAGE]) == 8
