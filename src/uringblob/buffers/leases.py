"""Frames of memory and their leases: the buffer a user holds, and the pool that leases it.

``memoryview.release()`` succeeds while a slice of that view is alive, so a lease cannot end with a
view.  It ends with its *exporter*: one object per lease that exports the frame's bytes, and that
every view, slice, cast, NumPy array and request in flight keeps alive.  Its destructor returns the
frame.  (Checked on CPython 3.10 to 3.13.)

The pool has no lock, because finalizers return frames, and a signal handler may interrupt a lease
and lease a frame itself.  It is one dict from the index of a leased frame to the token of its
lease, and every change is one dict operation, which CPython does not interrupt: to lease,
``setdefault(index, token)``, and the caller that finds its own token has the frame; to return,
``pop(index)``.  With a list as a stack, an exception between the pop and the assignment would lose
the index.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import weakref
from itertools import filterfalse
from types import TracebackType
from typing import Any, NoReturn

from uringblob.buffers.iobuf import IoBuffer, address_of, ffi
from uringblob.buffers.slab import Slab
from uringblob.owner import Owner
from uringblob.units import PAGE_SIZE, check_page_size


class AlignedBlobBuf:
    """One frame of writable memory whose address is a multiple of 4096.

    Made by ``store.alloc_blob_buf_zeroed()`` and ``_uninit()``, which lease it from the store's
    registered pool while that has room, or by :meth:`zeroed` and :meth:`uninit` on the heap.
    From Python 3.12 on ``memoryview(buf)`` works too; before, use :attr:`view`.

    A lease ends with :meth:`release`, with ``with``, or when the buffer and everything made of it
    is collected.  An exception holds the buffers of the call that it came from until it is gone,
    because its traceback holds the local variables of each function in it: inside ``except``, and
    while a saved exception lives, :meth:`release` raises ``BufferError``.  Leave the ``except``
    block first, or drop the traceback (``error.with_traceback(None)``).

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
        """Refuse: use :meth:`zeroed`, :meth:`uninit` or a store."""
        raise TypeError("use AlignedBlobBuf.zeroed(), .uninit(), or a store's alloc_blob_buf_*()")

    @classmethod
    def zeroed(cls, page_size: int = PAGE_SIZE) -> AlignedBlobBuf:
        """Return a zero-filled buffer of ``page_size`` bytes on the heap.

        :raises ValueError: not a multiple of 4096 from 4096 to 64 MiB.
        :raises MemoryError: there is no memory for it.
        """
        return _on_heap(check_page_size(page_size), None)

    @classmethod
    def uninit(cls, page_size: int = PAGE_SIZE) -> AlignedBlobBuf:
        """Return what :meth:`zeroed` returns: fresh memory from the system is zero anyway."""
        return cls.zeroed(page_size)

    def __len__(self) -> int:
        self._check_held()
        return self._size

    @property
    def address(self) -> int:
        """The address of the memory, a multiple of 4096."""
        self._check_held()
        return self._address

    @property
    def view(self) -> memoryview:
        """The writable ``memoryview`` of the whole frame, format ``B``; :meth:`release` releases it."""
        view = self._view
        if view is not None:
            try:
                view.nbytes  # noqa: B018 - the cheapest access that a released view refuses
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
        """Return the frame now; a second call does nothing.

        :raises BufferError: a slice, cast or array of it is alive, or a request in flight or an
            exception's traceback holds it.  The buffer stays usable; take :attr:`view` afresh.
        """
        exporter, view = self._exporter, self._view
        if exporter is None:
            return
        alive = weakref.ref(exporter)
        self._exporter = self._view = self._fixed = None
        del exporter
        if view is not None:
            with contextlib.suppress(BufferError):  # an array of it is alive: found out just below
                view.release()
            del view
        survivor = alive()
        if survivor is not None:
            self._exporter = survivor
            raise BufferError(
                "the buffer cannot be released: a slice, cast or array of it is alive, "
                "or a request in flight or an error's traceback holds it: let go of that first"
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
            if exc_type is None:
                raise
            self._exporter = None  # the lease ends with the last view, such as one that the error holds

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
        """Return the exporter, or raise ``ValueError`` after a release."""
        exporter = self._exporter
        if exporter is None:
            raise ValueError("this buffer was released: allocate another one")
        return exporter

    def _frame(self, pool: BufferPool | None) -> IoBuffer:
        """Return the whole buffer, with a view of its own, for an engine that leases from ``pool``.

        Cached for a registered frame: making one costs as much as queueing a request.
        """
        if pool is None or not self._leased or self._pool is not pool or not pool.registered:
            return IoBuffer(memoryview(self._check_held()), self._address, self._size)
        frame = self._fixed
        if frame is None:
            frame = IoBuffer(memoryview(self._check_held()), self._address, self._size, pool.buf_index)
            self._fixed = frame
        return frame


class BufferPool(Owner):
    """Frames of one slab for lease, the lowest free one first; then the heap.

    :param page_size: bytes in a frame.
    :param slab: where the frames lie; ``None`` leases from the heap only.
    :param asked: how many frames the user requested.
    :param buf_index: the index under which the kernel knows the slab, -1 if it does not.
    :param reason: why fewer frames than asked are registered, in words; may be empty.
    :param capacity: lease only the first ``capacity`` frames; default all of the slab.

    Frames leased one after the other are adjacent where possible: they are written with one request.
    Any thread, signal handler or finalizer may call any method.
    """

    def __init__(
        self,
        page_size: int,
        slab: Slab | None,
        *,
        asked: int,
        buf_index: int = -1,
        reason: str = "",
        capacity: int | None = None,
    ) -> None:
        frames = 0 if slab is None else slab.count
        self.page_size = page_size
        self.slab = slab
        self.asked = asked
        self.buf_index = buf_index
        self.reason = reason
        self.capacity = frames if capacity is None else min(capacity, frames)
        #: Whether the kernel holds the slab as a fixed buffer, and the store is open.
        self.registered = buf_index >= 0 and self.capacity > 0
        self._owners: dict[int, object] = {}
        self._used: set[int] = set()

    @property
    def huge(self) -> bool:
        """Whether the slab lies on huge pages."""
        return self.slab is not None and self.slab.huge

    @property
    def leased(self) -> int:
        """Frames of the slab that are in use now: as buffers, views of them, or in flight."""
        return len(self._owners)

    def retire(self) -> None:
        """Note that the kernel no longer holds the slab; leased buffers stay usable memory."""
        self.registered = False

    def lease(self, *, zero: bool = False) -> AlignedBlobBuf:
        """Return a frame, whose contents are arbitrary unless ``zero``.

        :raises MemoryError: the slab is exhausted, and the heap too.
        """
        slab = self.slab
        while slab is not None and len(self._owners) < self.capacity:
            index = next(filterfalse(self._owners.__contains__, range(self.capacity)), -1)
            if index < 0:
                break
            exporter = self._claim(slab, index)
            if exporter is None:
                continue  # another thread took it first: search again
            address = slab.address + index * self.page_size
            if zero and index in self._used:
                ctypes.memset(address, 0, self.page_size)
            self._used.add(index)
            return _buffer(exporter, address, self.page_size, self, leased=True)
        return _on_heap(self.page_size, self)

    def _claim(self, slab: Slab, index: int) -> Any:
        """Return the exporter of frame ``index``, or ``None`` if another lease has it."""
        owners = self._owners
        token = object()
        try:
            if owners.setdefault(index, token) is not token:
                return None
            return slab.exporter(index, owners.pop)
        except BaseException:
            # If an exporter was made, it is freed by now and has returned the frame.  If not, our
            # token is still there, and nothing else removes it.
            if owners.get(index) is token:
                owners.pop(index)
            raise


def _buffer(
    exporter: Any, address: int, size: int, pool: BufferPool | None, *, leased: bool
) -> AlignedBlobBuf:
    """Return the buffer over ``exporter``; copies come from ``pool``, the memory too if ``leased``."""
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
        if error.errno is None:
            raise  # no answer of the system: a signal handler raised it
        raise MemoryError(f"no memory for a frame of {size} bytes: {error.strerror}") from error
    return _buffer(mapping, address_of(ffi.from_buffer(mapping)), size, pool, leased=False)


def frame_of(obj: Any, size: int, *, writable: bool, pool: BufferPool | None) -> IoBuffer:
    """Return the memory of ``obj`` for an engine that leases from ``pool``.

    ``obj`` is an :class:`AlignedBlobBuf` or any C-contiguous object with the buffer protocol, of
    any format and alignment, that holds exactly ``size`` bytes; ``writable``: it will be filled.

    :raises TypeError: ``obj`` does not support the buffer protocol.
    :raises ValueError: another length, read-only where it must be writable, not C-contiguous,
        or a buffer or view that was released.
    """
    if isinstance(obj, AlignedBlobBuf):
        if obj._size != size:
            raise _wrong_length(len(obj), size)
        return obj._frame(pool)
    try:
        # Not memoryview(obj), which does not know some NumPy formats and cannot cast others.
        memory = ffi.from_buffer(obj, require_writable=writable)
    except TypeError:  # cffi's message is about C
        raise not_a_buffer(obj) from None
    except (BufferError, ValueError) as error:  # NumPy raises the second
        kind = "writable and C-contiguous" if writable else "C-contiguous"
        raise ValueError(f"{kind} memory is needed, and this cannot be had of the buffer: {error}") from error
    if len(memory) != size:
        raise _wrong_length(len(memory), size)
    # A memoryview is not left to cffi's hold on it: where a garbage cycle has both, CPython clears the
    # view before cffi lets go of it, which crashes the interpreter (CPython 3.11.7, cffi 2.1.1).
    if not isinstance(obj, memoryview):
        view = memoryview(ffi.buffer(memory))
    else:
        view = obj.cast("B") if size else obj[:]  # to bytes every format can be cast
    return IoBuffer(view if writable else view.toreadonly(), address_of(memory), size)


def not_a_buffer(obj: object) -> TypeError:
    """Return the error for an object that is no buffer."""
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
