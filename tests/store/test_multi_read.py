"""Many reads as one call: few submissions, an outcome each, and no frame given back early."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from uringblob import (
    AsyncFileBlobStore,
    BlobCorrupt,
    BlobGuid,
    BlobNotFound,
    BlobStoreIOError,
    tuning,
)
from uringblob.completion import Completion
from uringblob.ring.completions import InFlight
from uringblob.store import multi_read

PAGE = 4096
COUNT = 40
GUIDS = [BlobGuid(n.to_bytes(16, "big")) for n in range(COUNT)]


class Struck(BaseException):
    """What a signal handler raises."""


def fill(number):
    return (number + 1).to_bytes(2, "big") * (PAGE // 2)


@pytest.fixture(params=[True, False], ids=["verify", "no-verify"])
async def store(request, store_path, engine):
    store = await AsyncFileBlobStore.open(
        store_path, page_size=PAGE, engine=engine, buffers=64, verify=request.param
    )
    await store.commit([(guid, fill(number)) for number, guid in enumerate(GUIDS)])
    yield store
    await store.aclose(flush=False)


verifying = pytest.mark.parametrize("store", [True], indirect=True, ids=["verify"])
trusting = pytest.mark.parametrize("store", [False], indirect=True, ids=["no-verify"])


def rooms(store, count):
    """Aligned memory, which the engine fills where it lies."""
    return [store.alloc_blob_buf_zeroed() for _ in range(count)]


def contents(buffers):
    return [bytes(buffer.view) for buffer in buffers]


def slot_of(store, number):
    return store._core.index.find(GUIDS[number]) >> 64


class HeldBack:
    """Stands before one read's sink, which gets the result only when the test says so."""

    light = False

    def __init__(self, sink):
        self.sink = sink
        self.keep = None
        self.result = asyncio.get_running_loop().create_future()

    def complete(self, result, mismatch=0):
        if not self.result.done():
            self.result.set_result((result, mismatch))

    def reject(self, error):
        raise AssertionError("no request of these tests fails so") from error


class Withheld:
    """Passes reads on to the engine, and their results only when the test says so."""

    def __init__(self, store, monkeypatch):
        self.engine = store._core.file_io.engine
        self.real = self.engine.start_read
        self.reads = []
        monkeypatch.setattr(self.engine, "start_read", self.start_read)

    def start_read(self, offset, frame, want, sink):
        read = HeldBack(sink)
        started = self.real(offset, frame, want, read)
        if started:
            self.reads.append(read)
        return started

    async def give(self, position, result=None):
        read = self.reads[position]
        got, mismatch = await read.result
        read.keep = None
        if result is None:
            read.sink.complete(got, mismatch)
        else:
            read.sink.complete(result)
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.mark.parametrize(("count", "enters"), [(1, 1), (2, 1), (8, 2), (40, 5)])
async def test_a_batch_goes_out_in_few_submissions_and_needs_no_job(store, count, enters, monkeypatch):
    buffers = rooms(store, count)
    file_io = store._core.file_io
    jobs = []
    real = file_io.start
    monkeypatch.setattr(file_io, "start", lambda coroutine: jobs.append(1) or real(coroutine))
    before = store.stats()
    assert await store.read_blobs(list(zip(GUIDS, buffers, strict=False))) == [None] * count
    after = store.stats()
    assert contents(buffers) == [fill(n) for n in range(count)]
    assert after.reads - before.reads == count
    assert after.bytes_read - before.bytes_read == count * PAGE
    assert not jobs
    if after.engine == "io_uring":
        # Four at once while the kernel has little to do, the rest at the tick's end.
        assert after.ring_enters - before.ring_enters == enters
    assert not store._core.index.slots._pins


@pytest.mark.parametrize("count", [2, 40])
async def test_a_batch_runs_in_its_callers_task(store, count):
    tasks = []
    real = store._core.reads.locate

    def locate(guid):
        tasks.append(asyncio.current_task())
        return real(guid)

    store._core.reads.locate = locate
    assert await store.read_blobs([(guid, bytearray(PAGE)) for guid in GUIDS[:count]]) == [None] * count
    assert tasks == [asyncio.current_task()] * count
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_registered_and_plain_memory_aligned_or_not_may_be_mixed(store):
    plain, odd = bytearray(PAGE), memoryview(bytearray(PAGE + 1))[1:]
    leased = store.alloc_blob_buf_zeroed()
    reads = [(GUIDS[3], plain), (GUIDS[4], leased), (GUIDS[5], odd), (GUIDS[5], bytearray(PAGE))]
    assert await store.read_blobs(reads) == [None] * 4
    assert [bytes(memoryview(b.view if b is leased else b)) for _, b in reads] == [
        fill(3), fill(4), fill(5), fill(5),
    ]  # fmt: skip


async def test_each_position_has_its_own_error_and_the_others_are_read(store):
    slot = slot_of(store, 1)
    with open(store.path, "r+b") as file:
        file.seek(slot * PAGE)
        file.write(b"rot")
    buffers = rooms(store, 4)
    wanted = [GUIDS[0], GUIDS[1], b"x" * 16, GUIDS[2]]
    errors = await store.read_blobs(list(zip(wanted, buffers, strict=True)))
    assert [type(error) for error in errors] == [
        type(None),
        BlobCorrupt if store._core.reads.verifies else type(None),
        BlobNotFound,
        type(None),
    ]
    first, _, third, fourth = contents(buffers)
    assert (first, third, fourth) == (fill(0), bytes(PAGE), fill(2))
    if errors[1] is not None:
        assert errors[1].guid == GUIDS[1]
        assert errors[1].__traceback__ is None


async def test_a_read_that_the_system_refused_or_cut_short_is_its_own_positions(store, monkeypatch):
    withheld = Withheld(store, monkeypatch)
    buffers = rooms(store, 3)
    task = asyncio.ensure_future(store.read_blobs(list(zip(GUIDS, buffers, strict=False))))
    await asyncio.sleep(0)
    await withheld.give(0, -errno.EIO)
    await withheld.reads[1].result
    buffers[1].view[512:] = bytes(PAGE - 512)
    await withheld.give(1, 512)  # the rest is asked for again
    await withheld.give(2)
    first, *others = await task
    assert isinstance(first, BlobStoreIOError)
    assert (first.errno, first.guid) == (errno.EIO, GUIDS[0])
    assert others == [None, None]
    assert contents(buffers)[1:] == [fill(1), fill(2)]
    assert not store._core.file_io.poison_cause  # reads never poison


async def test_a_file_cut_off_costs_the_frames_behind_its_end(store):
    order = sorted(range(COUNT), key=lambda number: slot_of(store, number))
    os.truncate(store.path, slot_of(store, order[20]) * PAGE)
    buffers = rooms(store, COUNT)
    errors = await store.read_blobs(list(zip(GUIDS, buffers, strict=True)))
    assert {number for number in range(COUNT) if errors[number] is None} == set(order[:20])
    assert all(isinstance(error, (BlobCorrupt, type(None))) for error in errors)


async def test_a_slot_whose_blob_is_replaced_meanwhile_is_kept_until_the_batch_is_read(store, monkeypatch):
    withheld = Withheld(store, monkeypatch)
    buffers = rooms(store, 2)
    task = asyncio.ensure_future(store.read_blobs(list(zip(GUIDS, buffers, strict=False))))
    await asyncio.sleep(0)
    slots, old = store._core.index.slots, slot_of(store, 0)
    for number in range(3):  # by the third the slot needs nothing but its readers
        await store.commit([(GUIDS[0], fill(100 + number))])
    assert slots.awaits_readers(old)
    await withheld.give(1)
    assert slots.awaits_readers(old)
    await withheld.give(0)
    assert await task == [None, None]
    assert contents(buffers)[0] == fill(0)  # what was visible when the call began
    assert not slots.awaits_readers(old)


async def test_a_cancelled_batch_lets_go_of_its_frames_before_it_returns(store):
    """Cancelled twice, with requests that the kernel has and one that is copied."""
    buffers = rooms(store, 3)
    odd = memoryview(bytearray(PAGE + 1))[1:]
    task = asyncio.ensure_future(store.read_blobs([*zip(GUIDS, buffers, strict=False), (GUIDS[5], odd)]))
    await asyncio.sleep(0)
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for buffer in buffers:
        buffer.release()
    odd.release()
    assert not store._core.index.slots._pins


async def test_a_cancelled_batch_ends_when_the_kernel_has_let_go_of_all_its_frames(store, monkeypatch):
    withheld = Withheld(store, monkeypatch)
    buffers = rooms(store, 3)
    task = asyncio.ensure_future(store.read_blobs(list(zip(GUIDS, buffers, strict=False))))
    await asyncio.sleep(0)
    task.cancel()
    for position in (2, 0):
        await withheld.give(position)
        assert not task.done()
    await withheld.give(1)
    with pytest.raises(asyncio.CancelledError):
        await task
    for buffer in buffers:
        buffer.release()


async def test_a_batch_that_cannot_be_asked_for_is_raised_when_what_was_asked_for_has_ended(
    store, monkeypatch
):
    """A MemoryError is no blob's error; the kernel still fills the first frame when it is raised."""
    engine = store._core.file_io.engine
    real, requests = engine.start_read, []

    def start_read(*request):
        requests.append(request)
        if len(requests) == 2:
            raise MemoryError("for the second request")
        return real(*request)

    monkeypatch.setattr(engine, "start_read", start_read)
    buffers = rooms(store, 2)
    with pytest.raises(MemoryError, match="for the second request"):
        await store.read_blobs(list(zip(GUIDS, buffers, strict=False)))
    assert contents(buffers) == [fill(0), bytes(PAGE)]
    assert not store._core.index.slots._pins


async def test_what_is_copied_ends_too_before_a_batch_that_cannot_be_asked_for_is_raised(
    needs_direct, store, monkeypatch
):
    """Unaligned memory is filled at the very end, by this store: its owner must not have it back by then."""
    engine = store._core.file_io.engine
    real, withheld = engine.read, []

    def read(offset, frames):
        withheld.append((real(offset, frames), Completion(loop=asyncio.get_running_loop())))
        return withheld[-1][1]

    def start_read(*request):
        raise MemoryError("for any request")

    monkeypatch.setattr(engine, "read", read)
    monkeypatch.setattr(engine, "start_read", start_read)
    odd = memoryview(bytearray(PAGE + 1))[1:]
    reads = [(GUIDS[0], odd), (GUIDS[1], store.alloc_blob_buf_zeroed())]
    task = asyncio.ensure_future(store.read_blobs(reads))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    for done, answer in withheld:
        answer.resolve(await done)
    with pytest.raises(MemoryError, match="for any request"):
        await task
    assert odd == fill(0)


async def test_a_batch_for_whose_requests_there_is_no_room_is_read_by_the_slow_way(store, monkeypatch):
    """The engine compares no checksum there: the batch does."""
    engine = store._core.file_io.engine
    monkeypatch.setattr(engine, "start_read", lambda *request: False)
    with open(store.path, "r+b") as file:
        file.seek(slot_of(store, 1) * PAGE)
        file.write(b"rot")
    buffers = rooms(store, 3)
    errors = await store.read_blobs(list(zip(GUIDS, buffers, strict=False)))
    expected = BlobCorrupt if store._core.reads.verifies else type(None)
    assert [type(error) for error in errors] == [type(None), expected, type(None)]
    assert not store._core.index.slots._pins


async def test_what_a_handler_raises_in_a_reads_callback_costs_no_other_read(store, monkeypatch):
    """The reaping that it ends is begun again, and calls the same sinks again."""
    real, struck = multi_read._OneRead.complete, []

    def complete(self, result, mismatch=0):
        real(self, result, mismatch)
        if not struck:
            struck.append(True)
            raise Struck

    monkeypatch.setattr(multi_read._OneRead, "complete", complete)
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    buffers = rooms(store, 8)
    assert await store.read_blobs(list(zip(GUIDS, buffers, strict=False))) == [None] * 8
    assert [type(context["exception"]) for context in reported] == [Struck]
    assert contents(buffers) == [fill(n) for n in range(8)]
    assert not store._core.index.slots._pins


@verifying
@pytest.mark.parametrize("count", [1, 40])
async def test_a_batch_is_checked_within_what_one_reaping_may_complete(store, count, monkeypatch):
    """All results at once, as from a disk that was slow: 40 in a row would hold the loop up."""
    engine = store._core.file_io.engine
    if engine.name != "io_uring":
        pytest.skip("n/a: a thread checks what it reads")
    monkeypatch.setattr(tuning, "COMPLETED_BYTES_AT_ONCE", 4 * PAGE)
    reapings, iterations = [0], [0]

    def beat():
        iterations.append(0)
        handles[0] = asyncio.get_running_loop().call_soon(beat)

    handles = [asyncio.get_running_loop().call_soon(beat)]
    real_reap, real_complete = InFlight.reap, multi_read._OneRead.complete

    def reap(self, *for_s):
        reapings.append(0)
        return real_reap(self, *for_s)

    def complete(self, result, mismatch=0):
        reapings[-1] += result
        iterations[-1] += result
        real_complete(self, result, mismatch)

    monkeypatch.setattr(InFlight, "reap", reap)
    monkeypatch.setattr(multi_read._OneRead, "complete", complete)
    buffers = rooms(store, count)
    reads = list(zip(GUIDS, buffers, strict=False))
    assert await store.read_blobs(reads) == [None] * count
    handles[0].cancel()
    assert sum(reapings) == count * PAGE
    assert max(reapings) <= 4 * PAGE
    assert max(iterations) <= 2 * 4 * PAGE  # one by the completion event, and one at the tick's end


@trusting
async def test_without_checksums_the_reader_is_resumed_once(store, monkeypatch):
    """In what order the frames come makes no difference."""
    withheld = Withheld(store, monkeypatch)
    resumed, real = [], multi_read.ReadBatch.complete

    def complete(self, result, mismatch=0):
        resumed.append(result)
        real(self, result, mismatch)

    monkeypatch.setattr(multi_read.ReadBatch, "complete", complete)
    buffers = rooms(store, 8)
    task = asyncio.ensure_future(store.read_blobs(list(zip(GUIDS, buffers, strict=False))))
    await asyncio.sleep(0)
    for position in (7, 0, 1, 2, 3, 4, 5):
        await withheld.give(position)
        assert not resumed
    await withheld.give(6)
    assert await task == [None] * 8


async def test_frames_too_large_to_be_checked_at_once_are_checked_in_steps(store_path, engine):
    size = 2 * tuning.STEP_BYTES
    async with AsyncFileBlobStore.open(store_path, page_size=size, engine=engine) as store:
        await store.commit([(guid, bytes(size)) for guid in GUIDS[:3]])
        with open(store.path, "r+b") as file:
            file.seek(slot_of(store, 1) * size + size - 1)
            file.write(b"r")
        buffers = rooms(store, 3)
        first, second, third = await store.read_blobs(list(zip(GUIDS, buffers, strict=False)))
        assert (first, third) == (None, None)
        assert isinstance(second, BlobCorrupt)
