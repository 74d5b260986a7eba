"""The engine for Linux: one ring, one registered file, one registered slab.

What was learned (Linux 6.18, ext4, 512 KiB frames, O_DIRECT) and what follows from it:

* **How a durable batch is linked decides.**  Eight frames while eight readers run: a link per
  frame and then the fsync takes 12.6 ms; ``IO_DRAIN`` on the fsync 2.3 ms, but it stalls every
  other request; one gathered write linked to the fsync 3.0 ms, with readers untouched.  So
  :meth:`UringEngine.write_then_sync` is always a chain of two, in one submission.
* **A linked operation looks its descriptor up when it starts.**  If the descriptor were closed
  and reused meanwhile, the fsync would sync another file and report success.  So the file is
  registered, and stays so until the last completion.
* ``IO_HARDLINK`` runs the fsync also after a failed write: never used.  A plain link is cut by
  failed *and* by short writes, and the fsync ends with ``-ECANCELED``, without having begun.
* The fsync may be cancelled although its write was whole: the kernel, short of memory, may take
  only the first half of a chain.  It never began, so it is sent again, by itself.  Where no chain
  was split, that ``-ECANCELED`` is the file system's own, and the fsync has failed.
* **Submitting only at the tick's end makes a convoy.**  All 32 readers are resumed in one tick,
  and the device idles while each checks its frame and asks for the next: 1.3 GB/s, where fio has
  1.8.  So while the kernel has little to do, every fourth transfer is submitted at once: 1.65.
  Large ones are submitted at once whatever the kernel has: what it has completed and nobody has
  reaped yet counts as its own, and 64 committers that resume in one tick take 6 ms.
* Buffered I/O and ``O_DIRECT`` on ext4, xfs and btrfs submit without blocking; FUSE may block.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from typing import Final

from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import BufferPool
from uringblob.completion import Completion
from uringblob.engines.base import IoCounters
from uringblob.engines.own_descriptor import CLOSED, OwnDescriptor
from uringblob.engines.posix_calls import pick_calls, read_now, size_of_file
from uringblob.engines.request import EngineRequest
from uringblob.engines.uring.opcodes import FILE, READ, WRITE, OpcodeChooser
from uringblob.engines.uring.start import start_ring
from uringblob.owner import Owner
from uringblob.ring import Opcode, Ring, SqeFlags
from uringblob.ring import ops as _ops

_FIXED_FILE: Final = int(SqeFlags.FIXED_FILE)

#: A transfer of so many bytes is not kept waiting: its checksum takes longer than an enter.
_LARGE: Final = 64 * 1024
#: So many bytes are not kept waiting for what may share their enter: nothing follows in this tick.
_HUGE: Final = 1024 * 1024
#: So many smaller ones wait for the tick's end, and the next takes them along at once ...
_QUEUED_MAX: Final = 3
#: ... while the kernel has fewer than this many to work on.
_IN_KERNEL_ENOUGH: Final = 16
#: So many reads of a batch, or ``_HUGE`` bytes, make an enter.
_TOGETHER: Final = 8


class UringEngine(Owner):
    """Positional I/O on one open file through a :class:`~uringblob.ring.Ring`; see :class:`.base.Engine`.

    All methods belong to the loop's thread, except :meth:`read_now` and :meth:`abandon`.
    """

    name = "io_uring"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        descriptor: OwnDescriptor,
        ring: Ring,
        pool: BufferPool,
        *,
        direct_io: bool,
        memory_align: int,
        reason: str,
    ) -> None:
        """Take over ``ring``, whose registered file 0 is ``descriptor``'s and buffer 0 the pool's slab."""
        self.reason = reason
        self.direct_io = direct_io
        self.memory_align = memory_align
        self.pool = pool
        self.ring = ring
        self._queue = ring._queue
        self._loop = loop
        self._pid = os.getpid()
        self._descriptor = descriptor
        self._calls = pick_calls()
        self._counters = IoCounters()
        self._moved_before = ring.bytes_read, ring.bytes_written  # by trials
        self._held_at = -1  # enters when a large write began to wait for its log block, or the tick's end
        self._reads = OpcodeChooser(ring, READ)
        self._writes = OpcodeChooser(ring, WRITE)

    @classmethod
    def open(cls, request: EngineRequest, direct_io: bool, memory_align: int) -> UringEngine:
        """Start a ring for the file of ``request``, with as many registered frames as fit.

        :raises RingUnavailable: a step was refused; nothing is left behind.
        :raises OSError: the ring could not be made.
        """
        descriptor = OwnDescriptor(request.fd)
        try:
            ring, pool = start_ring(request)
        except BaseException:
            descriptor.close()  # here, and not with this frame, which the error keeps
            raise
        reason = "asked for by name" if request.engine == "io_uring" else "io_uring works here"
        return cls(
            request.loop,
            descriptor,
            ring,
            pool,
            direct_io=direct_io,
            memory_align=memory_align,
            reason=reason,
        )

    @property
    def counters(self) -> IoCounters:
        """What was asked of the system so far."""
        counters, ring = self._counters, self.ring
        counters.ring_enters = ring.enters
        counters.bytes_read = ring.bytes_read - self._moved_before[0]
        counters.bytes_written = ring.bytes_written - self._moved_before[1]
        return counters

    @property
    def in_flight(self) -> int:
        """Operations whose completion is not resolved yet, queued ones included."""
        return self.ring.in_flight

    @property
    def _fd(self) -> int:
        return self._descriptor.fd

    def read(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[int]:
        """Fill ``frames``, in order, from ``offset`` on; yields bytes read (0: end of file)."""
        counters = self._counters
        counters.reads += 1
        if len(frames) == 1:
            frame = frames[0]
            if frame.buf_index >= 0:
                ring = self.ring
                now = frame.size >= _LARGE or self._device_starves()
                return ring.read_fixed(FILE, offset, frame, flags=_FIXED_FILE, now=now)
        return self.ring.submit([self._reads.op(offset, frames)])[0]

    def read_each(self, reads: Sequence[tuple[int, IoBuffer]], answers: list[Completion[int]]) -> None:
        """Fill each frame, all of one size, from its own offset on; completions are added to ``answers``.

        In few submissions, but not in one: the device begins with the first ones while the next are
        made ready.  (With 16 frames of 4 KiB in one submission a seventh fewer a second were read.)
        """
        step = min(_TOGETHER, max(_HUGE // reads[0][1].size, 1)) if reads else 1
        for start in range(0, len(reads), step):
            part = reads[start : start + step]
            size_bytes = sum([frame.size for _, frame in part])
            self._counters.reads += len(part)
            now = size_bytes >= _LARGE or self._device_starves(len(part))
            if all(frame.buf_index >= 0 for _, frame in part):
                self.ring.read_fixed_each(FILE, part, answers, flags=_FIXED_FILE, now=now)
            else:
                ops = [self._reads.op(offset, (frame,)) for offset, frame in part]
                self.ring.submit(ops, now=now, answers=answers)

    def read_now(self, offset: int, frame: IoBuffer) -> int:
        """Fill ``frame`` in the calling thread, which may be any; bytes read or ``-errno``.

        Not through the ring, which is its thread's: whoever waits for one read has nothing to win there.
        """
        descriptor = self._descriptor  # kept meanwhile, should the engine be abandoned
        return read_now(self._calls, descriptor.fd, offset, frame.view)

    def write(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[int]:
        """Write ``frames``, in order, from ``offset`` on; yields bytes written."""
        counters = self._counters
        counters.writes += 1
        if len(frames) == 1:
            frame = frames[0]
            if frame.buf_index >= 0:
                ring = self.ring
                # Alone it waits: a commit's log block follows and shares the enter.
                now = self._device_starves() or (frame.size >= _LARGE and bool(self._queue.waiting))
                self._held_at = ring.enters if frame.size >= _LARGE and not now else -1
                return ring.write_fixed(FILE, offset, frame, flags=_FIXED_FILE, now=now)
            size = frame.size
        else:
            size = sum(frame.size for frame in frames)
        ring = self.ring
        now = size >= _HUGE or (size < _LARGE and ring.enters == self._held_at)
        self._held_at = ring.enters if _LARGE <= size < _HUGE else -1
        return ring.submit([self._writes.op(offset, frames)], now=now)[0]

    def _device_starves(self, more: int = 1) -> bool:
        queued = len(self._queue.waiting) + more
        return queued > _QUEUED_MAX and self.ring.in_kernel < _IN_KERNEL_ENOUGH

    def write_then_sync(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[tuple[int, int]]:
        """One gathered write linked to one fdatasync that begins only after it, in one submission.

        Yields both results.  The sync counts only if the write's result is the whole length;
        a short or failed write cancels it (``-ECANCELED``).
        """
        size = sum(frame.size for frame in frames)
        split = self.ring.chains_split
        write, sync = self.ring.chain(self._writes.op(offset, frames), _FDATASYNC, now=size >= _HUGE)
        counters = self._counters
        counters.writes += 1
        counters.syncs += 1
        counters.linked_syncs += 1
        return _join(
            self._loop, write, sync, size, lambda: self.sync() if self.ring.chains_split != split else sync
        )

    def sync(self) -> Completion[int]:
        """fdatasync; yields 0."""
        self._counters.syncs += 1
        return self.ring.submit([_FDATASYNC])[0]

    def grow(self, size: int) -> Completion[int]:
        """Allocate the file up to ``size`` bytes; yields 0.

        Real blocks where the file system has fallocate, else only the length.  After a failure
        the file is as long as before.  One growth at a time.
        """
        done: Completion[int] = Completion(loop=self._loop)
        old_size = self.file_size()
        if size <= old_size or old_size < 0:
            done.resolve(min(old_size, 0))
            return done

        def settle(allocation: Completion[int]) -> None:
            # The descriptor of now: an engine that was abandoned meanwhile has none.
            done.resolve(_settle_growth(self._fd, old_size, size, allocation.result()))

        if self.ring.supports(Opcode.FALLOCATE):
            allocation = self.ring.fallocate(FILE, old_size, size - old_size, flags=_FIXED_FILE)
            allocation.add_immediate_callback(settle)
        else:
            done.resolve(_settle_growth(self._fd, old_size, size, -errno.EOPNOTSUPP))
        return done

    def file_size(self) -> int:
        """The file's length in bytes, now, or ``-errno``."""
        return size_of_file(self._fd)

    async def close(self) -> None:
        """Wait for everything in flight, then free the ring and its registrations.

        The descriptor stays open: whoever opened it closes it.  A second call does nothing.
        """
        try:
            await self.ring.aclose()
        except GeneratorExit:
            self.abandon()  # dropped half-way: nothing may be waited for any more
            raise
        finally:
            self.pool.retire()
            self._descriptor.close()

    def abandon(self) -> None:
        """Free what can be freed without waiting or locking: for a forked child and finalizers."""
        self.pool.retire()
        self.ring.abandon()
        if self._pid != os.getpid():
            self._descriptor.close()
        self._descriptor = CLOSED  # the kernel has the file itself for what is in flight

    def __repr__(self) -> str:
        kind = "direct" if self.direct_io else "buffered"
        return f"<UringEngine on descriptor {self._fd}, {kind}, {self.ring!r}>"


_FDATASYNC: Final = _ops.fsync(FILE, data_only=True, flags=_FIXED_FILE)


def _join(
    loop: asyncio.AbstractEventLoop,
    write: Completion[int],
    sync: Completion[int],
    size: int,
    sync_again: Callable[[], Completion[int]],
) -> Completion[tuple[int, int]]:
    """Resolve when both are done, in whatever order they come.

    ``sync_again`` sends the sync once more if it never began, and else returns it.
    """
    both: Completion[tuple[int, int]] = Completion(loop=loop)

    def settle(_: Completion[int]) -> None:
        if write.result() == size and sync.result() == -errno.ECANCELED:
            with contextlib.suppress(RuntimeError):  # closing: nothing more can be sent
                again = sync_again()
                if again is not sync:
                    again.add_immediate_callback(lambda again: both.resolve((size, again.result())))
                    return
        both.resolve((write.result(), sync.result()))

    def settle_after_sync(_: Completion[int]) -> None:
        # Exactly once, whichever came first: a second call would send a second sync.
        if sync.done():
            settle(sync)
        else:
            sync.add_immediate_callback(settle)

    if write.done():  # the kernel refused it at once
        settle_after_sync(write)
    else:
        write.add_immediate_callback(settle_after_sync)
    return both


def _settle_growth(fd: int, old_size: int, size: int, rc: int) -> int:
    """Make of fallocate's answer what :meth:`UringEngine.grow` yields."""
    try:
        if rc == -errno.EOPNOTSUPP:
            os.ftruncate(fd, size)
            return 0
        if rc < 0 and os.fstat(fd).st_size > old_size:
            os.ftruncate(fd, old_size)  # ext4 leaves the file longer
    except OSError as error:
        return -(error.errno or errno.EIO)
    return rc
