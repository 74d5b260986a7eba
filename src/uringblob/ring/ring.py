"""The public ring: registration, operations, closing.

The kernel writes into the memory of an operation until that operation completes.  So a ring is freed
when everything is reaped; where that cannot be awaited, the memory is never freed.  Files and buffers
are unregistered before the ring is closed: else the kernel releases them up to 40 ms later, and a
reopen finds the file locked and the memory charged (Linux 6.18).
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Final

from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.slab import Slab
from uringblob.completion import Completion
from uringblob.errors import check_rc
from uringblob.ring import ops as _ops
from uringblob.ring.driver import RingDriver
from uringblob.ring.ops import Op, Opcode, TracedOp
from uringblob.ring.setup import SETUP_LADDER, SetupFlags, probe_opcodes
from uringblob.ring.stats import RingStats

# Plain ints: looking up and packing an enum member costs more than the rest of a call.
_NOP: Final = int(Opcode.NOP)
_READ_FIXED: Final = int(Opcode.READ_FIXED)
_WRITE_FIXED: Final = int(Opcode.WRITE_FIXED)


class Ring(RingDriver):
    """An io_uring of ``entries`` submission queue entries (rounded up to a power of two).

    :param loop: resolves the completions; ``None``: they are waited for with :meth:`wait`.
    :param setup_ladder: sets of flags to try in turn; see :mod:`uringblob.ring.setup`.
    :raises OSError: there is no extension, or the kernel refuses; the message says which.
    :raises ValueError: ``setup_ladder`` has a flag that a ring cannot have; the message names it.

    Every operation returns a :class:`~uringblob.completion.Completion` that yields the kernel's
    result: ``>= 0`` or ``-errno``, never an exception.  It cannot be cancelled: a task cancelled
    while it awaits one is resumed when the operation has ended.  The ring keeps the memory of an
    operation alive until then.  ``file`` is a descriptor, or with ``flags=SqeFlags.FIXED_FILE``
    the index of a registered file; ``offset`` is in bytes.  Operations beyond the size of the
    queues wait for room.  Linked operations go through :meth:`chain` and :meth:`submit`, made by
    the functions of :mod:`uringblob.ring.ops`.

    A ring belongs to one thread, its loop's if it has one, and takes no lock.  Use from another
    thread, or from a signal handler that interrupted the ring, is an error that is not detected.
    When the thread that submitted an operation ends, the operation may fail.  After a fork only
    the parent may use the ring; the child's copy is closed at once.

    Every operation raises ``ValueError`` for numbers out of range and ``RuntimeError`` after
    ``close``; nothing is queued then.
    """

    __slots__ = ("_files", "_opcodes", "_registered_bytes")

    def __init__(
        self,
        entries: int = 256,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        setup_ladder: Sequence[SetupFlags] = SETUP_LADDER,
    ) -> None:
        self._opcodes: frozenset[int] | None = None
        self._files = 0
        self._registered_bytes = 0
        super().__init__(entries, loop, setup_ladder)

    # -- registration ---------------------------------------------------------------------

    def register_files(self, fds: Sequence[int]) -> None:
        """Register these open files, as 0, 1, ... with ``SqeFlags.FIXED_FILE``.

        Linked operations need it: a linked operation looks its descriptor up only when it starts.

        :raises OSError: refused, or there are registered files already.
        """
        self._check_open()
        rc = self._lib.ub_register_files(self._c_ring, list(fds), len(fds))
        check_rc(rc, f"io_uring_register of {len(fds)} files")
        self._files = len(fds)

    def unregister_files(self) -> None:
        """Unregister the files; nothing may be in flight on them."""
        self._check_open()
        check_rc(self._lib.ub_unregister_files(self._c_ring), "io_uring_register: unregister files")
        self._files = 0

    def register_slab(self, slab: Slab, count: int | None = None) -> int:
        """Register the first ``count`` frames of ``slab`` (all) as one buffer; return its index.

        The kernel pins the memory, which counts against RLIMIT_MEMLOCK, while the ring is open;
        at most 1 GiB.  Keep the slab alive until then.

        :raises OSError: refused (ENOMEM: the limit), or there is a registered slab already.
        """
        self._check_open()
        size = (slab.count if count is None else count) * slab.frame_size
        vector = self._ffi.new("struct iovec *")
        vector.iov_base = self._ffi.cast("void *", slab.address)
        vector.iov_len = size
        rc = self._lib.ub_register_buffers(self._c_ring, vector, 1)
        check_rc(rc, f"io_uring_register of a buffer of {size} bytes")
        self._registered_bytes = size
        return 0

    def unregister_buffers(self) -> None:
        """Unregister the slab; nothing may be in flight on it."""
        self._check_open()
        check_rc(self._lib.ub_unregister_buffers(self._c_ring), "io_uring_register: unregister buffers")
        self._registered_bytes = 0

    def supports(self, opcode: int) -> bool:
        """Whether this kernel has ``opcode``, by IORING_REGISTER_PROBE."""
        if self._opcodes is None:
            self._check_open()
            self._opcodes = probe_opcodes(self._ffi, self._lib, self._c_ring)
        return opcode in self._opcodes

    # -- operations -----------------------------------------------------------------------

    def nop(self, *, flags: int = 0) -> Completion[int]:
        """Do nothing; yields 0."""
        return self._enqueue(_NOP, flags, -1, 0, 0, 0, 0, 0, None)

    def read(self, file: int, offset: int, buffer: IoBuffer, *, flags: int = 0) -> Completion[int]:
        """Read into any memory; yields bytes read, 0 at the end of the file.  Linux 5.6."""
        return self._enqueue(*_ops.read(file, offset, buffer, flags=flags))

    def write(self, file: int, offset: int, buffer: IoBuffer, *, flags: int = 0) -> Completion[int]:
        """Write any memory; yields bytes written.  Linux 5.6."""
        return self._enqueue(*_ops.write(file, offset, buffer, flags=flags))

    def read_fixed(
        self, file: int, offset: int, buffer: IoBuffer, *, flags: int = 0, submit: bool = False
    ) -> Completion[int]:
        """Read into memory of the registered slab; yields bytes read, 0 at the end of the file.

        ``submit`` enters the kernel at once, with everything queued before, not at the tick's end.
        """
        view, address, size, buf_index = buffer
        return self._enqueue(_READ_FIXED, flags, file, offset, address, size, 0, buf_index, view, submit)

    def read_fixed_each(
        self,
        file: int,
        reads: Sequence[tuple[int, IoBuffer]],
        answers: list[Completion[int]],
        *,
        flags: int = 0,
        submit: bool = False,
    ) -> None:
        """Do :meth:`read_fixed` for each offset and buffer; append the completions to ``answers``."""
        ops = [_ops.read_fixed(file, offset, buffer, flags=flags) for offset, buffer in reads]
        self.submit(ops, submit=submit, answers=answers)

    def write_fixed(
        self, file: int, offset: int, buffer: IoBuffer, *, flags: int = 0, submit: bool = False
    ) -> Completion[int]:
        """Write memory of the registered slab; yields bytes written.  ``submit`` as above."""
        view, address, size, buf_index = buffer
        return self._enqueue(_WRITE_FIXED, flags, file, offset, address, size, 0, buf_index, view, submit)

    def readv(
        self, file: int, offset: int, buffers: Sequence[IoBuffer], *, flags: int = 0
    ) -> Completion[int]:
        """Read into buffers in any memory, in order; yields bytes read, 0 at the end of the file."""
        return self._enqueue(*_ops.readv(file, offset, buffers, flags=flags))

    def writev(
        self, file: int, offset: int, buffers: Sequence[IoBuffer], *, flags: int = 0
    ) -> Completion[int]:
        """Write buffers in any memory, in order; yields bytes written."""
        return self._enqueue(*_ops.writev(file, offset, buffers, flags=flags))

    def readv_fixed(
        self, file: int, offset: int, buffers: Sequence[IoBuffer], *, flags: int = 0
    ) -> Completion[int]:
        """Read into buffers in the registered slab, in order; yields bytes read.  Linux 6.15."""
        return self._enqueue(*_ops.readv_fixed(file, offset, buffers, flags=flags))

    def writev_fixed(
        self, file: int, offset: int, buffers: Sequence[IoBuffer], *, flags: int = 0
    ) -> Completion[int]:
        """Write buffers in the registered slab, in order; yields bytes written.  Linux 6.15."""
        return self._enqueue(*_ops.writev_fixed(file, offset, buffers, flags=flags))

    def fsync(self, file: int, *, data_only: bool = False, flags: int = 0) -> Completion[int]:
        """fsync (``data_only``: fdatasync); covers writes that completed before; yields 0."""
        return self._enqueue(*_ops.fsync(file, data_only=data_only, flags=flags))

    def fallocate(
        self, file: int, offset: int, size: int, *, mode: int = 0, flags: int = 0
    ) -> Completion[int]:
        """Allocate ``size`` bytes of blocks from ``offset`` on, lengthening the file; yields 0.

        ``mode`` is that of ``fallocate(2)``.
        """
        return self._enqueue(*_ops.fallocate(file, offset, size, mode=mode, flags=flags))

    def ftruncate(self, file: int, size: int, *, flags: int = 0) -> Completion[int]:
        """Set the file's length to ``size`` bytes; yields 0."""
        return self._enqueue(*_ops.ftruncate(file, size, flags=flags))

    def chain(self, *ops: Op, submit: bool = False) -> list[Completion[int]]:
        """Queue ``ops`` so that each begins only when the one before has wholly succeeded.

        After a failed or short one, the rest end with ``-ECANCELED``.  Use registered files.
        Raises what :meth:`submit` raises.
        """
        return self.submit([*(op.link() for op in ops[:-1]), *ops[-1:]], submit=submit)

    # -- closing --------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the ring accepts no more operations."""
        return self._closing

    async def aclose(self) -> None:
        """Accept no more operations, await those in flight, free the ring.

        Cancelling it does not stop it.  A second call awaits the same end.
        """
        self._closing = True
        dropped = False
        try:
            if self._is_mine() and self.in_flight:
                drained = self._when_drained()
                self.flush()
                await drained
        except GeneratorExit:
            dropped = True  # or collected, in any thread
            raise
        finally:
            # The ring is freed only when everything is reaped, however this ends.
            if dropped or (self._is_mine() and self.in_flight):
                self.abandon()
            else:
                self._release()

    def close(self) -> None:
        """As :meth:`aclose`, but blocks.  A second call does nothing."""
        self._closing = True
        try:
            while self._is_mine() and self.in_flight:
                self.flush()
                if self.in_flight:
                    self._block()
        except OSError:  # the kernel refuses to wait
            self._free()
            raise
        self._release()

    def abandon(self) -> None:
        """Free what can be freed without waiting: for finalizers.

        With operations in flight, the loop frees the ring when they have ended; without a loop, their
        memory is never freed.  In a forked child it has no effect on the parent.
        """
        self._closing = True
        if self._is_mine() and self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop was closed after the check
                self._loop.call_soon_threadsafe(self._release_when_drained)
                return
        self._free()

    def __del__(self) -> None:
        if getattr(self, "_c_ring", None) is None or not self._is_mine():
            return
        try:
            if not self._closing:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        finally:  # warnings may be errors
            self._free()

    # -- figures --------------------------------------------------------------------------

    @property
    def trace(self) -> Callable[[list[TracedOp]], None] | None:
        """Called, if set, with the operations of each submission that the kernel accepted."""
        return self._queue.trace

    @trace.setter
    def trace(self, trace: Callable[[list[TracedOp]], None] | None) -> None:
        self._queue.trace = trace

    @property
    def enters(self) -> int:
        """Calls of ``io_uring_enter``."""
        return self._c_ring.enters

    @property
    def bytes_read(self) -> int:
        """Bytes that completed reads have transferred."""
        return self._c_ring.moved[0]

    @property
    def bytes_written(self) -> int:
        """Bytes that completed writes have transferred."""
        return self._c_ring.moved[1]

    def stats(self) -> RingStats:
        """Return the current figures; works after ``close`` too."""
        c_ring = self._c_ring
        return RingStats(
            sq_entries=c_ring.sq_entries,
            cq_entries=c_ring.cq_entries,
            setup_flags=SetupFlags(c_ring.setup_flags),
            files=self._files,
            registered_bytes=self._registered_bytes,
            enters=c_ring.enters,
            submitted=c_ring.accepted,
            completed=c_ring.reaped,
            waiting=len(self._queue),
            in_flight=self.in_flight,
            closed=self.closed,
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.in_flight} in flight"
        return f"<Ring of {self._c_ring.sq_entries} entries, {state}, {self._c_ring.accepted} submitted>"
