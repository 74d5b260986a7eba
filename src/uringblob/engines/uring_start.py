"""Starting a ring for one file: every step tried, every refusal named.

Any step may be refused with any errno, also the first real I/O, so each is tried here, before
anybody relies on it.
"""

from __future__ import annotations

from collections.abc import Callable

from uringblob.engines.refusal import RingRefused
from uringblob.engines.registration import register_frames
from uringblob.engines.request import EngineRequest
from uringblob.engines.uring_shapes import READ, Shapes
from uringblob.pool import BufferPool
from uringblob.ring import Ring
from uringblob.slab import Slab
from uringblob.units import BUF_ALIGN


def start_ring(request: EngineRequest) -> tuple[Ring, BufferPool]:
    """Return a ring in which the file is registered, and the pool of frames that it registered.

    :raises RingRefused: a step was refused; nothing is left behind.
    :raises OSError: the ring could not be made.
    """
    ring = Ring(request.queue_depth, loop=request.loop)
    try:
        _step("register files", lambda: ring.register_files([request.fd]))
        _check("nop", ring.wait(ring.nop()))
        pool = _make_pool(ring, request)
        _check("first read", _first_read(ring, pool.slab, pool.buf_index))
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


def _first_read(ring: Ring, slab: Slab | None, buf_index: int) -> int:
    """Read the file's first block, the way all reads will go; leave the memory zero."""
    frame = (slab or Slab(BUF_ALIGN, 1)).frame(0, buf_index).part(0, BUF_ALIGN)
    result = ring.wait(ring.submit([Shapes(ring, READ).op(0, [frame])])[0])
    frame.view[:] = bytes(BUF_ALIGN)
    return result


def _step(stage: str, step: Callable[[], None]) -> None:
    try:
        step()
    except OSError as error:
        raise RingRefused(stage, error.errno or 0) from error


def _check(stage: str, result: int) -> None:
    if result < 0:
        raise RingRefused(stage, -result)
