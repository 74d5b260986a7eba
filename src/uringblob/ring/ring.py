"""The public ring: registration and operations.

**One thread owns a ring.**  Nothing here takes a lock; use from another thread, or from a signal
handler that interrupted the ring, is an error that is not detected.  An operation belongs to the
thread that submitted it: when that thread ends, what it had in flight may fail.
After a fork only the parent may use the ring; the child calls :meth:`Ring.abandon`.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Final

from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.slab import Slab
from uringblob.completion import Completion
from uringblob.errors import check_rc
from uringblob.ring import ops as _ops
from uringblob.ring.life import RingLife
from uringblob.ring.ops import Op, Opcode, TracedOp
from uringblob.ring.setup import SETUP_LADDER, SetupFlags, probe_opcodes
from uringblob.ring.stats import RingStats

# Plain ints: an enum member costs more to look up and to pack than everything else in a call.
_NOP: Final = int(Opcode.NOP)
_READ_FIXED: Final = int(Opcode.READ_FIXED)
_WRITE_FIXED: Final = int(Opcode.WRITE_FIXED)


class Ring(RingLife):
    """An io_uring of ``entries`` submission queue entries (rounded up to a power of two).

    :param loop: completions are resolved there; ``None``: they are waited for with :meth:`wait`.
    :param setup_ladder: sets of flags to try in turn; see :mod:`uringblob.ring.setup`.
    :raises OSError: no extension, or the kernel refuses; the message says which.
    :raises ValueError: a flag of ``setup_ladder`` that a ring cannot have, by name.

    Every operation returns a :class:`~uringblob.completion.Completion` that yields the kernel's
    number: ``>= 0`` or ``-errno``, never an exception.  It cannot be cancelled: a task cancelled
    while it awaits one goes on when the operation has ended.  The ring keeps the memory of an
    operation alive until then.  ``file`` is a descriptor, or with
    ``flags=SqeFlags.FIXED_FILE`` the index of a registered file; ``offset`` is in bytes.
    More operations than the queues hold wait their turn.  Linked operations go through
    :meth:`chain` and :meth:`submit`, made by the functions of :mod:`uringblob.ring.ops`.

    One thread uses a ring, the one that runs its loop where it has one; nothing here takes a lock.

    Every operation raises ``ValueError`` for numbers out of range and ``RuntimeError`` after
    ``close``; nothing was asked for then.
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
        """Let the kernel hold these open files, as 0, 1, ... with ``SqeFlags.FIXED_FILE``.

        Linked operations need it: a linked operation looks its descriptor up only when it starts.

        :raises OSError: refused, or there are registered files already.
        """
        self._check_open()
        rc = self._lib.ub_register_files(self._core, list(fds), len(fds))
        check_rc(rc, f"io_uring_register of {len(fds)} files")
        self._files = len(fds)

    def unregister_files(self) -> None:
        """Let go of the registered files; nothing may be in flight on them."""
        self._check_open()
        check_rc(self._lib.ub_unregister_files(self._core), "io_uring_register: unregister files")
        self._files = 0

    def register_slab(self, slab: Slab, count: int | None = None) -> int:
        """Register the first ``count`` frames of ``slab`` (all) as one buffer; return its index.

        The kernel pins the memory, which counts against RLIMIT_MEMLOCK, for as long as the ring
        is open; at most 1 GiB.  Keep the slab alive until then.

        :raises OSError: refused (ENOMEM: the limit), or there is a registered slab already.
        """
        self._check_open()
        size = (slab.count if count is None else count) * slab.frame_size
        stretch = self._ffi.new("struct iovec *")
        stretch.iov_base = self._ffi.cast("void *", slab.address)
        stretch.iov_len = size
        rc = self._lib.ub_register_buffers(self._core, stretch, 1)
        check_rc(rc, f"io_uring_register of a buffer of {size} bytes")
        self._registered_bytes = size
        return 0

    def unregister_buffers(self) -> None:
        """Let go of the registered slab; nothing may be in flight on it."""
        self._check_open()
        check_rc(self._lib.ub_unregister_buffers(self._core), "io_uring_register: unregister buffers")
        self._registered_bytes = 0

    def supports(self, opcode: int) -> bool:
        """Whether this kernel has ``opcode``, by IORING_REGISTER_PROBE."""
        if self._opcodes is None:
            self._check_open()
            self._opcodes = probe_opcodes(self._ffi, self._lib, self._core)
        return opcode in self._opcodes

    # -- operations -----------------------------------------------------------------------

    def nop(self, *, flags: int = 0) -> Completion[int]:
        """Do nothing; yields 0."""
        return self._enqueue(_NOP, flags, -1, 0, 0, 0, 0, 0, None)

    def read(self, file: int, offset: int, frame: IoBuffer, *, flags: int = 0) -> Completion[int]:
        """Fill a piece of any memory; yields bytes read, 0 at the end of the file.  Linux 5.6."""
        return self._send(_ops.read(file, offset, frame, flags=flags))

    def write(self, file: int, offset: int, frame: IoBuffer, *, flags: int = 0) -> Completion[int]:
        """Write a piece of any memory; yields bytes written.  Linux 5.6."""
        return self._send(_ops.write(file, offset, frame, flags=flags))

    def read_fixed(
        self, file: int, offset: int, frame: IoBuffer, *, flags: int = 0, now: bool = False
    ) -> Completion[int]:
        """Fill a frame (or part) of the registered slab; yields bytes read, 0 at the file's end.

        ``now`` submits at once, with what was asked for before, and not at the tick's end.
        """
        view, address, size, buf_index = frame
        return self._enqueue(_READ_FIXED, flags, file, offset, address, size, 0, buf_index, view, now)

    def read_fixed_each(
        self,
        file: int,
        reads: Sequence[tuple[int, IoBuffer]],
        answers: list[Completion[int]],
        *,
        flags: int = 0,
        now: bool = False,
    ) -> None:
        """Do :meth:`read_fixed` for each offset and frame; the completions are added to ``answers``."""
        self._check_open()
        new_completion, next_user_data = self._new_completion, self._in_flight.next_user_data
        packed = []
        entries: dict[int, tuple[Completion[int], object]] = {}
        try:
            for offset, (view, address, size, buf_index) in reads:
                user_data = next_user_data()
                packed.append(
                    _ops.pack(user_data, address, offset, size, file, 0, buf_index, _READ_FIXED, flags)
                )
                entries[user_data] = (new_completion(), view)
        except struct.error as error:
            raise ValueError(_ops.OUT_OF_RANGE) from error
        self._enqueue_all(packed, entries, answers, now=now)

    def write_fixed(
        self, file: int, offset: int, frame: IoBuffer, *, flags: int = 0, now: bool = False
    ) -> Completion[int]:
        """Write a frame (or part) of the registered slab; yields bytes written.  ``now`` as above."""
        view, address, size, buf_index = frame
        return self._enqueue(_WRITE_FIXED, flags, file, offset, address, size, 0, buf_index, view, now)

    def readv(self, file: int, offset: int, frames: Sequence[IoBuffer], *, flags: int = 0) -> Completion[int]:
        """Fill pieces of any memory, in order; yields bytes read, 0 at the end of the file."""
        return self._send(_ops.readv(file, offset, frames, flags=flags))

    def writev(
        self, file: int, offset: int, frames: Sequence[IoBuffer], *, flags: int = 0
    ) -> Completion[int]:
        """Write pieces of any memory, in order; yields bytes written."""
        return self._send(_ops.writev(file, offset, frames, flags=flags))

    def readv_fixed(
        self, file: int, offset: int, frames: Sequence[IoBuffer], *, flags: int = 0
    ) -> Completion[int]:
        """Fill pieces of the registered slab, in order; yields bytes read.  Linux 6.15."""
        return self._send(_ops.readv_fixed(file, offset, frames, flags=flags))

    def writev_fixed(
        self, file: int, offset: int, frames: Sequence[IoBuffer], *, flags: int = 0
    ) -> Completion[int]:
        """Write pieces of the registered slab, in order; yields bytes written.  Linux 6.15."""
        return self._send(_ops.writev_fixed(file, offset, frames, flags=flags))

    def fsync(self, file: int, *, data_only: bool = False, flags: int = 0) -> Completion[int]:
        """fsync (``data_only``: fdatasync); covers writes that completed before; yields 0."""
        return self._send(_ops.fsync(file, data_only=data_only, flags=flags))

    def fallocate(self, file: int, offset: int, size: int, *, flags: int = 0) -> Completion[int]:
        """Allocate ``size`` bytes of blocks from ``offset`` on, lengthening the file; yields 0."""
        return self._send(_ops.fallocate(file, offset, size, flags=flags))

    def _send(self, op: Op) -> Completion[int]:
        return self._enqueue(*op)

    # -- looking at it --------------------------------------------------------------------

    @property
    def trace(self) -> Callable[[list[TracedOp]], None] | None:
        """Called, if set, with the operations of each submission that the kernel took."""
        return self._queue.trace

    @trace.setter
    def trace(self, trace: Callable[[list[TracedOp]], None] | None) -> None:
        self._queue.trace = trace

    @property
    def enters(self) -> int:
        """How often ``io_uring_enter`` was called."""
        return self._core.enters

    @property
    def bytes_read(self) -> int:
        """Bytes that reads have moved, as their completions said."""
        return self._core.moved[0]

    @property
    def bytes_written(self) -> int:
        """Bytes that writes have moved, as their completions said."""
        return self._core.moved[1]

    def stats(self) -> RingStats:
        """Return this moment's figures; works after ``close`` too."""
        core = self._core
        return RingStats(
            sq_entries=core.sq_entries,
            cq_entries=core.cq_entries,
            setup_flags=SetupFlags(core.setup_flags),
            files=self._files,
            registered_bytes=self._registered_bytes,
            enters=core.enters,
            submitted=core.accepted,
            completed=core.reaped,
            waiting=len(self._queue),
            in_flight=self.in_flight,
            closed=self.closed,
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.in_flight} in flight"
        return f"<Ring of {self._core.sq_entries} entries, {state}, {self._core.accepted} submitted>"
