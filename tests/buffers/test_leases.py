"""Buffers end with the last thing made of them, and not before."""

from __future__ import annotations

import array
import gc
import mmap
import pickle
import sys

import numpy as np
import pytest

from uringblob.buffers import leases
from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import AlignedBlobBuf, BufferPool, frame_of
from uringblob.buffers.slab import Slab
from uringblob.units import PAGE_SIZE

SIZE = 4096

#: Everything that a user may make of a buffer and keep.
DERIVED = {
    "slice": lambda buf: buf.view[10:20],
    "cast": lambda buf: buf.view.cast("I"),
    "slice of a cast": lambda buf: buf.view.cast("Q")[1:2],
    "second view": lambda buf: memoryview(buf.view),
    "NumPy array": lambda buf: np.frombuffer(buf.view, dtype=np.uint32),
    "NumPy slice": lambda buf: np.frombuffer(buf.view, dtype=np.uint8)[5:7],
    "frame of a request": lambda buf: buf._frame(None),
    "part of a frame": lambda buf: buf._frame(None).part(0, 512),
}


@pytest.fixture(params=["heap", "pool"])
def buf(request):
    if request.param == "heap":
        return AlignedBlobBuf.zeroed(SIZE)
    return BufferPool(SIZE, Slab(SIZE, 4), asked=4, buf_index=0).lease()


@pytest.fixture
def pool():
    return BufferPool(SIZE, Slab(SIZE, 4), asked=4, buf_index=3)


def test_the_default_size_is_a_page():
    assert len(AlignedBlobBuf.zeroed()) == len(AlignedBlobBuf.uninit()) == PAGE_SIZE


@pytest.mark.parametrize("size", [0, -4096, 512, 4097, 64 * 1024 * 1024 + 4096])
@pytest.mark.parametrize("make", [AlignedBlobBuf.zeroed, AlignedBlobBuf.uninit])
def test_sizes_that_no_store_has_are_refused(make, size):
    with pytest.raises(ValueError, match="multiple of 4096"):
        make(size)


def test_a_timeout_that_a_handler_raises_is_no_lack_of_memory(monkeypatch):
    def interrupted(*_, **__):
        raise TimeoutError("the caller's own alarm")

    monkeypatch.setattr(leases.mmap, "mmap", interrupted)
    with pytest.raises(TimeoutError, match="own alarm"):
        AlignedBlobBuf.zeroed(4096)


def test_a_buffer_is_not_made_without_memory():
    with pytest.raises(TypeError, match="zeroed"):
        AlignedBlobBuf()


def test_address_view_and_length(buf):
    assert buf.address % 4096 == 0
    assert len(buf) == SIZE == buf.view.nbytes
    assert buf.view.format == "B"
    assert not buf.view.readonly
    assert np.frombuffer(buf.view, dtype=np.uint8).ctypes.data == buf.address


def test_zeroed_heap_memory_is_zero():
    assert not any(AlignedBlobBuf.zeroed(SIZE).view)


@pytest.mark.parametrize("derive", DERIVED.values(), ids=DERIVED)
def test_release_is_refused_while_something_made_of_it_lives(buf, derive):
    buf.view[:4] = b"abcd"
    kept = derive(buf)
    for _again in range(2):
        with pytest.raises(BufferError, match="alive"):
            buf.release()
        assert bytes(buf.view[:4]) == b"abcd"  # still usable
    buf.view[:4] = b"efgh"
    del kept
    buf.release()


@pytest.mark.parametrize("derive", DERIVED.values(), ids=DERIVED)
def test_what_outlives_the_buffer_keeps_its_frame(pool, derive):
    buf = pool.lease()
    kept = derive(buf)
    del buf
    gc.collect()
    assert pool.leased == 1
    del kept
    assert pool.leased == 0


def test_bytes_written_through_a_survivor_are_not_someone_elses(pool):
    buf = pool.lease()
    array_of_it = np.frombuffer(buf.view, dtype=np.uint8)
    del buf
    others = [pool.lease(zero=True) for _ in range(8)]
    array_of_it[:] = 7
    assert not any(any(other.view) for other in others)


def test_the_own_view_is_released_with_the_buffer(buf):
    view = buf.view
    assert buf.view is view
    buf.release()
    with pytest.raises(ValueError, match="released"):
        view[0]


def test_a_view_that_the_user_released_is_replaced(buf):
    with buf.view as view:
        view[0] = 9
    assert buf.view[0] == 9
    buf.release()


USES = {
    "len": len,
    "address": lambda buf: buf.address,
    "view": lambda buf: buf.view,
    "registered": lambda buf: buf.registered,
    "copy": lambda buf: buf.copy(),
    "with": lambda buf: buf.__enter__(),
    "as a frame": lambda buf: frame_of(buf, SIZE, writable=True, pool=None),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_every_use_after_release_is_a_value_error(buf, use):
    buf.release()
    with pytest.raises(ValueError, match="released"):
        use(buf)
    buf.release()  # a second time is silent
    assert "released" in repr(buf)


def test_with_releases(pool):
    with pool.lease() as buf:
        buf.view[0] = 1
        assert pool.leased == 1
    assert pool.leased == 0
    with pytest.raises(ValueError, match="released"):
        len(buf)


def test_with_raises_if_something_lives_but_never_hides_the_blocks_error(pool):
    with pytest.raises(BufferError), pool.lease() as buf:
        kept = buf.view[1:2]
    with pytest.raises(ZeroDivisionError), pool.lease() as buf:
        kept = buf.view[1:2]
        1 / 0  # noqa: B018
    del kept, buf
    gc.collect()
    assert pool.leased == 0


def test_what_python_3_12_asks_a_class_for_is_the_frame_and_nothing_after_release(buf):
    exported = buf.__buffer__(0)
    exported[:3] = b"abc"
    assert buf.view[:3] == b"abc"
    exported.release()
    buf.release()
    with pytest.raises(ValueError, match="released"):
        buf.__buffer__(0)


def test_copy_is_independent(buf):
    buf.view[:] = b"x" * SIZE
    twin = buf.copy()
    buf.view[:] = b"y" * SIZE
    assert bytes(twin.view) == b"x" * SIZE
    assert twin.address != buf.address


def test_copy_comes_from_the_same_pool_while_it_has_room(pool):
    first = pool.lease()
    copies = [first.copy() for _ in range(4)]
    assert [copy.registered for copy in copies] == [True, True, True, False]
    overflow = copies.pop()
    copies.clear()
    assert overflow.copy().registered


def test_a_buffer_is_not_pickled(buf):
    with pytest.raises(TypeError, match="copy"):
        pickle.dumps(buf)


def test_repr_names_size_address_and_kind(pool):
    buf = pool.lease()
    assert repr(buf) == f"<AlignedBlobBuf 4096 bytes at {buf.address:#x}, registered>"
    assert repr(AlignedBlobBuf.zeroed(SIZE)).endswith("heap>")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="n/a: classes export buffers from Python 3.12 on")
class TestMemoryview:
    def test_memoryview_of_a_buffer_is_its_frame(self, buf):
        with memoryview(buf) as view:
            assert (view.format, view.nbytes, view.readonly) == ("B", SIZE, False)
            view[3] = 33
        assert buf.view[3] == 33
        assert bytes(buf)[3] == 33
        buf.release()

    def test_it_counts_as_something_alive(self, buf):
        view = memoryview(buf)
        piece = view[1:5]
        with pytest.raises(BufferError):
            buf.release()
        view.release()
        del view
        with pytest.raises(BufferError):
            buf.release()
        del piece
        buf.release()
        with pytest.raises(ValueError, match="released"):
            memoryview(buf)

    def test_it_keeps_the_frame(self, pool):
        view = memoryview(pool.lease())
        gc.collect()
        assert pool.leased == 1
        del view
        assert pool.leased == 0

    def test_numpy_takes_the_buffer_itself(self, pool):
        array_of_it = np.frombuffer(pool.lease(), dtype=np.uint16)
        array_of_it[:] = 5
        assert pool.leased == 1
        del array_of_it
        assert pool.leased == 0


# ---- frame_of ---------------------------------------------------------------------------------

ACCEPTED = {
    "bytearray": lambda: bytearray(SIZE),
    "mmap": lambda: mmap.mmap(-1, SIZE),
    "array of doubles": lambda: array.array("d", bytes(SIZE)),
    "two dimensions": lambda: np.zeros((64, 64), dtype=np.uint8),
    "structured": lambda: np.zeros(512, dtype=[("a", "i4"), ("b", "f4")]),
    "dates": lambda: np.zeros(512, dtype="M8[s]"),
    "big endian": lambda: np.zeros(1024, dtype=">u4"),
    "cast memoryview": lambda: memoryview(bytearray(SIZE)).cast("I", [32, 32]),
    "unaligned slice": lambda: memoryview(bytearray(SIZE + 1))[1:],
    "heap buffer": lambda: AlignedBlobBuf.zeroed(SIZE),
}


@pytest.mark.parametrize("make", ACCEPTED.values(), ids=ACCEPTED)
def test_every_contiguous_memory_of_the_right_size_is_a_frame(make):
    obj = make()
    frame = frame_of(obj, SIZE, writable=True, pool=None)
    assert (frame.view.format, frame.view.nbytes, frame.size, frame.buf_index) == ("B", SIZE, SIZE, -1)
    frame.view[-1] = 1
    alias = obj.view if isinstance(obj, AlignedBlobBuf) else memoryview(np.asarray(obj).view(np.uint8))
    assert alias.tobytes()[-1] == 1
    assert np.frombuffer(frame.view, dtype=np.uint8).ctypes.data == frame.address


def test_a_frame_keeps_foreign_memory_alive():
    frame = frame_of(bytearray(b"z" * SIZE), SIZE, writable=False, pool=None)
    gc.collect()
    assert bytes(frame.view) == b"z" * SIZE


def test_read_only_memory_may_be_written_from():
    frame = frame_of(b"q" * SIZE, SIZE, writable=False, pool=None)
    assert frame.view.readonly
    assert bytes(frame.view) == b"q" * SIZE


REFUSED = {
    "too short": (lambda: bytearray(SIZE - 1), ValueError, "4095 bytes where exactly 4096"),
    "too long": (lambda: bytearray(2 * SIZE), ValueError, "8192 bytes where exactly 4096"),
    "empty": (lambda: bytearray(), ValueError, "0 bytes"),
    "wrong elements": (lambda: np.zeros(SIZE, dtype=np.uint16), ValueError, "8192 bytes"),
    "buffer of another size": (lambda: AlignedBlobBuf.zeroed(2 * SIZE), ValueError, "8192 bytes"),
    "read-only": (lambda: bytes(SIZE), ValueError, "writable"),
    "read-only array": (lambda: np.frombuffer(bytes(SIZE), dtype=np.uint8), ValueError, "writable"),
    "every second byte": (lambda: memoryview(bytearray(2 * SIZE))[::2], ValueError, "contiguous"),
    "column major": (lambda: np.zeros((64, 64), dtype=np.uint8, order="F"), ValueError, "contiguous"),
    "text": (lambda: "x" * SIZE, TypeError, None),
    "number": (lambda: SIZE, TypeError, None),
    "nothing": (lambda: None, TypeError, None),
    "list": (lambda: [0] * SIZE, TypeError, None),
}


@pytest.mark.parametrize(("make", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_everything_else_is_refused_in_words(make, error, words):
    with pytest.raises(error, match=words):
        frame_of(make(), SIZE, writable=True, pool=None)


def test_only_the_buffers_own_registered_pool_knows_its_index(pool):
    buf = pool.lease()
    other = BufferPool(SIZE, Slab(SIZE, 4), asked=4, buf_index=0)
    unregistered = BufferPool(SIZE, Slab(SIZE, 4), asked=4)
    assert buf._frame(pool) == IoBuffer(buf.view, buf.address, SIZE, 3)
    assert buf._frame(other).buf_index == -1
    assert buf._frame(None).buf_index == -1
    assert unregistered.lease()._frame(unregistered).buf_index == -1
    pool.retire()
    assert buf._frame(pool).buf_index == -1
