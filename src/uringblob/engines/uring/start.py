"""Starting a ring for one file: every step is tried, every refusal named.

Any step may be refused with any errno, also the first real I/O, so each kind of request that the engine
makes later is tried here.

**Some requests need a kernel thread**: fsync, fallocate, writes that lengthen a file.  At a limit of
threads (RLIMIT_NPROC, a container's pids.max) a nop and a read work, and these end with ``ECANCELED``.
So the trials set ``IOSQE_ASYNC``, which takes such a thread.  The kernel keeps it while the loop's thread
lives, so that a limit reached later costs speed only (Linux 6.18).  Writes are tried on a file in memory,
because no byte of the store's file may be overwritten.
"""

from __future__ import annotations

import os
import tempfile
from typing import Final

from uringblob.buffers.leases import BufferPool
from uringblob.buffers.slab import Slab
from uringblob.engines.request import EngineRequest
from uringblob.engines.unavailable import RingUnavailable
from uringblob.engines.uring.opcodes import READ, WRITE, OpcodeChooser
from uringblob.engines.uring.registration import register_frames
from uringblob.errors import NO_SPACE_ERRNOS
from uringblob.ring import Op, Opcode, Ring, SqeFlags
from uringblob.ring import ops as _ops
from uringblob.units import BUF_ALIGN

_ASYNC: Final = int(SqeFlags.ASYNC)  # by a kernel thread


def start_ring(request: EngineRequest) -> tuple[Ring, BufferPool]:
    """Return a ring with the file registered, and the pool of registered frames.

    :raises RingUnavailable: a step was refused; nothing is left behind.
    :raises OSError: the ring could not be made.
    """
    ring = Ring(request.queue_depth, loop=request.loop)
    try:
        try:
            ring.register_files([request.fd])
        except OSError as error:
            raise RingUnavailable("register files", error.errno or 0) from error
        _check("nop", ring.wait(ring.nop()))
        pool = _make_pool(ring, request)
        _try_requests(ring, pool, writes=not request.read_only)
    except BaseException:
        ring.close()
        raise
    return ring, pool


def _make_pool(ring: Ring, request: EngineRequest) -> BufferPool:
    asked = request.buffers_asked
    if asked <= 0:
        return BufferPool(request.page_size, None, asked=0, reason="no buffers were asked for")
    slab = Slab(request.page_size, asked)
    registered, reason = register_frames(ring, slab)
    if not registered:
        return BufferPool(request.page_size, slab, asked=asked, reason=reason)
    return BufferPool(request.page_size, slab, asked=asked, buf_index=0, reason=reason, capacity=registered)


def _try_requests(ring: Ring, pool: BufferPool, *, writes: bool) -> None:
    """Make each kind of request once; leave the memory zero."""
    frame = (pool.slab or Slab(BUF_ALIGN, 1)).frame(0, pool.buf_index).part(0, BUF_ALIGN)
    read = OpcodeChooser(ring, READ).op(0, [frame])
    _check("first read", _answer(ring, read._replace(flags=read.flags | _ASYNC)))
    frame.view[:] = bytes(BUF_ALIGN)
    if writes:
        try_writes(ring, OpcodeChooser(ring, WRITE).op(0, [frame]))


def try_writes(ring: Ring, write: Op) -> None:
    """Make ``write``, an fsync and a growth on a file in memory, each by a kernel thread.

    :raises RingUnavailable: one was refused.
    """
    trial = _trial_file()
    try:
        _check("first write", _answer(ring, write._replace(file=trial, flags=_ASYNC)))
        _check("first fsync", _answer(ring, _ops.fsync(trial, data_only=True)))
        if ring.supports(Opcode.FALLOCATE):
            _check("first fallocate", _answer(ring, _ops.fallocate(trial, BUF_ALIGN, BUF_ALIGN)))
    finally:
        os.close(trial)


def _trial_file() -> int:
    try:
        if hasattr(os, "memfd_create"):
            return os.memfd_create("uringblob-trial")
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    except OSError as error:
        raise RingUnavailable("trial file", error.errno or 0) from error


def _answer(ring: Ring, op: Op) -> int:
    """Make one request; a full file system is no refusal."""
    result = ring.wait(ring.submit([op])[0])
    return 0 if -result in NO_SPACE_ERRNOS else result


def _check(stage: str, result: int) -> None:
    if result < 0:
        raise RingUnavailable(stage, -result)
