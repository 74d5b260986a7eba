"""Each operation does what its docstring says."""

from __future__ import annotations

import errno
import os
import resource
import signal

import pytest

from uringblob._native import require_lib
from uringblob.buffers.slab import Slab
from uringblob.ring import Opcode, Ring, SetupFlags, SqeFlags, ops
from uringblob.ring.ops import GATHER_PIECES_MAX

FIXED = SqeFlags.FIXED_FILE


@pytest.fixture
def slab():
    return Slab(4096, 8)


@pytest.fixture
def ready(ring, file, slab):
    """A ring in which ``file`` is registered file 0 and ``slab`` registered buffer 0."""
    ring.register_files([file])
    assert ring.register_slab(slab) == 0
    return ring


def needs_opcode(ring, opcode):
    if not ring.supports(opcode):
        pytest.skip(f"n/a: this kernel has no {opcode.name}")


def test_fixed_reads_and_writes(ready, slab):
    assert ready.wait(ready.read_fixed(0, 3 * 4096, slab.frame(0, 0), flags=FIXED)) == 4096
    assert bytes(slab.frame(0).view) == bytes([3]) * 4096
    assert ready.wait(ready.write_fixed(0, 9 * 4096, slab.frame(0, 0), flags=FIXED)) == 4096
    assert ready.wait(ready.read_fixed(0, 9 * 4096, slab.frame(1, 0), flags=FIXED)) == 4096
    assert bytes(slab.frame(1).view) == bytes([3]) * 4096


def test_many_fixed_reads_are_one_submission_and_an_answer_each(ready, slab):
    answers, before = [], ready.enters
    reads = [(block * 4096, slab.frame(block, 0)) for block in (2, 0, 5)]
    assert ready.read_fixed_each(0, reads, answers, flags=FIXED, submit=True) is None
    assert ready.enters == before + 1
    assert [ready.wait(answer) for answer in answers] == [4096] * 3
    assert [frame.view[0] for _, frame in reads] == [2, 0, 5]
    with pytest.raises(ValueError, match="registered memory"):
        ready.read_fixed_each(0, [*reads, (0, slab.frame(1))], answers, flags=FIXED)
    assert (len(answers), ready.in_flight) == (3, 0), "all are queued, or none"


def test_descriptors_work_beside_registered_files(ready, slab, file):
    assert ready.wait(ready.read_fixed(file, 4096, slab.frame(0, 0))) == 4096
    assert ready.wait(ready.read(file, 8192, slab.frame(1))) == 4096
    assert ready.wait(ready.write(file, 0, slab.frame(1))) == 4096
    assert os.pread(file, 1, 0) == b"\2"


def test_the_end_of_the_file_is_zero(ready, slab):
    assert ready.wait(ready.read_fixed(0, 1 << 20, slab.frame(0, 0), flags=FIXED)) == 0


def test_vectors_keep_their_order(ready, slab, file):
    frames = [slab.frame(i, 0) for i in (5, 2, 7)]
    assert ready.wait(ready.readv(0, 4 * 4096, frames, flags=FIXED)) == 3 * 4096
    assert [frame.view[0] for frame in frames] == [4, 5, 6]
    assert ready.wait(ready.writev(0, 0, frames[::-1], flags=FIXED)) == 3 * 4096
    assert [os.pread(file, 1, block * 4096) for block in range(3)] == [b"\6", b"\5", b"\4"]


def test_fixed_vectors_keep_their_order(ready, slab, file):
    needs_opcode(ready, Opcode.WRITEV_FIXED)
    frames = [slab.frame(i, 0) for i in (5, 2, 7)]
    assert ready.wait(ready.readv_fixed(0, 4 * 4096, frames, flags=FIXED)) == 3 * 4096
    assert [frame.view[0] for frame in frames] == [4, 5, 6]
    assert ready.wait(ready.writev_fixed(0, 0, frames[::-1], flags=FIXED)) == 3 * 4096
    assert [os.pread(file, 1, block * 4096) for block in range(3)] == [b"\6", b"\5", b"\4"]


def test_as_many_pieces_as_a_request_holds(ring, file, slab):
    piece = slab.frame(0).part(0, 16)
    assert ring.wait(ring.readv(file, 0, [piece] * GATHER_PIECES_MAX)) == 16 * GATHER_PIECES_MAX
    with pytest.raises(ValueError, match="1025 pieces"):
        ring.readv(file, 0, [piece] * (GATHER_PIECES_MAX + 1))
    with pytest.raises(ValueError, match="0 pieces"):
        ring.readv(file, 0, [])


def test_fixed_requests_refuse_memory_that_is_not_registered(ring, slab):
    with pytest.raises(ValueError, match="registered slab"):
        ring.read_fixed(0, 0, slab.frame(0))
    with pytest.raises(ValueError, match="one registered buffer"):
        ring.writev_fixed(0, 0, [slab.frame(0, 0), slab.frame(1, -1)])
    for make in (ops.read_fixed, ops.write_fixed):
        with pytest.raises(ValueError, match="_FIXED needs registered memory"):
            make(0, 0, slab.frame(0))
    assert ring.in_flight == 0


def test_errors_are_numbers(ready, slab):
    assert ready.wait(ready.read_fixed(7, 0, slab.frame(0, 0), flags=FIXED)) == -errno.EBADF
    assert ready.wait(ready.fsync(-1)) == -errno.EBADF


def test_fsync_and_fallocate(ready, file):
    assert ready.wait(ready.fsync(0, flags=FIXED)) == 0
    assert ready.wait(ready.fsync(0, data_only=True, flags=FIXED)) == 0
    needs_opcode(ready, Opcode.FALLOCATE)
    done = ready.wait(ready.fallocate(0, 65536, 65536, flags=FIXED))
    assert done in {0, -errno.EOPNOTSUPP}
    assert os.fstat(file).st_size == (131072 if done == 0 else 65536)


def test_a_linked_write_and_fdatasync_are_one_submission(ready, slab):
    seen = []
    ready.trace = seen.append
    chain = ready.chain(
        ops.write_fixed(0, 4096, slab.frame(0, 0), flags=FIXED), ops.fsync(0, data_only=True, flags=FIXED)
    )
    assert [ready.wait(each) for each in chain] == [4096, 0]
    [[write, sync]] = seen
    assert (write.op.opcode, write.op.offset, write.op.length) == (Opcode.WRITE_FIXED, 4096, 4096)
    assert write.op.address == slab.address
    assert write.op.flags == FIXED | SqeFlags.IO_LINK
    assert (sync.op.opcode, sync.op.op_flags, sync.op.flags) == (Opcode.FSYNC, 1, FIXED)


def test_a_short_read_breaks_its_chain(ready, slab):
    short = ops.readv(0, 15 * 4096, [slab.frame(0), slab.frame(1)], flags=FIXED)
    results = [ready.wait(each) for each in ready.chain(short, ops.fsync(0, flags=FIXED), ops.nop())]
    assert results == [4096, -errno.ECANCELED, -errno.ECANCELED]


def test_a_short_write_breaks_its_chain_and_its_fsync_never_begins(ready, slab):
    """The file may grow to 20 blocks; the write wants a part beyond."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 * 4096, limits[1]))
    try:
        short = ops.writev(0, 18 * 4096, [slab.frame(i) for i in range(4)], flags=FIXED)
        results = [ready.wait(each) for each in ready.chain(short, ops.fsync(0, flags=FIXED))]
        beyond = ops.writev(0, 20 * 4096, [slab.frame(0)], flags=FIXED)
        refused = [ready.wait(each) for each in ready.chain(beyond, ops.fsync(0, flags=FIXED))]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert results == [2 * 4096, -errno.ECANCELED]
    assert refused == [-errno.EFBIG, -errno.ECANCELED]


@pytest.mark.parametrize("flags", [SetupFlags.CLAMP, SetupFlags.NONE], ids=str)
def test_every_rung_of_the_ladder_works(flags):
    ring = Ring(8, setup_ladder=[flags])
    assert ring.stats().setup_flags == flags
    bad_in_the_middle = ring.submit([ops.nop(), ops.Op(opcode=255), ops.nop()])
    assert [ring.wait(each) for each in bad_in_the_middle] == [0, -errno.EINVAL, 0]
    ring.close()


def test_without_submit_all_a_bad_operation_in_a_chain_cancels_the_rest():
    ring = Ring(8, setup_ladder=[SetupFlags.CLAMP])
    results = [ring.wait(each) for each in ring.chain(ops.nop(), ops.Op(opcode=255), ops.fsync(-1))]
    assert results[1] == -errno.EINVAL
    assert results[2] == -errno.ECANCELED
    assert ring.wait(ring.nop()) == 0
    assert ring.in_flight == 0
    ring.close()


def test_the_ladder_steps_down_where_the_kernel_refuses():
    refused = SetupFlags(1 << 31)
    ring = Ring(8, setup_ladder=[refused, SetupFlags.CLAMP])
    assert ring.stats().setup_flags == SetupFlags.CLAMP
    ring.close()
    with pytest.raises(OSError, match="io_uring_setup of 8 entries: EINVAL"):
        Ring(8, setup_ladder=[refused])


def test_the_queue_is_clamped_to_what_the_kernel_has():
    ring = Ring(1 << 20)
    assert ring.stats().sq_entries == 32768
    ring.close()


def test_probe(ring):
    assert ring.supports(Opcode.NOP)
    assert ring.supports(Opcode.WRITE_FIXED)
    assert not ring.supports(127)


def test_registering_twice_is_refused_until_unregistered(ready, slab, file):
    with pytest.raises(OSError, match="EBUSY"):
        ready.register_slab(slab)
    with pytest.raises(OSError, match="EBUSY"):
        ready.register_files([file])
    ready.unregister_buffers()
    ready.unregister_files()
    assert ready.wait(ready.read_fixed(0, 0, slab.frame(0, 0), flags=FIXED)) == -errno.EBADF
    ready.register_files([file])
    assert ready.register_slab(slab, 2) == 0
    assert ready.stats().registered_bytes == 8192


def test_repr_and_stats(ring, pipe, slab):
    held = ring.read(pipe[0], 0, slab.frame(0))
    assert repr(ring) == "<Ring of 8 entries, 1 in flight, 0 submitted>"
    ring.flush()
    stats = ring.stats()
    assert (stats.sq_entries, stats.cq_entries, stats.submitted, stats.completed) == (8, 16, 1, 0)
    os.write(pipe[1], b"x")
    ring.wait(held)
    ring.close()
    assert repr(ring) == "<Ring of 8 entries, closed, 1 submitted>"
    assert ring.stats().closed


UNSERVED = [
    *(
        "IOPOLL",
        "SQPOLL",
        "SQ_AFF",
        "CQSIZE",
        None,
        "ATTACH_WQ",
        "R_DISABLED",
        None,
        None,
        None,
        "SQE128",
        "CQE32",
    ),
    *("SINGLE_ISSUER", "DEFER_TASKRUN", "NO_MMAP", "REGISTERED_FD_ONLY", "NO_SQARRAY", "HYBRID_IOPOLL"),
    *("CQE_MIXED", "SQE_MIXED"),
]


@pytest.mark.parametrize("bit", [n for n, name in enumerate(UNSERVED) if name], ids=UNSERVED.__getitem__)
def test_a_flag_that_the_queues_are_not_made_for_is_refused_by_name(bit):
    """Wherever on the ladder it stands: with SQE128 every second operation was taken for another one's."""
    before = len(os.listdir("/proc/self/fd"))
    for ladder in ([1 << bit], [SetupFlags.CLAMP | 1 << bit, SetupFlags.NONE], [SetupFlags.NONE, 1 << bit]):
        with pytest.raises(ValueError, match=f"set up with {UNSERVED[bit]},"):
            Ring(8, setup_ladder=ladder)
    assert len(os.listdir("/proc/self/fd")) == before


def test_c_itself_opens_no_ring_with_a_flag_that_it_does_not_know_to_serve():
    ffi, lib = require_lib()
    core = ffi.new("struct ub_ring *")
    served = SetupFlags.CLAMP | SetupFlags.SUBMIT_ALL | SetupFlags.COOP_TASKRUN | SetupFlags.TASKRUN_FLAG
    for bit in range(32):
        if not served >> bit & 1:
            assert lib.ub_open(core, 8, 1 << bit) == -errno.EINVAL
            assert core.fd == -1


@pytest.mark.parametrize("ladder", [[], [-1], [1 << 32]], ids=str)
def test_a_ladder_without_a_rung_or_of_other_numbers_is_refused(ladder):
    with pytest.raises(ValueError, match=r"ladder|32 bits"):
        Ring(8, setup_ladder=ladder)
