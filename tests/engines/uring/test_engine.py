"""The ring engine: the requests it chooses, the chain of a durable batch, growth, registration."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import subprocess
import sys
import textwrap

import pytest

from ring.faulty import FaultyLib
from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.buffers.slab import Slab
from uringblob.engines.posix_calls import finish_growth
from uringblob.engines.request import EngineRequest
from uringblob.engines.unavailable import RingUnavailable
from uringblob.engines.uring import start as uring_start
from uringblob.engines.uring.engine import UringEngine
from uringblob.engines.uring.opcodes import join_neighbours
from uringblob.engines.uring.registration import register_frames
from uringblob.ring import Opcode, Ring, SqeFlags
from uringblob.wait import Wait

PAGE = 4096
#: So many frames are not kept waiting for the tick's end.
MANY = (1 << 20) // PAGE
#: A frame of so many bytes waits for no other of its size.
LARGE = 64 * 1024
FIXED_LINKED = SqeFlags.FIXED_FILE | SqeFlags.IO_LINK


@pytest.fixture(autouse=True)
def _ring_works_here(needs_uring):
    """Everything in this file needs io_uring."""


@pytest.fixture
def fd(disk_dir):
    fd = os.open(disk_dir / "file", os.O_RDWR | os.O_CREAT, 0o600)
    yield fd
    os.close(fd)


def request_for(fd, **changes):
    options = {
        "fd": fd,
        "path": "file",
        "page_size": PAGE,
        "engine": "io_uring",
        "direct": None,
        "buffers": 16,
        "queue_depth": 8,
        "read_only": False,
        "loop": asyncio.get_running_loop(),
    }
    return EngineRequest(**options | changes)


@pytest.fixture
async def engine(fd):
    engine = UringEngine(request_for(fd), False, 1)
    yield engine
    await engine.close()


@pytest.fixture
async def many(fd):
    """An engine with frames for one large batch."""
    engine = UringEngine(request_for(fd, buffers=MANY), False, 1)
    yield engine
    await engine.close()


@pytest.fixture
async def wide(fd):
    """An engine with a frame that is large."""
    engine = UringEngine(request_for(fd, page_size=LARGE, buffers=1), False, 1)
    yield engine
    await engine.close()


def frames_of(engine, contents):
    """Lease a frame for each byte of ``contents`` and fill it with that byte."""
    frames = []
    for content in contents:
        buf = engine.pool.lease()
        buf.view[:] = bytes([content]) * len(buf.view)
        frames.append(buf._frame(engine.pool))
    return frames


def opcodes(engine):
    """Collect the opcodes of each submission."""
    seen = []
    engine.ring.trace = lambda batch: seen.append([Opcode(traced.op.opcode).name for traced in batch])
    return seen


async def test_one_registered_frame_is_one_fixed_request(engine, fd):
    seen = opcodes(engine)
    [frame] = frames_of(engine, [7])
    assert await engine.write(8192, [frame]) == PAGE
    frame.view[:] = bytes(PAGE)
    assert await engine.read(8192, [frame]) == PAGE
    assert bytes(frame.view) == bytes([7]) * PAGE
    assert seen == [["WRITE_FIXED"], ["READ_FIXED"]]


async def test_a_durable_batch_of_neighbours_is_one_write_linked_to_one_fdatasync(engine, fd):
    submissions = []
    engine.ring.trace = submissions.append
    frames = frames_of(engine, range(8))
    assert await engine.write_then_sync(0, frames) == (8 * PAGE, 0)
    [[write, sync]] = submissions
    assert (write.op.opcode, write.op.flags) == (Opcode.WRITE_FIXED, FIXED_LINKED)
    assert (write.op.address, write.op.length, write.op.offset) == (frames[0].address, 8 * PAGE, 0)
    assert (sync.op.opcode, sync.op.flags, sync.op.op_flags) == (Opcode.FSYNC, SqeFlags.FIXED_FILE, 1)
    assert os.pread(fd, 8 * PAGE, 0) == b"".join(bytes([i]) * PAGE for i in range(8))


async def test_a_durable_batch_of_scattered_frames_is_one_gather_linked_to_one_fdatasync(engine, fd):
    seen = opcodes(engine)
    frames = frames_of(engine, range(8))[::-1]
    assert await engine.write_then_sync(0, frames) == (8 * PAGE, 0)
    gather = "WRITEV_FIXED" if engine.ring.supports(Opcode.WRITEV_FIXED) else "WRITEV"
    assert seen == [[gather, "FSYNC"]]
    assert os.pread(fd, 8 * PAGE, 0) == b"".join(bytes([i]) * PAGE for i in range(8)[::-1])


async def test_a_batch_with_foreign_memory_is_one_plain_gather(engine, fd):
    seen = opcodes(engine)
    foreign = AlignedBlobBuf.zeroed(PAGE)
    foreign.view[:] = b"f" * PAGE
    frames = [*frames_of(engine, [1]), foreign._frame(engine.pool), *frames_of(engine, [2])]
    assert await engine.write_then_sync(0, frames) == (3 * PAGE, 0)
    assert seen == [["WRITEV", "FSYNC"]]
    assert [os.pread(fd, 1, i * PAGE) for i in range(3)] == [b"\1", b"f", b"\2"]
    assert await engine.read(PAGE, [foreign._frame(engine.pool)]) == PAGE
    assert seen[1:] == [["READ"]]


async def test_1024_pieces_in_one_request(fd):
    engine = UringEngine(request_for(fd, buffers=1024), False, 1)
    frames = frames_of(engine, [i % 251 for i in range(1024)])[::-1]
    assert await engine.write_then_sync(0, frames) == (1024 * PAGE, 0)
    assert os.pread(fd, 1, 0) == bytes([1023 % 251])
    frames = []
    await engine.close()


async def test_more_batches_than_the_queue_is_deep_stay_whole(engine, fd):
    seen = opcodes(engine)
    frames = frames_of(engine, range(16))
    results = await asyncio.gather(
        *(engine.write_then_sync(i * PAGE, [frames[i % 16]]) for i in range(100)),
        *(engine.read(0, [frame]) for frame in frames),
    )
    assert results[:100] == [(PAGE, 0)] * 100
    for batch in seen:
        assert len(batch) <= 8
        for write, sync in itertools.pairwise(batch):
            assert write != "WRITE_FIXED" or sync == "FSYNC"
        assert batch[-1] != "WRITE_FIXED"
    assert engine.in_flight == 0
    assert engine.counters.linked_syncs == 100


@pytest.mark.parametrize("again", [0, -errno.EIO])
@pytest.mark.parametrize("count", [1, MANY])
async def test_a_whole_write_whose_sync_was_cancelled_is_synced_again(many, count, again):
    """The kernel took only half the chain.  The sync never began, so it is no failed sync."""
    engine = many
    frames = frames_of(engine, [1] * count)
    real = engine.ring._lib

    class HalfChain:
        taken = 0

        def __getattr__(self, name):
            return getattr(real, name)

        def ub_submit(self, core, ops, count):
            self.taken += 1
            if self.taken == 1:
                return real.ub_submit(core, ops, 1)
            if again:
                ops = _with_opcode(ops, 255)
            return real.ub_submit(core, ops, count)

    engine.ring._queue.lib = HalfChain()
    expected = 0 if not again else -errno.EINVAL
    assert await engine.write_then_sync(0, frames) == (count * PAGE, expected)
    assert engine.counters.syncs == 2


async def test_a_large_batch_goes_out_at_once_and_a_small_one_with_its_tick(many):
    frames = frames_of(many, [1] * MANY)
    ring = many.ring
    before = ring.enters
    small = [many.write_then_sync(0, frames[:4]), many.write(0, frames[4:8])]
    assert (ring.enters - before, ring.in_kernel) == (0, 0)
    assert [await each for each in small] == [(4 * PAGE, 0), 4 * PAGE]
    assert ring.enters - before == 1
    batch, write = many.write_then_sync(0, frames), many.write(MANY * PAGE, frames)
    assert (ring.enters - before, ring.in_kernel) == (3, 3)
    assert (await batch, await write) == ((MANY * PAGE, 0), MANY * PAGE)
    assert ring.enters - before == 3


def write_each(engine, *writes):
    """Ask for one write after the other, in one tick; each says how many the kernel has then."""
    written = []
    for offset, frame, in_kernel in writes:
        written.append(engine.write(offset, [frame]))
        assert engine.ring.in_kernel == in_kernel
    return written


@pytest.mark.parametrize("index", [0, -1], ids=["registered", "plain"])
async def test_a_large_write_waits_for_its_log_block_and_both_go_out_at_once(wide, index):
    """In one submission, and without another trip through the loop; what comes then waits for the tick."""
    ring = wide.ring
    before = ring.enters
    large = frames_of(wide, [1])[0]._replace(buf_index=index)
    block, other = (large.part(start, start + PAGE)._replace(buf_index=-1) for start in (0, PAGE))
    written = write_each(wide, (0, large, 0), (LARGE, block, 2), (LARGE + PAGE, other, 2))
    assert [await each for each in written] == [LARGE, PAGE, PAGE]
    assert ring.enters - before == 2


async def test_plain_frames_apart_and_their_log_block_share_a_submission(wide):
    ring = wide.ring
    before = ring.enters
    large = frames_of(wide, [1])[0]._replace(buf_index=-1)
    block = large.part(0, PAGE)
    written = write_each(wide, (0, large, 0), (2 * LARGE, large, 0), (4 * LARGE, block, 3))
    assert [await each for each in written] == [LARGE, LARGE, PAGE]
    assert ring.enters - before == 1


async def test_a_small_write_waits_for_its_tick_where_a_large_one_has_gone_out_with_an_earlier(wide):
    ring = wide.ring
    large = frames_of(wide, [1])[0]
    written = [wide.write(0, [large])]
    await asyncio.sleep(0)
    enters = ring.enters
    written.append(wide.write(LARGE, [large.part(0, PAGE)._replace(buf_index=-1)]))
    assert ring.enters == enters
    assert [await each for each in written] == [LARGE, PAGE]


async def test_a_large_batch_that_the_kernel_refuses_at_once_has_ended(many):
    FaultyLib(many.ring, [-errno.ENXIO])
    batch = many.write_then_sync(0, frames_of(many, [1] * MANY))
    assert batch.done()
    assert await batch == (-errno.ENXIO, -errno.ENXIO)
    assert many.in_flight == 0


def _with_opcode(ops, opcode):
    from uringblob._native import ffi

    changed = ffi.new("struct ub_op[1]", [ops[0]])
    changed[0].opcode = opcode
    return changed


async def test_a_failed_write_cancels_its_sync(fd, disk_dir):
    reader = os.open(disk_dir / "file", os.O_RDONLY)
    engine = UringEngine(request_for(reader, read_only=True), False, 1)
    assert await engine.write_then_sync(0, frames_of(engine, [1])) == (-errno.EBADF, -errno.ECANCELED)
    await engine.close()
    os.close(reader)


async def test_grow_allocates_and_never_shrinks(engine, fd):
    assert await engine.grow(1 << 20) == 0
    assert engine.file_size() == 1 << 20
    assert await engine.grow(1 << 10) == 0
    assert engine.file_size() == 1 << 20


async def test_a_failed_growth_leaves_the_file_as_long_as_it_was(engine, fd):
    os.ftruncate(fd, 8192)
    assert await engine.grow(1 << 62) in {-errno.EFBIG, -errno.ENOSPC}
    assert engine.file_size() == 8192


async def test_growth_without_fallocate_sets_the_length(engine, fd, monkeypatch):
    monkeypatch.setattr(Ring, "supports", lambda _self, _opcode: False)
    assert await engine.grow(1 << 16) == 0
    assert engine.file_size() == 1 << 16
    assert await engine.grow(1 << 62) < 0
    assert engine.file_size() == 1 << 16


async def test_close_settles_everything_and_later_use_is_refused(fd):
    engine = UringEngine(request_for(fd), False, 1)
    buf = engine.pool.lease()
    writes = [engine.write(i * PAGE, [buf._frame(engine.pool)]) for i in range(100)]
    assert buf.registered
    await engine.close()
    assert [write.result() for write in writes] == [PAGE] * 100
    assert not buf.registered
    buf.view[:] = b"x" * PAGE
    with pytest.raises(RuntimeError, match="closed"):
        engine.sync()
    await engine.close()


async def test_the_lease_of_a_cancelled_reader_ends_with_its_operation(engine, fd):
    engine_pool = engine.pool
    reader, writer = os.pipe()
    buf = engine_pool.lease()
    frame = buf._frame(engine_pool)
    read = engine.ring.read(reader, 0, frame)
    del frame
    await asyncio.sleep(0)
    with pytest.raises(BufferError):
        buf.release()
    del buf
    assert engine_pool.leased == 1
    os.write(writer, b"x")
    assert await read == 1
    await asyncio.sleep(0)
    assert engine_pool.leased == 0
    os.close(reader)
    os.close(writer)


async def test_the_first_read_leaves_the_pool_zero(fd):
    os.pwrite(fd, b"x" * PAGE, 0)
    engine = UringEngine(request_for(fd), False, 1)
    assert bytes(engine.pool.lease(zero=True).view) == bytes(PAGE)
    await engine.close()


@pytest.mark.parametrize("buffers", [0, 1])
async def test_few_or_no_registered_buffers(fd, buffers):
    engine = UringEngine(request_for(fd, buffers=buffers), False, 1)
    assert engine.pool.capacity == buffers
    frames = frames_of(engine, [1, 2, 3])
    assert await engine.write_then_sync(0, frames) == (3 * PAGE, 0)
    assert await engine.read(0, frames[::-1]) == 3 * PAGE
    assert [frame.view[0] for frame in frames] == [3, 2, 1]
    await engine.close()


@pytest.mark.parametrize("fits", [0, 1, 5, 14, 15])
def test_the_search_finds_exactly_what_fits(fits):
    class FullRing:
        registered = 0
        attempts = 0

        def register_slab(self, _slab, count):
            assert not self.registered, "registered twice"
            self.attempts += 1
            if count > fits:
                raise OSError(errno.ENOMEM, "no")
            self.registered = count

        def unregister_buffers(self):
            assert self.registered
            self.registered = 0

    ring = FullRing()
    count, reason = register_frames(ring, Slab(PAGE, 16))
    assert count == ring.registered == fits
    assert f"{fits} of 16 frames" in reason
    assert "ENOMEM" in reason
    assert "ulimit -l" in reason
    assert ring.attempts <= 7


def test_what_another_process_took_meanwhile_is_not_counted_on():
    class ShrinkingRing:
        registered = 0
        attempts = 0

        def register_slab(self, _slab, count):
            self.attempts += 1
            if count > (12 if self.attempts <= 5 else 9):
                raise OSError(errno.ENOMEM, "no")
            self.registered = count

        def unregister_buffers(self):
            self.registered = 0

    ring = ShrinkingRing()
    count, _ = register_frames(ring, Slab(PAGE, 16))
    assert count == ring.registered == 9


def test_an_unprivileged_user_gets_what_the_limit_allows(needs_root, disk_dir):
    """In a child, because root is exempt: 8 MiB hold 12 frames of 512 KiB (three huge pages) beside the ring itself."""
    code = f"""
        import asyncio, os, resource
        from uringblob.engines.request import EngineRequest
        from uringblob.engines.uring.engine import UringEngine

        # Everything is imported and open by now: both may be out of another user's reach.
        fd = os.open({str(disk_dir / "file")!r}, os.O_RDWR | os.O_CREAT)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 << 20, 8 << 20))
        os.setgroups([])
        os.setgid(54321)
        os.setuid(54321)

        async def main():
            loop = asyncio.get_running_loop()
            for again in range(3):
                engine = UringEngine(
                    EngineRequest(fd, "file", 524288, "auto", None, 64, 256, False, loop), False, 1
                )
                buf = engine.pool.lease()
                assert buf.registered
                assert await engine.write(0, [buf._frame(engine.pool)]) == 524288
                print(engine.pool.capacity)
                await engine.close()
            print(engine.pool.reason)

        asyncio.run(main())
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, cwd="/"
    )
    assert child.returncode == 0, child.stderr
    first, second, third, reason = child.stdout.splitlines()
    assert 0 < int(first) < 16
    assert first == second == third
    assert f"{first} of 64 frames" in reason
    assert "8388608 bytes" in reason


def test_neighbours_are_joined_only_within_one_buffer():
    view = memoryview(bytearray(1))
    parts = [
        IoBuffer(view, 0, 10, 0),
        IoBuffer(view, 10, 5, 0),
        IoBuffer(view, 15, 5, -1),
        IoBuffer(view, 30, 5, -1),
    ]
    assert [tuple(part)[1:] for part in join_neighbours(parts)] == [(0, 15, 0), (15, 5, -1), (30, 5, -1)]


# ---- what was moved, and where to ---------------------------------------------------------------


async def test_bytes_are_counted_when_they_were_moved(engine, fd):
    """Not what was asked for: a read behind the end and a refused write move nothing."""
    os.ftruncate(fd, PAGE + 512)
    [whole, part, behind] = frames_of(engine, [1, 2, 3])
    assert [
        await engine.read(at, [frame]) for at, frame in ((0, whole), (PAGE, part), (4 * PAGE, behind))
    ] == [
        PAGE,
        512,
        0,
    ]
    assert engine.counters.bytes_read == PAGE + 512
    assert await engine.write(-1 & 0x7FFFFFFFFFFFFFFF, [whole]) < 0
    assert engine.counters.bytes_written == 0
    assert await engine.write_then_sync(0, [whole, part, behind]) == (3 * PAGE, 0)
    assert engine.counters.bytes_written == 3 * PAGE
    waits = [Wait(loop=asyncio.get_running_loop()) for _ in range(3)]
    for n, (frame, wait) in enumerate(zip((whole, part, behind), waits, strict=True)):
        assert engine.start_read(n * PAGE, frame, None, wait)
    for wait in waits:
        await wait
    assert [wait.got for wait in waits] == [PAGE] * 3
    assert engine.counters.bytes_read == 4 * PAGE + 512


async def test_bytes_in_flight_are_not_counted_yet(engine):
    [frame] = frames_of(engine, [1])
    written = engine.write(0, [frame])
    assert engine.counters.bytes_written == 0
    await written
    assert engine.counters.bytes_written == PAGE


async def test_a_growth_that_outlives_its_engine_touches_no_file_of_others(fd, disk_dir):
    """Its end looks at the file, by a number that may be another's by then."""
    engine = UringEngine(request_for(fd), False, 1)
    done = []
    growing = engine.grow(1 << 20)
    growing.add_done_callback(lambda ended: done.append(ended.result()))
    number = engine._fd
    engine.abandon()
    innocent = [os.open(disk_dir / f"innocent{n}", os.O_RDWR | os.O_CREAT) for n in range(4)]
    assert number in innocent
    for each in innocent:
        os.ftruncate(each, 1 << 21)
    # As a file system without fallocate does, or one that fails half-way.
    assert finished_with(engine, -errno.EOPNOTSUPP) == finished_with(engine, -errno.ENOSPC) == -errno.EBADF
    await growing
    assert [os.fstat(each).st_size for each in innocent] == [1 << 21] * 4
    for each in innocent:
        os.close(each)


def finished_with(engine, answer):
    return finish_growth(engine._fd, 0, 1 << 20, answer)


# ---- the trials ---------------------------------------------------------------------------------


@pytest.mark.parametrize("refused", ["READ_FIXED", "WRITE_FIXED", "FSYNC", "FALLOCATE"])
async def test_every_kind_of_request_is_tried_when_the_engine_starts(fd, monkeypatch, refused):
    """Each ends with ECANCELED where the kernel has no thread for it."""
    stages = {"READ_FIXED": "read", "WRITE_FIXED": "write", "FSYNC": "fsync", "FALLOCATE": "fallocate"}
    real = uring_start._answer

    def answer(ring, operation):
        return -errno.ECANCELED if Opcode(operation.opcode).name == refused else real(ring, operation)

    monkeypatch.setattr(uring_start, "_answer", answer)
    with pytest.raises(RingUnavailable, match=f"refused at first {stages[refused]}: ECANCELED") as caught:
        UringEngine(request_for(fd), False, 1)
    assert "RLIMIT_NPROC" in caught.value.message


async def test_a_reader_needs_to_write_nothing(fd, monkeypatch):
    monkeypatch.setattr(uring_start, "try_writes", None)
    await UringEngine(request_for(fd, read_only=True), False, 1).close()
