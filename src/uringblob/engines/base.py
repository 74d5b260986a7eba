"""The engine protocol: positional I/O on one file, as awaitable numbers.

An engine moves bytes and knows nothing of blobs; the store knows nothing of submission queues, threads
or descriptors.  Three rules bind every engine:

1. **Numbers, not exceptions.**  A completion yields ``>= 0`` (bytes moved, or 0) or ``-errno``.
   Results may be short; :mod:`uringblob.engines.transfers` finishes them, once for all engines.
2. **The memory of an operation belongs to the engine until its completion is resolved**;
   the engine keeps a reference to every frame, so a lease cannot end earlier.
3. **A sync covers only writes whose completion was resolved before it began**, except the write
   of the same :meth:`Engine.write_then_sync`.

An operation is asked for in two ways.  ``read``, ``write``, ``sync`` return a completion, and always take
the request.  ``start_read``, ``start_write``, ``start_sync`` have the result put into a
:class:`~uringblob.completion.Sink`, without a future; they answer false where there is no room at the moment
or the memory is not of the kind, and then nothing was asked for: use the other.

Operations queued within one loop tick reach the kernel together, in order; they may complete in any order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import BufferPool
from uringblob.completion import Completion, Sink


@dataclasses.dataclass
class IoCounters:
    """Requests that an engine has issued since it was opened, and the bytes that they moved."""

    reads: int = 0
    writes: int = 0
    syncs: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    ring_enters: int = 0
    linked_syncs: int = 0


class Engine(Protocol):
    """Positional I/O on one open file.

    ``name`` is ``"io_uring"`` or ``"pread"``; ``reason`` says why this engine was chosen;
    ``blocking``, if set, makes :meth:`start_sync`, and on threads :meth:`start_write`, block and complete
    before they return; ``direct_io`` whether the page cache is bypassed; ``memory_align`` the alignment in bytes
    that frame addresses need (1 where I/O is buffered); ``pool`` the frames it leases.

    All methods belong to the loop's thread, except :meth:`read_now` and :meth:`abandon`.
    """

    name: str
    reason: str
    blocking: bool
    direct_io: bool
    memory_align: int
    pool: BufferPool

    @property
    def counters(self) -> IoCounters:
        """Requests and bytes so far."""

    @property
    def in_flight(self) -> int:
        """Operations whose completion is not resolved, queued ones included."""

    def sinks(self) -> list[Sink]:
        """Return what gets the results of the operations in flight."""

    def read(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[int]:
        """Fill ``frames``, in order, from ``offset`` on; yields bytes read (0: end of file)."""

    def start_read(self, offset: int, frame: IoBuffer, want: int | None, sink: Sink) -> bool:
        """Fill ``frame`` from ``offset`` on; ``sink`` gets the bytes read.

        ``want``: the frame's XXH3; ``sink`` gets a mismatch with it, if the frame is whole.
        """

    def start_write(self, offset: int, frames: Sequence[IoBuffer], sink: Sink) -> bool:
        """Write ``frames``, in order, from ``offset`` on; ``sink`` gets the bytes written."""

    def start_sync(self, sink: Sink) -> bool:
        """fdatasync as :meth:`sync`, submitted at once with everything asked for before; ``sink`` gets 0."""

    def poll(self) -> object:
        """Complete what has ended, before other work of this iteration; does not block."""

    def run_until(self, done: Callable[[], bool]) -> None:
        """Block the loop until ``done()``, completing what was started."""

    def push(self) -> object:
        """Submit what was asked for, which else is submitted at the tick's end."""

    def read_now(self, offset: int, frame: IoBuffer) -> int:
        """Fill ``frame`` from ``offset`` on, blocking the calling thread, which may be any.

        Returns bytes read or ``-errno``; 0 also where the engine cannot do it.  Not counted here.
        """

    def write(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[int]:
        """Write ``frames``, in order, from ``offset`` on; yields bytes written."""

    def write_then_sync(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[tuple[int, int]]:
        """One gathered write linked to one fdatasync that begins only after it, in one submission.

        Yields both results.  The sync counts only if the write's result is the whole length;
        a short or failed write cancels it (``-ECANCELED``).
        """

    def sync(self) -> Completion[int]:
        """fdatasync (on macOS: ``F_FULLFSYNC``); yields 0."""

    def grow(self, size: int) -> Completion[int]:
        """Allocate the file up to ``size`` bytes; yields 0.

        Real blocks where the file system can (fallocate), else only the length.
        After a failure the file is as long as before.
        """

    def cut(self, size: int) -> Completion[int]:
        """Cut the file down to ``size`` bytes; yields 0."""

    def punch(self, offset: int, size: int) -> Completion[int]:
        """Give the blocks of a part of the file back to the file system; it reads as zeroes.  Yields 0.

        ``-EOPNOTSUPP`` and its like (:data:`.posix_calls.NO_FALLOCATE`): the file system cannot.
        """

    def allocate(self, offset: int, size: int) -> Completion[int]:
        """Allocate blocks for a part of the file where it has none, if the file system can; yields 0."""

    def file_size(self) -> int:
        """The file's current length in bytes, or ``-errno``."""

    def next_data(self, offset: int) -> int:
        """The first offset, from ``offset`` on, that is in no hole, or ``-errno``; ENXIO: there is none.

        A hole reads as zeros.  An engine that cannot tell one returns ``offset``.
        """

    async def close(self) -> None:
        """Wait for everything in flight, then free ring, threads and registrations.

        The descriptor that the engine was given stays open and is the caller's.  A second call does
        nothing.
        """

    def abandon(self) -> None:
        """Free what can be freed without waiting or locking: for a forked child and finalizers.

        Queued operations are dropped.  Operations in flight end on their own file, which stays open, and
        locked, until then.  Closes this process's copy of the ring's descriptor; changes nothing that
        the parent process shares.
        """
