"""The engine for every system: a few threads over ``preadv``, ``pwritev`` and ``fdatasync``.

:mod:`uringblob.engines.pread.worker_pool` has the threads; this module has their calls.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from uringblob import tuning
from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import BufferPool
from uringblob.completion import Completion, Sink
from uringblob.engines.base import IoCounters
from uringblob.engines.own_descriptor import OwnDescriptor
from uringblob.engines.posix_calls import (
    PosixCalls,
    allocate_in_file,
    cut_file,
    grow_file,
    next_data,
    number_of,
    pick_calls,
    punch_file,
    size_of_file,
    sync_file,
)
from uringblob.engines.pread.coalesce import CoalescedWrite, Part, count_write
from uringblob.engines.pread.results import Count, ResultQueue, count_nothing
from uringblob.engines.pread.worker_pool import WorkerPool, WorkItem
from uringblob.owner import Owner

_NO_MEMORY: Final = -errno.ENOMEM


class PreadEngine(WorkerPool, Owner):
    """Positional I/O on one open file by a small thread pool; see :class:`.base.Engine`."""

    name = "pread"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        *,
        pool: BufferPool,
        direct_io: bool,
        memory_align: int,
        reason: str,
    ) -> None:
        self.reason = reason
        self.blocking = False
        self.direct_io = direct_io
        self.memory_align = memory_align
        self.pool = pool
        self.counters = IoCounters()
        self._calls = pick_calls()
        self._run: CoalescedWrite | None = None  # the newest, which the next write may join
        self._grow_lock = threading.Lock()  # taken by worker threads only
        super().__init__(loop, self.counters, OwnDescriptor(fd), tuning.PREAD_THREADS_MAX)

    @property
    def _fd(self) -> int:
        return self._descriptor.fd

    def sinks(self) -> list[Sink]:
        return list(self._results.pending)

    def read(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[int]:
        self.counters.reads += 1
        call = functools.partial(number_of, self._calls.readv, self._fd, _views(frames), offset)
        return self.submit(_count_read, _NO_MEMORY, call)

    def read_now(self, offset: int, frame: IoBuffer) -> int:
        descriptor = self._descriptor  # kept open if the engine is abandoned meanwhile
        return number_of(self._calls.readv, descriptor.fd, (frame.view,), offset)

    def write(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[int]:
        completion: Completion[int] = Completion(loop=self._results.loop)
        self.start_write(offset, frames, completion)
        return completion

    def start_write(self, offset: int, frames: Sequence[IoBuffer], sink: Sink) -> bool:
        self.counters.writes += 1
        if self.blocking:
            self._finish(sink, count_write, _write(self._calls, self._fd, _views(frames), offset))
            return True
        part = Part(sink, offset, _views(frames), sum([frame.size for frame in frames]))
        self.submit_to(sink, part, self._put_write)
        return True

    def start_read(self, offset: int, frame: IoBuffer, want: int | None, sink: Sink) -> bool:
        """See :meth:`.Engine.start_read`; the checksum is made by the thread that reads."""
        self.counters.reads += 1
        self.submit_to(sink, CheckedRead(self._results, sink, self._calls, self._fd, offset, frame, want))
        return True

    def start_sync(self, sink: Sink) -> bool:
        self.counters.syncs += 1
        if self.blocking:
            self._finish(sink, count_nothing, number_of(sync_file, self._calls, self._fd))
            return True
        call = functools.partial(number_of, sync_file, self._calls, self._fd)
        self.submit_to(sink, WorkItem(self._results, sink, count_nothing, _NO_MEMORY, call))
        return True

    def _finish(self, sink: Sink, count: Count, result: Any) -> None:
        if isinstance(result, BaseException):
            sink.reject(result)
        else:
            count(self.counters, result)
            sink.complete(result)

    def poll(self) -> None:
        self._results.deliver()

    def run_until(self, done: Callable[[], bool]) -> None:
        """Do nothing: where ``blocking`` is set everything is complete."""

    def push(self) -> None:
        """Do nothing: a thread has it already."""

    def _put_write(self, part: Part) -> None:
        """Add ``part`` to the newest queued write, or queue it as a new one."""
        run = self._run
        if run is None or not run.add(part) or run.try_remove(part):
            run = CoalescedWrite(part, functools.partial(_write, self._calls, self._fd), self._results)
            self._queue.put(run)
            self._run = run  # last: a write that is not queued may not be joined

    def write_then_sync(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[tuple[int, int]]:
        """See :meth:`.Engine.write_then_sync`; one thread makes both calls."""
        self.counters.writes += 1
        size = sum(frame.size for frame in frames)
        call = functools.partial(_write_then_sync, self._calls, self._fd, _views(frames), offset, size)
        return self.submit(_count_write_then_sync, (_NO_MEMORY, _NO_MEMORY), call)

    def sync(self) -> Completion[int]:
        self.counters.syncs += 1
        call = functools.partial(number_of, sync_file, self._calls, self._fd)
        return self.submit(count_nothing, _NO_MEMORY, call)

    def grow(self, size: int) -> Completion[int]:
        call = functools.partial(number_of, _grow, self._grow_lock, self._fd, size)
        return self.submit(count_nothing, _NO_MEMORY, call)

    def cut(self, size: int) -> Completion[int]:
        return self._call(cut_file, self._fd, size)

    def punch(self, offset: int, size: int) -> Completion[int]:
        return self._call(punch_file, self._fd, offset, size)

    def allocate(self, offset: int, size: int) -> Completion[int]:
        return self._call(allocate_in_file, self._fd, offset, size)

    def _call(self, call: Callable[..., int], *args: int) -> Completion[int]:
        return self.submit(count_nothing, _NO_MEMORY, functools.partial(number_of, call, *args))

    def file_size(self) -> int:
        return size_of_file(self._fd)

    def next_data(self, offset: int) -> int:
        return next_data(self._fd, offset)


class CheckedRead(WorkItem):
    """Reads one frame, and compares its checksum with ``want``."""

    __slots__ = ("_frame", "_want")

    def __init__(
        self,
        results: ResultQueue,
        sink: Sink,
        calls: PosixCalls,
        fd: int,
        offset: int,
        frame: IoBuffer,
        want: int | None,
    ) -> None:
        call = functools.partial(number_of, calls.readv, fd, (frame.view,), offset)
        super().__init__(results, sink, _count_read, _NO_MEMORY, call)
        self._frame: IoBuffer | None = frame
        self._want = want

    def work(self) -> None:
        """Read, and compare if the frame is whole."""
        super().work()
        frame, self._frame = self._frame, None
        if frame is not None and self._want is not None and self.result == frame.size:
            self.mismatch = frame_checksum(frame.view) != self._want


def _views(frames: Sequence[IoBuffer]) -> list[memoryview]:
    return [frame.view for frame in frames]


def _write(calls: PosixCalls, fd: int, views: list[memoryview], offset: int) -> Any:
    try:
        return number_of(calls.writev, fd, views, offset)
    except MemoryError:
        return _NO_MEMORY
    except BaseException as error:  # noqa: BLE001 - it rejects the completion
        # Its traceback refers to the callers' stack frames, and so to the views of adjacent writes.
        return error.with_traceback(None)


def _write_then_sync(
    calls: PosixCalls, fd: int, views: list[memoryview], offset: int, size: int
) -> tuple[int, int]:
    try:
        put = number_of(calls.writev, fd, views, offset)
    except MemoryError:
        put = _NO_MEMORY
    if put != size:
        return put, -errno.ECANCELED
    # A MemoryError from here on is not -ECANCELED: a sync that has begun is never repeated.
    return put, number_of(sync_file, calls, fd)


def _grow(lock: threading.Lock, fd: int, size: int) -> int:
    # One at a time: truncating back after a failure must not undo another growth.
    with lock:
        grow_file(fd, size)
    return 0


def _count_read(counters: IoCounters, result: int) -> None:
    counters.bytes_read += max(result, 0)


def _count_write_then_sync(counters: IoCounters, result: tuple[int, int]) -> None:
    put, synced = result
    counters.bytes_written += max(put, 0)
    if synced != -errno.ECANCELED:
        counters.syncs += 1
        counters.linked_syncs += 1
