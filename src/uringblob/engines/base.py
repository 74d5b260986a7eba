"""What the store asks of an engine: positional I/O on one file, as awaitable numbers.

An engine moves bytes and knows nothing of blobs; the store decides and knows nothing of
submission queues, threads or descriptors.  Three rules bind every engine:

1. **Numbers, not exceptions.**  A completion yields ``>= 0`` (bytes moved, or 0) or ``-errno``.
   Results may be short; :mod:`uringblob.engines.transfers` finishes them, once for all engines.
2. **The memory of an operation belongs to the engine until its completion is resolved**;
   the engine keeps a reference to every frame, so a lease cannot end earlier.
3. **A sync covers only writes whose completion was resolved before it began**, except the write
   of the same :meth:`Engine.write_then_sync`.

All methods but :meth:`Engine.read_now` are called on the loop's thread.  Operations asked for
within one loop tick reach the kernel together, in order; they may complete in any order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import BufferPool
from uringblob.completion import Completion


@dataclasses.dataclass
class IoCounters:
    """What an engine has asked of the system since it was opened, and the bytes that were moved."""

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
    ``direct_io`` whether the page cache is bypassed; ``memory_align`` the alignment in bytes
    that frame addresses need (1 where I/O is buffered); ``pool`` the frames it leases;
    ``in_flight`` the operations asked for and not yet resolved.
    """

    name: str
    reason: str
    direct_io: bool
    memory_align: int
    pool: BufferPool

    @property
    def counters(self) -> IoCounters:
        """What was asked of the system so far."""
        ...

    @property
    def in_flight(self) -> int:
        """Operations whose completion is not resolved yet, queued ones included."""
        ...

    def read(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[int]:
        """Fill ``frames``, in order, from ``offset`` on; yields bytes read (0: end of file)."""
        ...

    def read_each(self, reads: Sequence[tuple[int, IoBuffer]], answers: list[Completion[int]]) -> None:
        """Fill each frame from its own offset on, all asked for together.

        Appends each one's completion to ``answers``, which yields what that of :meth:`read` does.
        If this raises, those in the list were asked for, and no others.
        """
        ...

    def read_now(self, offset: int, frame: IoBuffer) -> int:
        """Fill ``frame`` from ``offset`` on, in the calling thread, which may be any, and block meanwhile.

        Returns bytes read or ``-errno``; 0 also where the engine cannot do it.  Not counted here.
        """
        ...

    def write(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[int]:
        """Write ``frames``, in order, from ``offset`` on; yields bytes written."""
        ...

    def write_then_sync(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[tuple[int, int]]:
        """One gathered write linked to one fdatasync that begins only after it, in one submission.

        Yields both results.  The sync counts only if the write's result is the whole length;
        a short or failed write cancels it (``-ECANCELED``).
        """
        ...

    def sync(self) -> Completion[int]:
        """fdatasync (on macOS: ``F_FULLFSYNC``); yields 0."""
        ...

    def grow(self, size: int) -> Completion[int]:
        """Allocate the file up to ``size`` bytes; yields 0.

        Real blocks where the file system can (fallocate), else only the length.
        After a failure the file is as long as before.
        """
        ...

    def file_size(self) -> int:
        """The file's length in bytes, now, or ``-errno``."""
        ...

    async def close(self) -> None:
        """Wait for everything in flight, then free ring, threads and registrations.

        The descriptor that the engine was given stays open: whoever opened it closes it.  A second call
        does nothing.
        """
        ...

    def abandon(self) -> None:
        """Free what can be freed without waiting or locking: for a forked child and finalizers.

        What nobody works on yet is dropped.  What is in flight ends on the file that it was meant for,
        which stays open, and locked, until then.  Closes this process's copy of the ring's descriptor;
        touches nothing the parent shares.
        """
        ...
