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
    StorePoisoned,
    tuning,
)
from uringblob.completion import Completion
from uringblob.store import multi_read
from uringblob.store.io import checksum_budget

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


class Withheld:
    """Passes reads on to the engine, and their answers only when the test says so."""

    def __init__(self, store, monkeypatch):
        self.engine = store._core.file_io.engine
        self.real = self.engine.read_each
        self.answers = []
        monkeypatch.setattr(self.engine, "read_each", self.read_each)

    def read_each(self, reads, answers):
        kernel = []
        self.real(reads, kernel)
        for done in kernel:
            answer = Completion(loop=asyncio.get_running_loop())
            self.answers.append((done, answer))
            answers.append(answer)

    async def give(self, position, result=None):
        done, answer = self.answers[position]
        got = await done
        answer.resolve(got if result is None else result)
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.mark.parametrize("count", [1, 2, 40])
async def test_a_batch_goes_out_in_few_submissions_and_needs_no_job_for_each_read(store, count, monkeypatch):
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
    assert len(jobs) == 1
    if after.engine == "io_uring":
        # Eight at once while the kernel has little to do, the rest at the tick's end.
        assert after.ring_enters - before.ring_enters == (1 if count < 8 else 3)
    assert not store._core.index.slots._pins


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
    await withheld.answers[1][0]
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
    real = engine.read_each

    def read_each(reads, answers):
        real(reads[:1], answers)
        raise MemoryError("for the second request")

    monkeypatch.setattr(engine, "read_each", read_each)
    buffers = rooms(store, 2)
    with pytest.raises(MemoryError, match="for the second request"):
        await store.read_blobs(list(zip(GUIDS, buffers, strict=False)))
    assert engine.in_flight == 0
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

    def read_each(reads, answers):
        raise MemoryError("for any request")

    monkeypatch.setattr(engine, "read", read)
    monkeypatch.setattr(engine, "read_each", read_each)
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


@verifying
async def test_what_a_handler_raises_between_two_frames_is_raised_when_the_others_have_ended(
    store, monkeypatch
):
    withheld = Withheld(store, monkeypatch)
    core = store._core
    real, raised = core.file_io.checksum_budget.try_acquire, []

    def strike(size_bytes):
        if not raised:
            raised.append(Struck())
            raise raised[0]
        return real(size_bytes)

    monkeypatch.setattr(core.file_io.checksum_budget, "try_acquire", strike)
    buffers = rooms(store, 3)
    task = asyncio.ensure_future(store.read_blobs(list(zip(GUIDS, buffers, strict=False))))
    await asyncio.sleep(0)
    await withheld.give(0)
    assert raised
    assert not task.done()
    await withheld.give(1)
    assert not task.done()
    with pytest.raises(Struck):
        await withheld.give(2)
    with pytest.raises(RuntimeError, match="a signal handler raised"):
        await task
    assert not core.index.slots._pins
    with pytest.raises(StorePoisoned):
        await store.commit([(GUIDS[0], fill(7))])


@verifying
async def test_a_batch_checks_no_more_frames_an_iteration_than_the_store_may(store, monkeypatch):
    """All answers at once, as from a disk that was slow: 32 checksums in a row would hold the loop up."""
    monkeypatch.setattr(tuning, "BYTES_PER_ITERATION", 4 * PAGE)
    store._core.file_io.checksum_budget._left = 4 * PAGE
    sums = [0]

    def beat():
        sums.append(0)
        handles[0] = asyncio.get_running_loop().call_soon(beat)

    handles = [asyncio.get_running_loop().call_soon(beat)]
    real = multi_read.frame_checksum

    def frame_checksum(frame):
        sums[-1] += len(frame)
        return real(frame)

    for module in (multi_read, checksum_budget):
        monkeypatch.setattr(module, "frame_checksum", frame_checksum)
    buffers = rooms(store, COUNT)
    assert await store.read_blobs(list(zip(GUIDS, buffers, strict=True))) == [None] * COUNT
    handles[0].cancel()
    assert sum(sums) == COUNT * PAGE
    assert max(sums) <= 4 * PAGE


@trusting
async def test_without_checksums_the_reader_is_resumed_once(store, monkeypatch):
    """In what order the frames come makes no difference: the last one's answer is awaited first."""
    withheld = Withheld(store, monkeypatch)
    buffers = rooms(store, 8)
    task = asyncio.ensure_future(store.read_blobs(list(zip(GUIDS, buffers, strict=False))))
    await asyncio.sleep(0)
    for position in range(7):
        await withheld.give(position)
        assert not withheld.answers[position][1]._resumes
        assert withheld.answers[7][1]._resumes  # the job waits for the last, and for nothing else
    await withheld.give(7)
    assert await task == [None] * 8
