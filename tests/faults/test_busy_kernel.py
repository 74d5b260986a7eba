"""Full queues, EAGAIN, EBUSY and EINTR from enter, registration refused (row 15): progress, or a clear error.

Found here: while the kernel refused every submission, with nothing in its hands, the ring tried
again for ever and its callers never heard of it; now it gives up after some seconds, with the
kernel's errno.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from unittest import mock

import pytest

import seeds
from behaviour.work import exercise_and_reopen, fill, frame, guid, missing
from faults.storm import REFUSALS, storm
from uringblob import AsyncFileBlobStore, BlobStoreIOError, EngineUnavailable, StorePoisoned, _native
from uringblob.buffers.slab import Slab
from uringblob.engines.unavailable import RingUnavailable
from uringblob.errors import errno_name
from uringblob.ring import Ring
from uringblob.ring import submission as queue

pytestmark = [pytest.mark.one_interpreter, pytest.mark.usefixtures("needs_uring")]

PAGE = 4096
#: How often each branch is forced.
FORCED = 100
MOODS = ["EAGAIN", "EBUSY", "EINTR", "took nothing", "took a part"]
WAITS = ["EAGAIN in a wait", "EBUSY in a wait", "EINTR in a wait"]


class OneEach(dict):
    """A ring's operations in flight, each of which has a number of its own."""

    def __setitem__(self, number, sink):
        assert number not in self, f"two operations in flight have the number {number}"
        super().__setitem__(number, sink)

    def update(self, entries):
        for number, sink in entries.items():
            self[number] = sink


async def weather(path, seed, forced=FORCED):
    """Work through a storm until it has forced every branch ``forced`` times; return what it did."""
    wanted = [*MOODS, "submission queue full", "completion queue overflow"]
    with storm(seed) as door:
        async with AsyncFileBlobStore.open(
            path, engine="io_uring", page_size=PAGE, queue_depth=4, buffers=8
        ) as store:
            ring = store._core.file_io.engine.ring
            # Normally bounded by the completion queue, so that it cannot overflow.
            ring._queue.in_flight_max = 1000
            ring._in_flight.table = OneEach(ring._in_flight.table)
            version = 0
            while any(door.seen[branch] < forced for branch in wanted):
                version += 1
                await asyncio.gather(*(_commit(store, first, version) for first in range(0, 32, 4)))
                rooms = [bytearray(PAGE) for _ in range(32)]
                assert (
                    await store.read_blobs([(guid(n), room) for n, room in enumerate(rooms)]) == [None] * 32
                )
                assert rooms == [frame(n, PAGE, version) for n in range(32)]
            assert store.stats().in_flight == 0
    async with AsyncFileBlobStore.open(path, engine="io_uring") as store:
        assert not await missing(store, range(32), version)
        assert (await store.verify()).ok
    return door.seen


async def _commit(store, first, version):
    frames = [(guid(n), frame(n, PAGE, version)) for n in range(first, first + 4)]
    if first % 8:
        await store.write_blobs_with_data_sync(frames)
        await store.flush()
    else:
        await store.commit(frames)


async def test_a_store_in_a_storm_goes_on(quick_path):
    seen = await weather(quick_path, seeds.number())
    print(dict(seen))


def test_waits_in_a_storm_wait_on(disk_dir):
    """Starting a ring and using one without a loop are what blocks in a wait."""
    fd = os.open(disk_dir / "file", os.O_RDWR | os.O_CREAT, 0o600)
    frame = Slab(PAGE, 1).frame(0)
    with storm(2) as door, contextlib.closing(Ring(8)) as ring:
        while any(door.seen[branch] < FORCED for branch in WAITS):
            frame.view[:] = bytes([len(door.seen)]) * PAGE
            assert ring.wait(ring.write(fd, 0, frame)) == PAGE
            assert ring.wait(ring.fsync(fd)) == 0
            assert os.pread(fd, PAGE, 0) == bytes(frame.view)
    os.close(fd)


# ---- a kernel that refuses for good -----------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(queue, "REFUSALS_MAX", 5)


def refusing(ring, answer):
    """Have the kernel answer every submission with ``answer``, of a chain and of what was staged."""
    real = ring._queue.lib
    ring._queue.lib = mock.Mock(wraps=real, ub_submit=lambda *_: answer, ub_push=lambda *_: answer)
    return real


@pytest.mark.parametrize("leased", [True, False], ids=["leased", "ordinary memory"])
@pytest.mark.parametrize("answer", [*REFUSALS, 0], ids=lambda a: errno.errorcode.get(-a, "0"))
async def test_a_kernel_that_never_takes_anything_is_an_error_in_the_end(
    quick_path, impatient, answer, leased
):
    store = await AsyncFileBlobStore.open(quick_path, engine="io_uring", page_size=PAGE)
    await fill(store, range(4))
    ring = store._core.file_io.engine.ring
    real = refusing(ring, answer)
    lease = store.alloc_blob_buf_uninit()
    room = lease.view if leased else memoryview(bytearray(PAGE + 1))[1:]
    with pytest.raises(BlobStoreIOError) as caught:
        await store.read_blob(guid(1), lease if leased else room)
    assert caught.value.errno == (-answer or errno.EAGAIN)
    room[:] = frame(1, PAGE, 1)
    with pytest.raises(BlobStoreIOError) as caught:
        await store.commit([(guid(1), lease if leased else room)])
    assert caught.value.errno == (-answer or errno.EAGAIN)
    assert caught.value.applied is None
    ring._queue.lib = real
    await asyncio.sleep(0)  # what resumed this task is counted until its callback returns
    assert store.stats().in_flight == 0
    await store.read_blob(guid(1), lease if leased else room)
    assert room == frame(1, PAGE)
    del room
    lease.release()
    with pytest.raises(StorePoisoned):
        await store.commit([(guid(1), frame(1, PAGE, 1))])
    with pytest.raises(StorePoisoned):
        await store.aclose()
    async with AsyncFileBlobStore.open(quick_path, engine="io_uring") as store:
        assert not await missing(store, range(4))


@pytest.mark.parametrize("answer", REFUSALS, ids=lambda a: errno.errorcode[-a])
def test_a_ring_without_a_loop_gives_up_too(impatient, answer):
    ring = Ring(8)
    real = refusing(ring, answer)
    nops = [ring.nop() for _ in range(20)]
    assert [ring.wait(nop) for nop in nops] == [answer] * 20
    ring._queue.lib = real
    assert ring.wait(ring.nop()) == 0
    ring.close()


# ---- registration and set-up refused ----------------------------------------------------------

REFUSED = {
    "ub_open": "setup",
    "ub_register_files": "register files",
    "ub_register_buffers": "",
    "ub_probe": "",
}
ANSWERS = [errno.ENOMEM, errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, errno.EBUSY]


@pytest.mark.parametrize("call", REFUSED)
async def test_a_step_of_the_start_that_is_refused(quick_path, call):
    """By name a clear error, or fewer registered buffers; by default the other engine; nothing leaks."""
    await exercise_and_reopen(quick_path, page_size=PAGE)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(FORCED):
        answer, engine = ANSWERS[number % len(ANSWERS)], ("auto", "io_uring")[number % 2]
        refused = {call: lambda *_, answer=answer: -answer, "UB_MISMATCH": _native.lib.UB_MISMATCH}
        lib = mock.Mock(wraps=_native.lib, **refused)
        with mock.patch.object(_native, "lib", lib):
            await _open_refused(quick_path, engine, REFUSED[call], answer, call)
        assert len(os.listdir("/proc/self/fd")) == before


async def _open_refused(path, engine, stage, answer, call):
    opening = AsyncFileBlobStore.open(path, engine=engine, buffers=4)
    if stage and engine == "io_uring":
        with pytest.raises(EngineUnavailable) as caught:
            await opening
        assert caught.value.errno == answer
        assert caught.value.stage == stage
        return
    async with opening as store:
        stats = store.stats()
        assert stats.engine == ("pread" if stage else "io_uring")
        assert not stage or str(RingUnavailable(stage, answer)) in stats.engine_reason
        if call == "ub_register_buffers":
            assert stats.buffers_registered == 0
            assert errno_name(answer) in stats.buffers_reason
        assert not await missing(store, range(1, 6))
