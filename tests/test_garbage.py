"""Frames in garbage cycles: the collector may end them in any order.

The simulated disk found this: one run in ten ended with a segmentation fault, in cffi's hold on a
memoryview that the collector had cleared before it.
"""

from __future__ import annotations

import gc

import pytest

from uringblob.buffers.leases import AlignedBlobBuf, BufferPool, frame_of
from uringblob.buffers.slab import Slab

PAGE = 4096


class Cycle:
    """Garbage as soon as nobody holds it."""

    def __init__(self, *held):
        self.held = held
        self.me = self


def pool():
    return BufferPool(PAGE, Slab(PAGE, 8), asked=8)


def lease_frame(frames):
    return frames.lease()._frame(frames)


MEMORY = {
    "a memoryview": lambda frames: frame_of(memoryview(bytearray(PAGE)), PAGE, writable=True, pool=frames),
    "a slice": lambda frames: frame_of(
        memoryview(bytearray(9000))[7 : 7 + PAGE], PAGE, writable=True, pool=frames
    ),
    "a cast": lambda frames: frame_of(
        memoryview(bytearray(PAGE)).cast("I"), PAGE, writable=False, pool=frames
    ),
    "bytes": lambda frames: frame_of(bytes(PAGE), PAGE, writable=False, pool=frames),
    "a lease": lease_frame,
    "the heap": lambda frames: AlignedBlobBuf.zeroed(PAGE)._frame(frames),
}


@pytest.mark.parametrize("kind", MEMORY)
def test_frames_in_cycles_are_collected_and_leases_come_back(kind):
    frames = pool()
    for _ in range(200):
        frame = MEMORY[kind](frames)
        cycle = Cycle(frame, memoryview(frame.view), frame.view[:10], frame)
        Cycle(cycle, frame.view)
        del frame, cycle
    gc.collect()
    assert frames.leased == 0


def test_a_cycle_of_buffers_views_and_their_pool():
    for _ in range(50):
        frames = pool()
        bufs = [frames.lease() for _ in range(10)]
        Cycle(frames, bufs, [buf.view for buf in bufs], [buf.view[1:5] for buf in bufs])
        del frames, bufs
    gc.collect()
