"""Many committers, one flush: which members share a group, and which of them fail with a part of it."""

from __future__ import annotations

import asyncio
import errno
import inspect
import sys

import pytest

from store.taken_writes import take_writes
from uringblob import BlobGuid, BlobStoreIOError, StorePoisoned
from uringblob.completion import Completion
from uringblob.store.async_store import AsyncFileBlobStore
from uringblob.store.log.group_commit import GroupQueue

PAGE = 4096


@pytest.fixture
async def store(store_path, engine):
    store = await AsyncFileBlobStore.open(store_path, page_size=PAGE, engine=engine)
    yield store
    try:
        await store.aclose()
    except StorePoisoned:
        assert store.closed


def fill(number):
    return number.to_bytes(2, "little") * (PAGE // 2)


async def read(store, guid):
    frame = bytearray(PAGE)
    await store.read_blob(guid, frame)
    return frame


class Faults:
    """Makes chosen writes of the store's engine fail."""

    def __init__(self, store):
        self.engine = store._core.file_io.engine
        self.should_fail = lambda offset, frames: 0
        take_writes(self.engine, self.write)

    def write(self, real, offset, frames):
        rc = self.should_fail(offset, frames)
        if rc:
            failed = Completion(loop=asyncio.get_running_loop())
            asyncio.get_running_loop().call_soon(failed.resolve, rc)
            return failed
        return real(offset, frames)


async def test_committers_who_come_back_together_share_one_group(store):
    """Once the first of 16 made a group of its own and the other 15 waited for it, in every round."""
    tasks, rounds = 16, 12

    async def committer(number):
        guid = BlobGuid(bytes([number]) * 16)
        for turn in range(rounds):
            await store.commit([(guid, fill(turn))])

    # Room for all of it beforehand: who waits for the file to grow comes back at another time.
    guids = [BlobGuid.random() for _ in range(6 * tasks)]
    await store.commit([(guid, fill(0)) for guid in guids])
    await store.commit(deletes=guids)
    await store.commit([(guids[0], fill(0))])
    before = store.stats().log_groups
    await asyncio.gather(*map(committer, range(tasks)))
    groups = store.stats().log_groups - before
    assert groups < 2 * rounds - 4, f"{groups} groups for {rounds} rounds of {tasks} committers"


@pytest.mark.parametrize("lent", [False, True])
@pytest.mark.parametrize("missing", [0, 1])
async def test_a_groups_blocks_go_out_beside_its_frames_once_all_have_come(store, missing, lent):
    """When the frames have landed, nothing is left to do but the flush; while some callers are missing,
    the first's frames are waited for.
    """
    engine = store._core.file_io.engine
    await store.commit([(BlobGuid.random(), fill(0))])
    withheld, blocks = [], []
    buffers = [b"f" * PAGE] * 3
    if lent:
        buffers = [store.alloc_blob_buf_uninit() for _ in range(3)]
        for buffer in buffers:
            buffer.view[:] = b"f" * PAGE

    def write(real, offset, frames):
        done = real(offset, frames)
        if frames[0].view[:1] != b"f":
            blocks.append(offset)
            return done
        withheld.append((done, Completion(loop=asyncio.get_running_loop())))
        return withheld[-1][1]

    take_writes(engine, write)
    store._core.queue._recent_group_size = 3 + missing
    calls = [asyncio.ensure_future(store.commit([(BlobGuid.random(), buffer)])) for buffer in buffers]
    while len(withheld) < 3:
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(blocks) == (0 if missing else 1)
    assert not any(call.done() for call in calls)
    for done, answer in withheld:
        answer.resolve(await done)
    await asyncio.gather(*calls)
    assert len(blocks) == 1


async def test_committers_share_flushes(store):
    # Frames in ordinary memory are copied; all of these copies fit one iteration.
    store._core.file_io.checksum_budget._left = 1 << 30
    guids = [BlobGuid.random() for _ in range(64)]
    await store.commit([(guid, fill(0)) for guid in guids])
    await store.commit(deletes=guids)
    await store.commit([(guids[0], fill(0))])
    before = store.stats()
    await asyncio.gather(*(store.commit([(guid, fill(i))]) for i, guid in enumerate(guids)))
    after = store.stats()
    # The first one goes alone; while it is flushed, all others gather.
    assert after.syncs - before.syncs == 2
    assert after.log_groups - before.log_groups == 2
    for i, guid in enumerate(guids):
        assert await read(store, guid) == fill(i)


async def test_overlapping_commits_of_one_guid_agree_with_the_log(store, store_path, engine):
    guid = BlobGuid.random()
    await asyncio.gather(*(store.commit([(guid, fill(i))]) for i in range(50)))
    seen = await read(store, guid)
    await store.aclose()
    async with AsyncFileBlobStore.open(store_path, engine=engine) as again:
        assert await read(again, guid) == seen
        assert again.stats().blobs == 1


async def test_only_the_member_at_fault_fails(store):
    faults = Faults(store)
    first, bad, good = (BlobGuid.random() for _ in range(3))
    marked = fill(666)
    faults.should_fail = lambda offset, frames: (
        -errno.ENOSPC if frames[0].view[:2] == marked[:2] and frames[0].size == PAGE else 0
    )
    outcomes = await asyncio.gather(
        store.commit([(first, fill(1))]),
        store.commit([(bad, marked)]),
        store.commit([(good, fill(3))]),
        return_exceptions=True,
    )
    assert outcomes[0] is None
    assert isinstance(outcomes[1], BlobStoreIOError)
    assert outcomes[1].errno == errno.ENOSPC
    assert outcomes[1].guid == bad
    assert outcomes[2] is None
    assert not await store.has_blob(bad)
    assert await read(store, good) == fill(3)
    faults.should_fail = lambda offset, frames: 0
    await store.commit([(bad, marked)])
    assert (await store.verify()).ok


async def test_a_log_write_without_room_is_wiped_and_the_store_goes_on(store):
    faults = Faults(store)
    log = store._core.log
    guid = BlobGuid.random()
    place = log.next_offsets(1)[0]
    faults.should_fail = lambda offset, frames: (
        -errno.ENOSPC if offset == place and any(frames[0].view) else 0
    )
    with pytest.raises(BlobStoreIOError) as raised:
        await store.commit([(guid, fill(1))])
    assert raised.value.errno == errno.ENOSPC
    assert not await store.has_blob(guid)
    faults.should_fail = lambda offset, frames: 0
    await store.commit([(guid, fill(2))])
    assert await read(store, guid) == fill(2)


async def test_any_other_failed_log_write_poisons(store):
    faults = Faults(store)
    kept, guid = BlobGuid.random(), BlobGuid.random()
    await store.commit([(kept, fill(7))])
    place = store._core.log.next_offsets(1)[0]
    faults.should_fail = lambda offset, frames: -errno.EIO if offset == place else 0
    with pytest.raises(BlobStoreIOError):
        await store.commit([(guid, fill(1))])
    with pytest.raises(StorePoisoned) as poisoned:
        await store.commit([(guid, fill(1))])
    assert isinstance(poisoned.value.__cause__, BlobStoreIOError)
    with pytest.raises(StorePoisoned):
        await store.flush()
    assert store.needs_flush()
    assert await read(store, kept) == fill(7)


async def test_a_failed_fsync_poisons_and_no_member_is_acknowledged(store, monkeypatch, store_path, engine):
    core = store._core

    def failing_sync():
        failed = Completion(loop=asyncio.get_running_loop())
        asyncio.get_running_loop().call_soon(failed.resolve, -errno.EIO)
        return failed

    monkeypatch.setattr(core.file_io.engine, "sync", failing_sync)
    monkeypatch.setattr(core.file_io.engine, "start_sync", lambda _sink: False)
    outcomes = await asyncio.gather(
        *(store.commit([(BlobGuid.random(), fill(i))]) for i in range(3)), return_exceptions=True
    )
    assert all(isinstance(outcome, (BlobStoreIOError, StorePoisoned)) for outcome in outcomes)
    monkeypatch.undo()
    with pytest.raises(StorePoisoned):
        await store.write_blob(BlobGuid.random(), fill(9))
    with pytest.raises(StorePoisoned):
        await store.aclose()
    async with AsyncFileBlobStore.open(store_path, engine=engine) as again:
        assert (await again.verify()).ok


async def test_a_frame_that_cannot_be_written_leaves_no_trace(store):
    faults = Faults(store)
    guid = BlobGuid.random()
    await store.commit([(guid, fill(1))])
    faults.should_fail = lambda offset, frames: -errno.EIO
    with pytest.raises(BlobStoreIOError) as raised:
        await store.write_blob(guid, fill(2))
    assert raised.value.guid == guid
    assert raised.value.applied is False
    faults.should_fail = lambda offset, frames: 0
    assert await read(store, guid) == fill(1)
    await store.write_blob(guid, fill(3))
    assert await read(store, guid) == fill(3)


async def test_a_large_commit_is_flushed_before_it_is_logged(store, monkeypatch):
    monkeypatch.setattr("uringblob.store.log.group.LARGE_GROUP_BYTES", 8 * PAGE)
    before = store.stats().syncs
    await store.commit([(BlobGuid.random(), fill(i)) for i in range(9)])
    assert store.stats().syncs - before == 2
    before = store.stats().syncs
    await store.commit([(BlobGuid.random(), fill(i)) for i in range(8)])
    assert store.stats().syncs - before == 1


async def test_a_group_that_can_be_neither_finished_nor_wiped_poisons(store):
    """Its block may be on the medium and name a frame that is not: nothing may be written behind it."""
    faults = Faults(store)
    kept, guid = BlobGuid.random(), BlobGuid.random()
    await store.commit([(kept, fill(7))])
    marked = bytes(fill(666))
    place = store._core.log.next_offsets(1)[0]

    def should_fail(offset, frames):
        if bytes(frames[0].view) == marked:
            return -errno.ENOSPC
        return -errno.EIO if offset == place and not any(frames[0].view) else 0

    faults.should_fail = should_fail
    with pytest.raises(BlobStoreIOError) as raised:
        await store.commit([(guid, marked)])
    assert raised.value.errno == errno.EIO
    assert raised.value.applied is None, "it may be there after the next opening"
    with pytest.raises(StorePoisoned) as poisoned:
        await store.commit([(guid, fill(1))])
    cause = poisoned.value.__cause__
    assert (type(cause), str(cause), cause.applied) == (type(raised.value), str(raised.value), None)
    assert cause is not raised.value, "what its caller does with it is his own affair"
    assert await read(store, kept) == fill(7)
    assert not await store.has_blob(guid)


async def test_of_a_large_group_whose_frames_fail_no_block_is_written(store, monkeypatch):
    """It is flushed before it is logged (rule 15), so a frame that fails is seen first."""
    monkeypatch.setattr("uringblob.store.log.group.LARGE_GROUP_BYTES", 2 * PAGE)
    faults = Faults(store)
    log, marked, guid = store._core.log, bytes(fill(666)), BlobGuid.random()
    place, written = log.next_offsets(1)[0], []

    def should_fail(offset, frames):
        written.append(offset)
        return -errno.EIO if marked in bytes(frames[0].view) or len(frames) > 1 else 0

    faults.should_fail = should_fail
    before = store.stats().syncs
    with pytest.raises(BlobStoreIOError) as raised:
        await store.commit([(guid, marked), *((BlobGuid.random(), fill(n)) for n in range(2))])
    assert raised.value.applied is False
    assert place not in written
    assert store.stats().syncs == before
    faults.should_fail = lambda offset, frames: 0
    await store.commit([(guid, fill(1))])
    assert await read(store, guid) == fill(1)
    assert (await store.verify()).blobs_checked == 1


@pytest.mark.parametrize("deletes_first", [True, False])
async def test_of_a_deletion_and_a_write_in_one_group_the_later_wins_and_no_slot_is_lost(
    store, deletes_first
):
    guid, other = BlobGuid.random(), BlobGuid.random()
    await store.commit([(guid, fill(1))])
    store._core.queue._recent_group_size = 2  # so that the first waits for the second
    groups = store.stats().log_groups
    calls = [store.commit(deletes=[guid]), store.commit([(guid, fill(2)), (other, fill(3))])]
    await asyncio.gather(*(calls if deletes_first else reversed(calls)))
    assert store.stats().log_groups == groups + 1
    assert await store.has_blob(guid) is deletes_first
    if deletes_first:
        assert await read(store, guid) == fill(2)
    await store.commit([(other, fill(4))])
    await store.commit([(other, fill(5))])
    stats = store.stats()
    assert stats.slots_live == stats.blobs == 1 + deletes_first
    assert (await store.verify()).ok


class Struck(BaseException):
    """What a signal handler raises."""


async def test_a_handler_that_raises_in_the_committer_ends_every_wait(store, monkeypatch):
    """The group's next step is lost, so the store is poisoned; the members behind it fail, too."""

    def strike(changes):
        raise Struck

    kept = BlobGuid.random()
    await store.commit([(kept, fill(7))])
    queue = store._core.queue
    queue._recent_group_size = 3  # so that all three have come before a group is formed, and one fits into it
    monkeypatch.setattr("uringblob.store.log.group.LARGE_GROUP_BYTES", PAGE)
    monkeypatch.setattr(queue._index, "begin_group", strike)
    seen = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context["exception"]))
    guids = [BlobGuid.random() for _ in range(3)]
    outcomes = await asyncio.gather(
        *(store.commit([(guid, fill(1))]) for guid in guids), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [RuntimeError] * 3
    assert "signal handler raised Struck" in str(outcomes[2])
    assert [type(error) for error in seen] == [Struck], "the loop sees it, as from any callback"
    monkeypatch.undo()
    with pytest.raises(StorePoisoned, match="in the middle of a change"):
        await store.commit([(guids[0], fill(2))])
    assert await read(store, kept) == fill(7)
    assert await store.list_blobs() == [kept]


TAKING, FIRST = inspect.getsourcelines(GroupQueue._write_next)


@pytest.mark.parametrize("line", range(FIRST + 1, FIRST + len(TAKING)))
async def test_a_handler_that_raises_while_a_group_is_formed_ends_every_wait(store, line):
    """Whoever was on his way from one list to the other was once in neither, and waited for ever."""
    await store.commit([(BlobGuid.random(), fill(7))])
    struck = []

    def trace(frame, event, _arg):
        if frame.f_code is not GroupQueue._write_next.__code__:
            return None
        if event == "line" and frame.f_lineno == line and not struck:
            struck.append(line)
            sys.settrace(None)
            raise Struck
        return trace

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    store._core.queue._recent_group_size = 3
    sys.settrace(trace)
    try:
        calls = [asyncio.ensure_future(store.commit([(BlobGuid.random(), fill(n))])) for n in range(3)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        sys.settrace(None)
    expected = RuntimeError if struck else type(None)
    assert [type(outcome) for outcome in outcomes] == [expected] * 3
