"""The engine for Linux: one ring, one registered file, one registered slab.

Measured on Linux 6.18, ext4, 512 KiB frames, O_DIRECT:

* **A durable batch is one gathered write linked to one fsync.**  Eight frames while eight readers run: a
  link per frame and then the fsync takes 12.6 ms; ``IO_DRAIN`` on the fsync 2.3 ms, but it stalls every
  other request; one gathered write linked to the fsync 3.0 ms, without effect on readers.
* **A linked operation looks its descriptor up when it starts.**  If the number were closed and reused
  meanwhile, the fsync would sync another file and report success.  So the file is registered, and stays
  so until the last completion.
* ``IO_HARDLINK`` runs the fsync also after a failed write: never used.  A plain link is cut by failed
  *and* by short writes, and the fsync ends with ``-ECANCELED``, without having begun.
* An fsync may be cancelled although its write was whole: short of memory, the kernel may take only the
  first half of a chain.  The fsync never began, so it is sent again, by itself.  Where no chain was
  split, that ``-ECANCELED`` is the file system's own, and the fsync has failed.
* **Submitting only at the tick's end makes a convoy.**  All 32 readers are resumed in one tick, and the
  device idles while each checks its frame and queues the next read: 1.3 GB/s, where fio has 1.8.  So
  while the kernel has few operations, every fourth transfer is submitted at once: 1.65.  Large ones are
  always submitted at once: completed but unreaped operations count as the kernel's, and 64 committers
  that resume in one tick take 6 ms.
* Buffered I/O and ``O_DIRECT`` on ext4, xfs and btrfs submit without blocking; FUSE may block.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable, Sequence
from typing import Final

from uringblob import tuning
from uringblob.buffers.iobuf import IoBuffer
from uringblob.completion import Completion, Sink
from uringblob.engines.base import IoCounters
from uringblob.engines.own_descriptor import CLOSED, OwnDescriptor
from uringblob.engines.posix_calls import (
    PUNCH_HOLE,
    can_do_without,
    cut_file,
    finish_growth,
    next_data,
    number_of,
    pick_calls,
    size_of_file,
    sync_file,
)
from uringblob.engines.request import EngineRequest
from uringblob.engines.uring.opcodes import FILE, READ, WRITE, OpcodeChooser
from uringblob.engines.uring.start import start_ring
from uringblob.owner import Owner
from uringblob.ring import Opcode, SqeFlags
from uringblob.ring import ops as _ops

_FIXED_FILE: Final = int(SqeFlags.FIXED_FILE)
_READ_FIXED: Final = int(Opcode.READ_FIXED)
_WRITE_FIXED: Final = int(Opcode.WRITE_FIXED)
_READ: Final = int(Opcode.READ)
_WRITE: Final = int(Opcode.WRITE)
_FSYNC: Final = int(Opcode.FSYNC)
_FDATASYNC: Final = _ops.fsync(FILE, data_only=True, flags=_FIXED_FILE)


class UringEngine(Owner):
    """Positional I/O on one open file through a :class:`~uringblob.ring.Ring`; see :class:`.base.Engine`."""

    name = "io_uring"

    def __init__(self, request: EngineRequest, direct_io: bool, memory_align: int) -> None:
        """Start a ring for the file of ``request``, with as many registered frames as fit.

        :raises RingUnavailable: a step was refused; nothing is left behind.
        :raises OSError: the ring could not be made.
        """
        descriptor = OwnDescriptor(request.fd)
        try:
            ring, self.pool = start_ring(request)
        except BaseException:
            descriptor.close()  # not with this stack frame, which the error keeps alive
            raise
        self.reason = "asked for by name" if request.engine == "io_uring" else "io_uring works here"
        self.blocking = False
        self.direct_io = direct_io
        self.memory_align = memory_align
        self.ring = ring
        self._queue, self._c_ring = ring._queue, ring._c_ring
        self.poll: Callable[[], object] = ring.poll
        self.push: Callable[[], object] = ring._queue.push  # one call less for each submission
        self._has_plain = ring.supports(Opcode.READ)  # and WRITE, from 5.6 on
        self._checks = bool(ring._lib.ub_has_xxh3())
        self._loop = request.loop
        self._descriptor = descriptor
        self._calls = pick_calls()
        self._counters = IoCounters()
        self._moved_before = ring.bytes_read, ring.bytes_written  # by trials
        self._held_at = -1  # ring.enters when a large write was queued for the log block that follows
        self._reads = OpcodeChooser(ring, READ)
        self._writes = OpcodeChooser(ring, WRITE)

    @property
    def counters(self) -> IoCounters:
        counters, ring = self._counters, self.ring
        counters.ring_enters = ring.enters
        counters.bytes_read = ring.bytes_read - self._moved_before[0]
        counters.bytes_written = ring.bytes_written - self._moved_before[1]
        return counters

    @property
    def in_flight(self) -> int:
        return len(self.ring._in_flight.table)

    def sinks(self) -> list[Sink]:
        return list(self.ring._in_flight.table.values())

    @property
    def _fd(self) -> int:
        return self._descriptor.fd

    def read(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[int]:
        self._counters.reads += 1
        if len(frames) == 1:
            frame = frames[0]
            if frame.buf_index >= 0:
                submit = frame.size >= tuning.URING_LARGE_BYTES or self._device_starves()
                return self.ring.read_fixed(FILE, offset, frame, flags=_FIXED_FILE, submit=submit)
        return self.ring.submit([self._reads.op(offset, frames)])[0]

    def read_now(self, offset: int, frame: IoBuffer) -> int:
        """See :meth:`.Engine.read_now`; not through the ring, which belongs to its thread."""
        descriptor = self._descriptor  # kept open if the engine is abandoned meanwhile
        return number_of(self._calls.readv, descriptor.fd, (frame.view,), offset)

    def write(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[int]:
        self._counters.writes += 1
        ring = self.ring
        if len(frames) == 1:
            frame = frames[0]
            size = frame.size
            if frame.buf_index >= 0:
                # The first waits: a commit's log block follows and shares the enter.
                submit = self._device_starves() or (
                    size >= tuning.URING_LARGE_BYTES and bool(self._queue.waiting)
                )
                self._held_at = ring.enters if size >= tuning.URING_LARGE_BYTES and not submit else -1
                return ring.write_fixed(FILE, offset, frame, flags=_FIXED_FILE, submit=submit)
        else:
            size = sum(frame.size for frame in frames)
        submit = size >= tuning.URING_HUGE_BYTES or (
            size < tuning.URING_LARGE_BYTES and ring.enters == self._held_at
        )
        self._held_at = ring.enters if tuning.URING_LARGE_BYTES <= size < tuning.URING_HUGE_BYTES else -1
        return ring.submit([self._writes.op(offset, frames)], submit=submit)[0]

    # --- into a sink ---------------------------------------------------------------------

    def start_read(self, offset: int, frame: IoBuffer, want: int | None, sink: Sink) -> bool:
        _, address, size, buf_index = frame
        opcode = _READ_FIXED
        if buf_index < 0:
            if not self._has_plain:
                return False
            opcode, buf_index = _READ, 0
        sink.keep = frame
        if want is None:
            staged = self.ring.stage(sink, opcode, 0, buf_index, address, offset, size)
        elif self._checks:
            staged = self.ring.stage(sink, opcode, 0, buf_index, address, offset, size, 1, want)
        else:
            return False
        if staged < 0:
            return False
        self._counters.reads += 1
        if size >= tuning.URING_LARGE_BYTES or (staged > tuning.URING_QUEUED_MAX and self._starves()):
            self.push()
        return True

    def start_write(self, offset: int, frames: Sequence[IoBuffer], sink: Sink) -> bool:
        sink.keep, c_ring = frames, self._c_ring
        if len(frames) == 1 and self._has_plain:
            _, address, size, buf_index = frames[0]
            opcode = _WRITE_FIXED if buf_index >= 0 else _WRITE
            staged = self.ring.stage(sink, opcode, 0, max(buf_index, 0), address, offset, size)
        else:
            size = sum([frame.size for frame in frames])
            op = self._writes.op(offset, frames)
            sink.keep = op.keep
            staged = self.ring.stage(sink, op.opcode, 0, op.buf_index, op.address, offset, op.length)
        if staged < 0:
            return False
        self._counters.writes += 1
        # The first large one waits: a commit's log block follows and shares the enter.
        if (
            size >= tuning.URING_HUGE_BYTES
            or (staged > 1 and size >= tuning.URING_LARGE_BYTES)
            # _starves(), written out: each of many commits comes here.
            or (
                staged > tuning.URING_QUEUED_MAX
                and c_ring.accepted - c_ring.reaped < tuning.URING_IN_KERNEL_ENOUGH
            )
        ):
            self.push()
        return True

    def start_sync(self, sink: Sink) -> bool:
        if self.blocking:
            self._counters.syncs += 1
            sink.complete(number_of(sync_file, self._calls, self._fd))
            return True
        if self.ring.stage(sink, _FSYNC, _ops.FSYNC_DATASYNC, 0, 0, 0, 0) < 0:
            return False
        self._counters.syncs += 1
        self.push()
        return True

    def run_until(self, done: Callable[[], bool]) -> None:
        self.ring.run_until(done)

    def _starves(self) -> bool:
        c_ring = self._c_ring
        return c_ring.accepted - c_ring.reaped < tuning.URING_IN_KERNEL_ENOUGH

    def _device_starves(self, more: int = 1) -> bool:
        queued = len(self._queue.waiting) + more
        return queued > tuning.URING_QUEUED_MAX and self.ring.in_kernel < tuning.URING_IN_KERNEL_ENOUGH

    def write_then_sync(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[tuple[int, int]]:
        size = sum(frame.size for frame in frames)
        ring = self.ring
        split = ring.chains_split
        write, sync = ring.chain(
            self._writes.op(offset, frames), _FDATASYNC, submit=size >= tuning.URING_HUGE_BYTES
        )
        counters = self._counters
        counters.writes += 1
        counters.syncs += 1
        counters.linked_syncs += 1
        return _join(
            self._loop, write, sync, size, lambda: self.sync() if ring.chains_split != split else sync
        )

    def sync(self) -> Completion[int]:
        self._counters.syncs += 1
        return self.ring.submit([_FDATASYNC])[0]

    def grow(self, size: int) -> Completion[int]:
        """See :meth:`.Engine.grow`.  One growth at a time."""
        done: Completion[int] = Completion(loop=self._loop)
        before = self.file_size()
        if size <= before or before < 0:
            done.resolve(min(before, 0))
        elif self.ring.supports(Opcode.FALLOCATE):
            allocated = self.ring.fallocate(FILE, before, size - before, flags=_FIXED_FILE)
            # The descriptor is looked up then: an engine that was abandoned meanwhile has none.
            allocated.add_immediate_callback(
                lambda rc: done.resolve(finish_growth(self._fd, before, size, rc.result()))
            )
        else:
            done.resolve(finish_growth(self._fd, before, size, -errno.EOPNOTSUPP))
        return done

    def cut(self, size: int) -> Completion[int]:
        """See :meth:`.Engine.cut`; before Linux 6.9 it blocks, for what is cut off at a time."""
        if self.ring.supports(Opcode.FTRUNCATE):
            return self.ring.ftruncate(FILE, size, flags=_FIXED_FILE)
        return self._ended(number_of(cut_file, self._fd, size))

    def punch(self, offset: int, size: int) -> Completion[int]:
        if self.ring.supports(Opcode.FALLOCATE):
            return self.ring.fallocate(FILE, offset, size, mode=PUNCH_HOLE, flags=_FIXED_FILE)
        return self._ended(-errno.EOPNOTSUPP)

    def allocate(self, offset: int, size: int) -> Completion[int]:
        if not self.ring.supports(Opcode.FALLOCATE):
            return self._ended(0)
        done: Completion[int] = Completion(loop=self._loop)
        allocated = self.ring.fallocate(FILE, offset, size, flags=_FIXED_FILE)
        allocated.add_immediate_callback(lambda rc: done.resolve(can_do_without(rc.result())))
        return done

    def _ended(self, result: int) -> Completion[int]:
        done: Completion[int] = Completion(loop=self._loop)
        done.resolve(result)
        return done

    def file_size(self) -> int:
        return size_of_file(self._fd)

    def next_data(self, offset: int) -> int:
        return next_data(self._fd, offset)

    async def close(self) -> None:
        try:
            await self.ring.aclose()
        except GeneratorExit:
            self.abandon()  # the coroutine was closed: it may await nothing
            raise
        finally:
            self.pool.retire()
            self._descriptor.close()

    def abandon(self) -> None:
        self.pool.retire()
        self.ring.abandon()
        self._descriptor = CLOSED  # the kernel refers to the file itself for what is in flight


def _join(
    loop: asyncio.AbstractEventLoop,
    write: Completion[int],
    sync: Completion[int],
    size: int,
    sync_again: Callable[[], Completion[int]],
) -> Completion[tuple[int, int]]:
    """Resolve with both results when both are done, in any order.

    ``sync_again`` sends the sync again if it never began, and else returns it.
    """
    both: Completion[tuple[int, int]] = Completion(loop=loop)

    def finish(_: Completion[int]) -> None:
        if write.result() == size and sync.result() == -errno.ECANCELED:
            with contextlib.suppress(RuntimeError):  # the ring is closing
                again = sync_again()
                if again is not sync:
                    again.add_immediate_callback(lambda again: both.resolve((size, again.result())))
                    return
        both.resolve((write.result(), sync.result()))

    def finish_after_sync(_: Completion[int]) -> None:
        # finish() runs once: a second call would send a second sync.
        if sync.done():
            finish(sync)
        else:
            sync.add_immediate_callback(finish)

    if write.done():  # the kernel refused it at once
        finish_after_sync(write)
    else:
        write.add_immediate_callback(finish_after_sync)
    return both
