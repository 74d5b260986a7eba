"""What a user holds in hand: one aligned frame of memory.

Python lets ``memoryview.release()`` succeed while a slice of that view is still alive, so the
life of a frame cannot hang on a view.  It hangs on an *exporter*: one object per lease that
exports the frame's bytes, and that every view, slice, cast and NumPy array keeps alive.  When
the last of them is gone the exporter ends, and its end gives the frame back.  A request in
flight holds a view like anyone else, so a frame is never reused under the kernel's hands.
(Checked on CPython 3.10 to 3.13.)
"""

from __future__ import annotations

import contextlib
import mmap
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import cffi

from uringblob.buffers.iobuf import IoBuffer
from uringblob.units import PAGE_SIZE, check_page_size

if TYPE_CHECKING:
    from uringblob.buffers.pool import BufferPool

_ffi: Any = cffi.FFI()
_ADDRESS = _ffi.typeof("uintptr_t")  # parsed now: at its first use it would be parsed under a lock


class AlignedBlobBuf:
    """One frame of writable memory whose address is a multiple of 4096.

    Made by ``store.alloc_blob_buf_zeroed()`` and ``_uninit()``, which lease it from the store's
    registered pool while that has room, or by :meth:`zeroed` and :meth:`uninit` on the heap.
    From Python 3.12 on ``memoryview(buf)`` works too; before, use :attr:`view`.

    Any thread may use it; while a store's call that was given it has not returned, it belongs
    to that call.  After :meth:`release` every use raises ``ValueError``.
    """

    __slots__ = ("__weakref__", "_address", "_exporter", "_fixed", "_leased", "_pool", "_size", "_view")

    _address: int
    _exporter: Any
    _fixed: IoBuffer | None  #: what _frame() returned while the pool was registered
    _leased: bool
    _pool: BufferPool | None
    _size: int
    _view: memoryview | None

    def __init__(self) -> None:
        """Refuse: a buffer without memory would be of no use."""
        raise TypeError("use AlignedBlobBuf.zeroed(), .uninit(), or a store's alloc_blob_buf_*()")

    @classmethod
    def zeroed(cls, page_size: int = PAGE_SIZE) -> AlignedBlobBuf:
        """Return a zero-filled buffer of ``page_size`` bytes on the heap.

        :raises ValueError: not a power of two from 4096 to 16 MiB.
        :raises MemoryError: there is no memory for it.
        """
        return _on_heap(check_page_size(page_size), None)

    @classmethod
    def uninit(cls, page_size: int = PAGE_SIZE) -> AlignedBlobBuf:
        """Return a buffer of ``page_size`` bytes on the heap; the caller fills all of it.

        Raises what :meth:`zeroed` raises.  (Fresh memory from the system is zero anyway.)
        """
        return _on_heap(check_page_size(page_size), None)

    def __len__(self) -> int:
        self._check_held()
        return self._size

    @property
    def address(self) -> int:
        """Where the memory lies, a multiple of 4096."""
        self._check_held()
        return self._address

    @property
    def view(self) -> memoryview:
        """The writable ``memoryview`` of the whole frame, format ``B``.

        It is the buffer's own: :meth:`release` releases it.  Slices, casts and arrays made of
        it are the caller's, and must be gone by then.
        """
        view = self._view
        if view is not None:
            try:
                view.nbytes  # noqa: B018 - the cheapest question that a released view refuses
            except ValueError:  # a caller's ``with buf.view as v:`` released it
                view = None
        if view is None:
            view = self._view = memoryview(self._check_held())
        return view

    @property
    def registered(self) -> bool:
        """Whether the frame lies in the registered fixed-buffer pool of a store that is open."""
        self._check_held()
        return self._leased and self._pool is not None and self._pool.registered

    def copy(self) -> AlignedBlobBuf:
        """Return an independent copy, from the same pool when it has room, else on the heap.

        :raises MemoryError: there is no memory for it.
        """
        with memoryview(self._check_held()) as source:
            twin = _on_heap(self._size, None) if self._pool is None else self._pool.lease()
            twin.view[:] = source
        return twin

    def release(self) -> None:
        """Give the frame back now; a second call does nothing.

        :raises BufferError: a slice, cast or array made of this buffer is still alive, or a
            request in flight holds it.  The buffer stays usable; take :attr:`view` afresh.
        """
        exporter, view = self._exporter, self._view
        if exporter is None:
            return
        last_sight = weakref.ref(exporter)
        self._exporter = self._view = self._fixed = None
        del exporter
        if view is not None:
            with contextlib.suppress(BufferError):  # an array of it lives: found out just below
                view.release()
            del view
        survivor = last_sight()
        if survivor is not None:
            self._exporter = survivor
            raise BufferError(
                "the buffer cannot be released: a slice, cast or array of it is alive, "
                "or a request in flight holds it: let go of that first"
            )

    def __enter__(self) -> AlignedBlobBuf:
        self._check_held()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.release()
        except BufferError:
            # The block's own error matters more; the frame ends with its last view.
            if exc_type is None:
                raise

    def __buffer__(self, flags: int, /) -> memoryview:
        return memoryview(self._check_held())

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("an AlignedBlobBuf is memory at an address: use copy(), or pickle bytes(buf.view)")

    def __repr__(self) -> str:
        if self._exporter is None:
            return "<AlignedBlobBuf released>"
        kind = "registered" if self.registered else "pooled" if self._leased else "heap"
        return f"<AlignedBlobBuf {self._size} bytes at {self._address:#x}, {kind}>"

    def _check_held(self) -> Any:
        """Return the exporter, or raise ``ValueError`` if the frame was given back."""
        exporter = self._exporter
        if exporter is None:
            raise ValueError("this buffer was released: allocate another one")
        return exporter

    def _frame(self, pool: BufferPool | None) -> IoBuffer:
        """Return the whole buffer for an engine that leases from ``pool``.

        The frame has a view of its own, so the memory outlives a release.  A registered frame is
        made once for all requests: making it costs as much as queueing one.
        """
        if pool is None or not self._leased or self._pool is not pool or not pool._registered:
            return IoBuffer(memoryview(self._check_held()), self._address, self._size)
        frame = self._fixed
        if frame is None:
            frame = IoBuffer(memoryview(self._check_held()), self._address, self._size, pool.buf_index)
            self._fixed = frame
        return frame


def buffer_over(
    exporter: Any, address: int, size: int, *, pool: BufferPool | None, leased: bool
) -> AlignedBlobBuf:
    """Make the buffer that holds ``exporter``; the caller drops its own reference.

    ``pool`` is where copies come from, ``leased`` whether the memory does too.
    """
    buf = AlignedBlobBuf.__new__(AlignedBlobBuf)
    buf._view = buf._fixed = None
    buf._pool = pool
    buf._leased = leased
    buf._address = address
    buf._size = size
    buf._exporter = exporter
    return buf


def _on_heap(size: int, pool: BufferPool | None) -> AlignedBlobBuf:
    """Return a zero-filled buffer in a mapping of its own, which ends with its last view."""
    try:
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no memory for a frame of {size} bytes: {error.strerror}") from error
    return buffer_over(mapping, _address_of(mapping), size, pool=pool, leased=False)


def _address_of(exporter: object) -> int:
    return int(_ffi.cast(_ADDRESS, _ffi.from_buffer(exporter)))


def frame_of(obj: Any, size: int, *, writable: bool, pool: BufferPool | None) -> IoBuffer:
    """Return the memory of ``obj`` as a frame for an engine that leases from ``pool``.

    ``obj`` is an :class:`AlignedBlobBuf` or any C-contiguous object with the buffer protocol,
    of any format, that holds exactly ``size`` bytes; ``writable`` says that it will be filled.
    The frame's ``view`` is flat, of format ``B``, and keeps the memory alive; its address may be
    unaligned.  Nothing has been read or written when this raises.

    :raises TypeError: ``obj`` does not support the buffer protocol.
    :raises ValueError: another length, read-only where it must be writable, not C-contiguous,
        or a buffer or view that was released.
    """
    if isinstance(obj, AlignedBlobBuf):
        if obj._size != size:  # before a view is made, which the error's traceback would keep alive
            raise _wrong_length(len(obj), size)
        return obj._frame(pool)
    try:
        # Not memoryview(obj): it knows nothing of some NumPy formats, and cannot cast others.
        memory = _ffi.from_buffer(obj, require_writable=writable)
    except TypeError:  # cffi's words are about C
        raise not_a_buffer(obj) from None
    except (BufferError, ValueError) as error:  # NumPy refuses with the second
        kind = "writable and C-contiguous" if writable else "C-contiguous"
        raise ValueError(f"{kind} memory is needed, and this cannot be had of the buffer: {error}") from error
    if len(memory) != size:
        raise _wrong_length(len(memory), size)
    view = _flat_view(obj, memory)
    address = int(_ffi.cast(_ADDRESS, memory))
    return IoBuffer(view if writable else view.toreadonly(), address, size)


def _flat_view(obj: Any, memory: Any) -> memoryview:
    """Return a view of format ``B`` that keeps ``obj`` alive; ``memory`` is cffi's hold on it.

    A memoryview is not left to that hold: where a garbage cycle has both, CPython clears the view
    before cffi lets go of it, and that crashes the interpreter (CPython 3.11.7, cffi 2.1.1).
    """
    if isinstance(obj, memoryview):
        return obj.cast("B") if obj.nbytes else obj[:]  # to bytes every format can be cast
    return memoryview(_ffi.buffer(memory))


def not_a_buffer(obj: object) -> TypeError:
    """Return the error that says what may stand where a frame is wanted."""
    hint = ": encode it first" if isinstance(obj, str) else ""
    return TypeError(
        "a frame is an AlignedBlobBuf or another object with the buffer protocol (bytes, bytearray, "
        f"memoryview, a NumPy array), not {type(obj).__name__}{hint}"
    )


def _wrong_length(have: int, want: int) -> ValueError:
    return ValueError(
        f"the buffer holds {have} bytes where exactly {want} are needed: a buffer is one whole frame "
        "(store.page_size), or the part that read_blob_range is to fill"
    )
